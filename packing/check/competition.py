"""A comparison of a competition's untouched folder with the task: what the kernel would read there."""

from dataclasses import dataclass
from pathlib import Path

from inference.basics.errors import ImagesError, InputError, PackError, SubmissionError
from inference.manifest.labels import Labels
from inference.manifest.task import Task
from inference.task.competition import open_competition
from inference.task.image_places import list_images
from inference.task.sample import Sample, read_sample

SHOWN = 3
MOST_FILES = 10_000_000


@dataclass(frozen=True)
class Contents:
    """The sample and the images of a competition's folder."""

    sample: Sample
    paths: tuple[Path | None, ...]
    """File of each id; None if it is missing."""

    def describe(self, folder: Path, task: Task) -> str:
        """Return the lines that say what was found in `folder`: columns, ids without an image, images without an id."""
        used = {path for path in self.paths if path}
        own = folder / task.images.folder
        unused = [str(path.relative_to(own)) for path in list_images(own, MOST_FILES) if path not in used]
        missing = [name for name, path in zip(self.sample.ids, self.paths, strict=True) if path is None]
        return "\n".join(
            [
                f"{folder / task.sample}: {len(self.sample.ids)} images, the columns {_list(self.sample.header)}",
                f"{folder}: {len(used)} images found as {task.images.path}",
                f"ids without an image: {_count(missing)}",
                f"images without an id: {_count(unused)}",
            ]
        )


def open_contents(folder: Path, task: Task, labels: Labels) -> Contents:
    """Read what the kernel would read in a competition's folder.

    Raises PackError naming everything that differs from the task: the sample's columns, the images' place.
    """
    faults = []
    try:
        read_sample(folder / task.sample, task, labels)
    except (SubmissionError, InputError) as error:
        faults.append(str(error))
    images = folder / task.images.folder
    if not images.is_dir():
        others = sorted(f"{path.name}/" for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        faults.append(
            f"{images}: no such folder, but `task.images.path` of the manifest is {task.images.path}; found "
            f"{_list(others) or 'no folder'} in {folder}"
        )
    if faults:
        raise PackError("; ".join(faults))
    try:
        sample, paths = open_competition(task, labels, folder)
    except ImagesError as error:
        raise PackError(f"{error}; `task.images.path` is {task.images.path}") from error
    return Contents(sample, tuple(paths))


def _count(names: list[str]) -> str:
    return f"{len(names)}: {_list(names, SHOWN)}" if names else "none"


def _list(names: tuple[str, ...] | list[str], most: int = 8) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
