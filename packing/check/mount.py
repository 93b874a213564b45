"""The competition's folder as a dry run shows it to the kernel: as it is, or limited to the first images."""

import csv
import shutil
from collections.abc import Collection
from pathlib import Path

from inference.basics.errors import OptionError
from inference.manifest.task import Task
from inference.task.sample import Sample
from packing.check.competition import Contents


def mount_competition(competition: Path, place: Path, task: Task, contents: Contents, limit: int | None = None) -> None:
    """Link `competition` at `place`: whole, or with only the first `limit` images in its sample.

    The sample keeps its own header and rows. If the folder of images holds the sample too, the images are copied, as
    the kernel follows no links out of that folder. Raises OptionError: `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise OptionError(f"--limit: found {limit}; wanted at least 1")
    if limit is None or limit >= len(contents.sample.ids):
        place.symlink_to(competition.resolve(), target_is_directory=True)
        return
    is_shared = Path(task.sample).is_relative_to(task.images.folder)
    own = {path.relative_to(competition) for path in contents.paths[:limit] if path} if is_shared else set[Path]()
    _mirror(competition, place, {*own, Path(task.sample)})
    cut_sample(competition / task.sample, place / task.sample, contents.sample, limit)


def cut_sample(source: Path, target: Path, sample: Sample, limit: int) -> None:
    """Write the header of a sample and the rows of its first `limit` images, cell by cell as they are."""
    images = [cell.image for cell in sample.cells] or range(len(sample.ids))
    with (
        source.open(newline="", encoding="utf-8-sig") as given,
        target.open("w", newline="", encoding="utf-8") as cut,
    ):
        table, written = csv.reader(given), csv.writer(cut, lineterminator="\n")
        written.writerow(next(table))
        filled = (row for row in table if any(cell.strip() for cell in row))
        written.writerows(row for row, image in zip(filled, images, strict=True) if image < limit)


def refuse_inside(out: Path, competition: Path) -> None:
    """Raise OptionError if the output lies in the competition's folder, which a kernel cannot write."""
    if out.resolve().is_relative_to(competition.resolve()):
        raise OptionError(f"--out: found {out}, in the competition's folder, which is read-only; choose another folder")


def _mirror(source: Path, target: Path, copied: Collection[Path]) -> None:
    """Copy the files at the relative paths `copied`; link everything else that lies beside them."""
    parents = {parent for path in copied for parent in path.parents}
    for folder in sorted(parents):
        (target / folder).mkdir(parents=True, exist_ok=True)
        for path in (source / folder).iterdir():
            name = folder / path.name
            if name in copied:
                shutil.copyfile(path, target / name)
            elif name not in parents:
                (target / name).symlink_to(path.resolve())
