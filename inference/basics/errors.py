"""All errors of the project that a user can act on.

VitrineError
├── ManifestError      weights_manifest.json is invalid, or a file differs from its entry there
├── TableError         a CSV file is invalid
│   ├── LabelsError        labels.csv is invalid
│   └── SubmissionError    sample_submission.csv is invalid, or a submission does not match it
├── ImageError         one image cannot be read; it gets the prior labels and the run continues
│   ├── ImageMemoryError   out of memory while reading the image
│   └── LateError          the image was not read before the deadline
├── ImagesError        the folder of images cannot be used
├── SessionError       a model does not load or does not run
│   ├── DeviceMemoryError  out of memory on its device
│   └── DeviceLostError    its GPU is refused or lost: no model can run there
├── InputError         a file cannot be read
├── OutputError        a result cannot be written
├── StoreError         an earlier run cannot be continued
├── OptionError        a command line option is invalid
├── DegradedError      the submission would be degraded, and --strict forbids it
├── CheckpointError    a checkpoint does not fit its manifest entry
├── ExportError        the output of an ONNX file differs from that of its checkpoint
├── PackError          a bundle cannot be built, or Kaggle would refuse it
├── RehearsalError     a dry run did not end in a valid submission
└── TrainingError      training data or settings are invalid

A message names the file and the key, label or image, what was found, what was wanted and what to do. Commands print
it on one line and exit with code 1.
"""


class VitrineError(Exception):
    """The base class of all errors of the project."""


class ManifestError(VitrineError):
    """weights_manifest.json is invalid, or a file differs from its entry there."""


class TableError(VitrineError):
    """A CSV file is invalid."""


class LabelsError(TableError):
    """labels.csv is invalid."""


class SubmissionError(TableError):
    """sample_submission.csv is invalid, or a submission does not match it."""


class ImageError(VitrineError):
    """One image cannot be read."""


class ImageMemoryError(ImageError):
    """Out of memory while reading an image; a retry may succeed."""


class LateError(ImageError):
    """An image was not read before the deadline; the file may be good."""


class ImagesError(VitrineError):
    """The folder of images cannot be used."""


class SessionError(VitrineError):
    """A model does not load or does not run."""


class DeviceMemoryError(SessionError):
    """Out of memory on the device of a model."""


class DeviceLostError(SessionError):
    """A GPU is refused by ONNX Runtime or lost; no model can run there for the rest of the process."""


class InputError(VitrineError):
    """A file cannot be read."""


class OutputError(VitrineError):
    """A result cannot be written."""


class StoreError(VitrineError):
    """An earlier run cannot be continued."""


class OptionError(VitrineError):
    """A command line option is invalid."""


class DegradedError(VitrineError):
    """The submission would be degraded, and --strict forbids it."""


class CheckpointError(VitrineError):
    """A checkpoint does not fit its manifest entry."""


class ExportError(VitrineError):
    """The output of an ONNX file differs from that of its checkpoint."""


class PackError(VitrineError):
    """A bundle cannot be built, or Kaggle would refuse it."""


class RehearsalError(VitrineError):
    """A dry run did not end in a valid submission."""


class TrainingError(VitrineError):
    """Training data or settings are invalid."""
