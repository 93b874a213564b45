"""A competition's folder: its sample submission and the files of its test images."""

from collections.abc import Sequence
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
    found = read_sample(sample or _place(competition, task.sample, "--sample"), task, labels)
    return found, place_sample(task, found.ids, competition, images)


def place_sample(
    task: Task, ids: Sequence[str], competition: Path | None, images: Path | None = None
) -> list[Path | None]:
    """Find the file of each image id; arguments and errors as `open_competition`."""
    folder = images or _place(competition, task.images.folder, "--images")
    rows = None
    if task.images.table is not None:
        rows = read_image_table(_place(competition, task.images.table, "the table of images"), task.images)
    return find_images(folder, ids, task.images.file, rows)


def _place(competition: Path | None, path: str, option: str) -> Path:
    if competition is None:
        raise OptionError(f"--competition: missing; it is needed to find {option}, {path} of the manifest's `task`")
    return competition / path
