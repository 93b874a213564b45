"""The images on which an export is measured, and their rows in a table of the truth."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from inference.task.image_places import list_images
from zoo.tables.train_table import Table


def list_all_images(folder: Path) -> list[Path]:
    """List the images of a folder and its subfolders, by path. Raises ImagesError: the folder cannot be listed."""
    return sorted(list_images(folder))


def find_rows(folder: Path, paths: Sequence[Path], table: Table) -> dict[Path, int]:
    """Return the row in a table of each image in `folder` that has one.

    An image belongs to a row by the path that the table has for it, of which `folder` may be the first part; or else by
    its id: the image's path in `folder` or its name, with the suffix or without. A name of two images belongs to none.
    """
    places: dict[str, Path | None] = {}
    for path in paths:
        inside = PurePosixPath(path.relative_to(folder).as_posix())
        for key in {str(inside), str(inside.with_suffix("")), inside.name, inside.stem}:
            places[key] = None if key in places else path
    rows: dict[Path, int] = {}
    for row, name in enumerate(table.ids):
        parts = () if table.images is None else PurePosixPath(table.images[row]).parts
        keys = [*("/".join(parts[start:]) for start in range(len(parts))), name]
        found = next((places[key] for key in keys if places.get(key)), None)
        if found is not None:
            rows[found] = row
    return rows
