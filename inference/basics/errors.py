"""Every error of the project that a user can act on.

VitrineError
├── ManifestError      weights_manifest.json, or a file that it names, is not as declared
├── TableError         a CSV file cannot be used
│   ├── LabelsError        labels.csv
│   └── SubmissionError    sample_submission.csv, or a submission that does not answer it
├── ImageError         one image cannot be read; it costs that image its scores, never the run
│   └── ImageMemoryError   not because of what is in its file, but for want of memory
├── ImagesError        the folder of images cannot be used
├── SessionError       a model does not load or does not run
│   └── DeviceMemoryError  its device has not enough memory for the batch
├── OutputError        a result cannot be written
├── StoreError         the work of an earlier run cannot be continued
├── OptionError        an option of the command line makes no sense here
├── DegradedError      --strict, and the submission would lack something
├── CheckpointError    a checkpoint does not fit its manifest entry
├── ExportError        an ONNX file is not the checkpoint it was made from
├── PackError          a bundle cannot be made, or is not what Kaggle accepts
├── RehearsalError     a dry run did not end in a valid submission
└── TrainingError      training data or settings cannot be used

A message names the file and the key, label or image, what was found, what was wanted and what to do. Commands print
it as one line and exit 1.
"""


class VitrineError(Exception):
    """Root of the tree."""


class ManifestError(VitrineError):
    """weights_manifest.json, or a file that it names, is not as declared."""


class TableError(VitrineError):
    """A CSV file cannot be used."""


class LabelsError(TableError):
    """labels.csv cannot be used."""


class SubmissionError(TableError):
    """sample_submission.csv cannot be used, or a submission does not answer it."""


class ImageError(VitrineError):
    """One image cannot be read."""


class ImageMemoryError(ImageError):
    """Memory did not suffice to read an image; it may another time, or elsewhere."""


class ImagesError(VitrineError):
    """The folder of images cannot be used."""


class SessionError(VitrineError):
    """A model does not load or does not run."""


class DeviceMemoryError(SessionError):
    """A model's device has not enough memory for the batch."""


class OutputError(VitrineError):
    """A result cannot be written."""


class StoreError(VitrineError):
    """The work of an earlier run cannot be continued."""


class OptionError(VitrineError):
    """An option of the command line makes no sense here."""


class DegradedError(VitrineError):
    """--strict, and the submission would lack something."""


class CheckpointError(VitrineError):
    """A checkpoint does not fit its manifest entry."""


class ExportError(VitrineError):
    """An ONNX file is not the checkpoint it was made from."""


class PackError(VitrineError):
    """A bundle cannot be made, or is not what Kaggle accepts."""


class RehearsalError(VitrineError):
    """A dry run did not end in a valid submission."""


class TrainingError(VitrineError):
    """Training data or settings cannot be used."""
