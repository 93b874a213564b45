"""The table of the test images: a CSV file, or JSON in COCO's form."""

import json
from pathlib import Path
from typing import Any

from inference.basics.errors import ImagesError, InputError, TableError
from inference.basics.files import read_text
from inference.basics.tables import read_columns
from inference.manifest.task import ID, PLACEHOLDER, Images


def read_image_table(path: Path, images: Images) -> dict[str, dict[str, str]]:
    """Read the columns that `images.path` names: image id -> column -> cell.

    COCO's form is an object with a list `images` of objects, or that list alone. Raises ImagesError: the file is
    missing or unreadable, or has no such column.
    """
    columns = sorted({found[1] for found in PLACEHOLDER.finditer(images.path)} - {ID})
    if path.suffix.lower() == ".json":
        return _read_coco(path, images.table_id, columns)
    try:
        rows = list(read_columns(path, (images.table_id, *columns)))
    except TableError as error:
        raise ImagesError(str(error)) from error
    return {name: dict(zip(columns, cells, strict=True)) for name, *cells in rows}


def _read_coco(path: Path, table_id: str, columns: list[str]) -> dict[str, dict[str, str]]:
    try:
        document: Any = json.loads(read_text(path))
        entries = document["images"] if isinstance(document, dict) else document
        return {str(entry[table_id]): {column: str(entry[column]) for column in columns} for entry in entries}
    except InputError as error:
        raise ImagesError(str(error)) from error
    except KeyError as error:
        raise ImagesError(f"{path}: no {error}; wanted `images`, each with {', '.join((table_id, *columns))}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ImagesError(f"{path}: not a list of images in COCO's form: {error}") from error
