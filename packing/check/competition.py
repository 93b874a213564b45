"""A comparison of a competition's untouched folder with the task: what the kernel would read there."""

from dataclasses import dataclass
from pathlib import Path

from inference.basics.errors import ImagesError, InputError, PackError, SubmissionError
from inference.manifest.labels import Labels
from inference.manifest.task import Task
from inference.task.competition import place_sample
from inference.task.image_places import list_images
from inference.task.sample import Sample, list_some, read_sample

SHOWN = 3


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
        unused = [str(path.relative_to(own)) for path in list_images(own) if path not in used]
        missing = [name for name, path in zip(self.sample.ids, self.paths, strict=True) if path is None]
        return "\n".join(
            [
                f"{folder / task.sample}: {len(self.sample.ids)} images, the columns {list_some(self.sample.header)}",
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
    sample: Sample | None = None
    try:
        sample = read_sample(folder / task.sample, task, labels)
    except (SubmissionError, InputError) as error:
        faults.append(str(error))
    images = folder / task.images.folder
    if not images.is_dir():
        others = sorted(f"{path.name}/" for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        faults.append(
            f"{images}: no such folder, but `task.images.path` of the manifest is {task.images.path}; found "
            f"{list_some(others) or 'no folder'} in {folder}"
        )
    if faults or sample is None:
        raise PackError("; ".join(faults))
    try:
        paths = place_sample(task, sample.ids, folder)
    except ImagesError as error:
        raise PackError(f"{error}; `task.images.path` is {task.images.path}") from error
    return Contents(sample, tuple(paths))


def _count(names: list[str]) -> str:
    return f"{len(names)}: {list_some(names, SHOWN)}" if names else "none"
