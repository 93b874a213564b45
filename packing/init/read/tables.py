"""Tables of a competition, as people write them: CSV with any delimiter in UTF-8 or UTF-16, and JSON in COCO's form."""

import codecs
import csv
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

from inference.basics.errors import InputError, TableError
from inference.basics.files import open_regular, read_text
from zoo.text import flatten_message

DELIMITERS = ",;\t|"
CATEGORY = "category_id"
FILE_NAME = "file_name"


def read_sheet(path: Path) -> pd.DataFrame:
    """Read a CSV file as text: no cell becomes a number, spaces around cells are removed.

    The delimiter is the most frequent of comma, semicolon, tab and | in the header; a first column without a name, as
    pandas writes its index, is left out. Raises TableError naming the file and the line.
    """
    text = read_any_text(path)
    first = next(iter(text.splitlines()), "")
    delimiter = max(DELIMITERS, key=first.count)
    header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    if not any(header):
        raise TableError(f"{path}: found an empty file; wanted a table with a header line")
    for name in header:
        if header.count(name) > 1:
            raise TableError(f"{path}: found two columns {name!r}; wanted unique names")
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))[1:]
    except csv.Error as error:
        raise TableError(f"{path}: not a table: {error}") from error
    filled = [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]
    for place, row in enumerate(filled):
        if len(row) != len(header):
            raise TableError(f"{path}: row {place + 1} ({row[0]}): found {len(row)} cells; wanted {len(header)}")
    if not filled:
        raise TableError(f"{path}: has no row; wanted one for each image")
    frame = pd.DataFrame(filled, columns=header, dtype=str)
    return frame.drop(columns="") if header[0] == "" else frame


def read_any_text(path: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte-order mark. Raises TableError."""
    try:
        with open_regular(path) as file:
            content = file.read()
    except InputError as error:
        raise TableError(str(error)) from error
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise TableError(f"{path}: line {line}: not UTF-8: {error.reason}; save the table as UTF-8") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise TableError(f"{path}: line {line}: found a NUL character; the file is damaged")
    return text


def load_document(path: Path) -> Any:
    """Parse a JSON file. Raises TableError naming the file."""
    try:
        return json.loads(read_text(path))
    except InputError as error:
        raise TableError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise TableError(f"{path}: not JSON: {flatten_message(error)}") from error


def read_coco_images(path: Path) -> pd.DataFrame:
    """Read the objects of `images` as a table of text. Raises TableError: the file is not in COCO's form."""
    document = load_document(path)
    entries = document.get("images") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise TableError(f"{path}: no `images`; wanted JSON in COCO's form")
    return pd.DataFrame([{name: str(value) for name, value in entry.items()} for entry in entries]).fillna("")


def read_coco_truth(path: Path, id_column: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return a row per image of COCO's `images` that has annotations, with their categories in `category_id`.

    Also returns category id -> name. The ids are in the column `id_column`. Raises TableError: a part is missing, or an
    annotation names an image or a category that the file lacks.
    """
    images, document = read_coco_images(path), load_document(path)
    for part in ("annotations", "categories"):
        if not isinstance(document.get(part), list) or not document[part]:
            raise TableError(f"{path}: no `{part}`; wanted JSON in COCO's form")
    key = "id" if "id" in images else "image_id"
    try:
        categories = {
            str(entry.get("id", entry.get(CATEGORY))): name_category(entry) for entry in document["categories"]
        }
        pairs = [(str(entry["image_id"]), str(entry[CATEGORY])) for entry in document["annotations"]]
        known = set(images[key])
    except (KeyError, AttributeError, TypeError) as error:
        raise TableError(f"{path}: {flatten_message(error)} is missing; wanted JSON in COCO's form") from error
    found: dict[str, list[str]] = {}
    for image, category in pairs:
        if image not in known:
            raise TableError(f"{path}: an annotation names image {image}, which `images` lacks")
        if category not in categories:
            raise TableError(f"{path}: image {image}: found category {category}; wanted one of `categories`")
        if category not in found.setdefault(image, []):
            found[image].append(category)
    images = images[images[key].isin(list(found))].reset_index(drop=True)
    images[CATEGORY] = [" ".join(found[image]) for image in images[key]]
    return images.rename(columns={key: id_column}), categories


def name_category(entry: Any) -> str:
    """Return the name of an entry of COCO's `categories`."""
    return str(entry.get("name", entry.get("scientificName", entry.get("id", entry.get(CATEGORY)))))
