"""Where the test images and the training images lie, by the ids of the sample and of the truth."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from inference.basics.errors import OptionError, TableError
from inference.manifest.task import ID, PLACEHOLDER, Images
from packing.init.read.image_files import ImageFiles, Place, find_path_column, find_pattern, is_image, spread
from packing.init.read.sample import SampleSheet
from packing.init.read.tables import read_coco_images, read_sheet
from packing.init.read.truth import HALF, Truth
from packing.init.settings import Settings

IMAGE = "image"
ID_COLUMNS = ("id", "image_id")


@dataclass(frozen=True)
class TrainPlaces:
    """The files of the training images."""

    paths: tuple[str, ...]
    """Per image, relative to the competition's folder; also of a missing file; empty if no file was found."""
    found: int
    """Images with a file."""
    pattern: str
    unused: int
    """Images beside them without a row, which are no test images."""


def place_test(
    settings: Settings, files: ImageFiles, sample: SampleSheet, ids: Sequence[str], train_pattern: str
) -> tuple[Images, str]:
    """Return the pattern of the test images, and how it was found.

    In this order: --images; the files of the sample's ids; a table of the test images; the name of a folder, as the
    test images may be hidden. Raises OptionError: none of these.
    """
    if settings.images:
        return place_by_option(settings, files, sample, ids)
    place = find_pattern(files, ids, "test")
    if place and "train" in fixed_part(place.pattern) and "test" not in fixed_part(place.pattern):
        place = None  # training images of the same names
    if place is None or place.found < place.of:
        table = find_table(settings, files, sample, ids)
        if table is not None and (place is None or table.found > place.found):
            place = table
    if place is None:
        return Images(
            guess_pattern(files, train_pattern)
        ), "guessed from names of folders: no image of the sample is here"
    images = Images(place.pattern, place.table, place.table_id)
    if place.found == 0:
        return images, f"guessed from {place.table}: no image of the sample is here"
    source = f"files of {place.found} of {place.of} ids looked at"
    return images, source if place.table is None else f"{place.table}, {source}"


def place_by_option(
    settings: Settings, files: ImageFiles, sample: SampleSheet, ids: Sequence[str]
) -> tuple[Images, str]:
    """Return the pattern of --images, with the table of the columns that it names."""
    pattern = str(settings.images)
    columns = {found[1] for found in PLACEHOLDER.finditer(pattern)}
    if not columns:
        raise OptionError(f"--images: found {pattern!r}; wanted a pattern such as test/{{id}} or test/{{id:3}}/{{id}}")
    if columns == {ID}:
        return Images(pattern), "--images"
    for path, frame in list_tables(settings.folder, sample.path):
        if columns - {ID} <= set(frame.columns):
            return Images(pattern, path, choose_table_id(frame, sample, ids) or ID), f"--images, {path}"
    shown = ", ".join(sorted(columns - {ID}))
    raise OptionError(
        f"--images: found no table of the test images with the column {shown}; name columns of such a table"
    )


def find_table(settings: Settings, files: ImageFiles, sample: SampleSheet, ids: Sequence[str]) -> Place | None:
    """Return the pattern of the table that gives the test images' paths; None: there is none."""
    best: Place | None = None
    for path, frame in list_tables(settings.folder, sample.path):
        key = choose_table_id(frame, sample, ids)
        place = find_path_column(files, frame, key, "test") if key else None
        if place is not None and key and (best is None or place.found > best.found):
            pattern = place.pattern
            if place.found == 0:  # hidden images: paths start at the table's folder
                parent = path.rpartition("/")[0]
                pattern = f"{parent}/{pattern}" if parent else pattern
            best = Place(pattern, place.found, place.of, path, key)
    return best


def list_tables(folder: Path, sample: str) -> list[tuple[str, pd.DataFrame]]:
    """Return the path and the rows of each table of test images; files that are no such table are left out."""
    found = {
        path for shape in ("*test*.csv", "*test*.json", "*test*/*.json", "*/test/*.json") for path in folder.glob(shape)
    }
    tables = []
    for path in sorted(found):
        name = path.relative_to(folder).as_posix()
        try:
            if name != sample:
                tables.append((name, read_coco_images(path) if path.suffix == ".json" else read_sheet(path)))
        except TableError:
            continue
    return tables


def choose_table_id(frame: pd.DataFrame, sample: SampleSheet, ids: Sequence[str]) -> str | None:
    """Return the column of a table that holds most of the sample's ids; None: none holds half of them."""
    some = spread(ids)
    for name in sorted(map(str, frame.columns), key=lambda name: name not in (sample.id_column, *ID_COLUMNS)):
        if len(set(some) & set(frame[name])) > HALF * len(some):
            return name
    return None


def guess_pattern(files: ImageFiles, train_pattern: str) -> str:
    """Return the pattern of a hidden test folder: the only one whose name says test, or like that of the train images.

    Raises OptionError naming the choices.
    """
    named = [folder for folder in files.folders if "test" in folder.rpartition("/")[2].lower()]
    filled = [folder for folder in named if files.count(folder)] or named
    mirrored = f"{fixed_part(train_pattern).replace('train', 'test').rpartition('/')[0]}/{{id}}"
    if len(filled) == 1:
        return f"{filled[0]}/{{id}}"
    if not filled and "test" in mirrored:
        return mirrored
    choices = " or ".join(f"'{folder}/{{id}}'" for folder in filled) or "a pattern such as 'test/{id}'"
    raise OptionError(f"--images: cannot be known: found no image of the sample's ids; give {choices}")


def fixed_part(pattern: str) -> str:
    """Return a pattern up to its first placeholder, in lower case."""
    return pattern.partition("{")[0].lower()


def place_train(settings: Settings, files: ImageFiles, truth: Truth, test_ids: Sequence[str]) -> TrainPlaces:
    """Find the file of each training image: by the table's own paths, or by a pattern of ids and columns."""
    ids, frame = truth.ids, truth.frame
    if IMAGE in frame.columns and set(frame[IMAGE]) <= set(files.paths):
        return TrainPlaces(tuple(frame[IMAGE]), len(frame), "", 0)
    columns = {str(name): list(frame[name]) for name in frame.columns if name != truth.id_column}
    if settings.train_images:
        place: Place | None = Place(settings.train_images, 0, 0)
        check_placeholders(settings.train_images, columns, truth.source)
    else:
        place = find_pattern(files, ids, "train", columns)
        if place and "test" in fixed_part(place.pattern) and "train" not in fixed_part(place.pattern):
            place = None  # test images of the same names
        other = find_path_column(files, frame, truth.id_column, "train")
        if other is not None and other.found > (place.found if place else 0):
            place = other
    if place is None:
        return TrainPlaces((), 0, "", 0)
    rows = [{ID: name, **{key: cells[row] for key, cells in columns.items()}} for row, name in enumerate(ids)]
    expected = [fill(place.pattern, row) for row in rows]
    known = set(files.paths)
    found = [find_file(files, known, name, path) for name, path in zip(ids, expected, strict=True)]
    suffixes = Counter(os.path.splitext(path)[1] for path in found if path)
    usual = suffixes.most_common(1)[0][0] if suffixes else ""
    paths = tuple(
        path or (wanted if is_image(wanted) else wanted + usual) for path, wanted in zip(found, expected, strict=True)
    )
    used = set(paths) | {path for name in test_ids for path in files.find(name)}
    start = place.pattern.partition("{")[0]
    unused = sum(path.startswith(start) and path not in used and not is_test(path) for path in files.paths)
    return TrainPlaces(paths if any(found) else (), sum(map(bool, found)), place.pattern, unused)


def check_placeholders(pattern: str, columns: Mapping[str, object], source: str) -> None:
    """Raise OptionError if --train-images names no id or column, or a column that the table lacks."""
    names = [found[1] for found in PLACEHOLDER.finditer(pattern)]
    for name in names:
        if name != ID and name not in columns:
            raise OptionError(
                f"--train-images: found {{{name}}}; wanted id or a column of {source}: {', '.join(columns)}"
            )
    if not names:
        raise OptionError(f"--train-images: found {pattern!r}; wanted a pattern such as train/{{id}}")


def fill(pattern: str, row: Mapping[str, str]) -> str:
    """Return the path of a row: each placeholder replaced by the start of its cell."""
    return PLACEHOLDER.sub(lambda found: row[found[1]][: int(found[2]) if found[2] else None], pattern)


def find_file(files: ImageFiles, known: set[str], name: str, expected: str) -> str | None:
    """Return the file at the expected path, whose suffix may be missing, or the only file of the id; None: neither."""
    if expected in known:
        return expected
    found = files.find(expected.rpartition("/")[2])
    here = [path for path in found if os.path.splitext(path)[0] == expected]
    others = [path for path in files.find(name) if not is_test(path)]
    return here[0] if here else others[0] if len(others) == 1 else None


def is_test(path: str) -> bool:
    """Return whether a folder of the path says test."""
    return "test" in path.rpartition("/")[0].lower()
