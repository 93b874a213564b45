"""A competition's folder: its sample submission and the files of its test images."""

from pathlib import Path

from inference.basics.errors import OptionError
from inference.manifest.labels import Labels
from inference.manifest.task import Task
from inference.task.image_places import find_images
from inference.task.image_table import read_image_table
from inference.task.sample import Sample, read_sample


def open_competition(
    task: Task, labels: Labels, competition: Path | None, images: Path | None = None, sample: Path | None = None
) -> tuple[Sample, list[Path | None]]:
    """Read the sample and find the file of each of its images; None for a missing file.

    `competition`: its folder; `images` and `sample` replace the folder of the images and the sample that the task names
    there. Raises OptionError: one is missing; SubmissionError or ImagesError: one cannot be used.
    """
    sample_path = sample or _place(competition, task.sample, "--sample")
    folder = images or _place(competition, task.images.folder, "--images")
    rows = None
    if task.images.table is not None:
        rows = read_image_table(_place(competition, task.images.table, "the table of images"), task.images)
    found = read_sample(sample_path, task, labels)
    return found, find_images(folder, found.ids, task.images.file, rows)


def _place(competition: Path | None, path: str, option: str) -> Path:
    if competition is None:
        raise OptionError(f"--competition: missing; it is needed to find {option}, {path} of the manifest's `task`")
    return competition / path
