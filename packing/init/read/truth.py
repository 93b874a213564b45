"""The truth about the training images: the table that holds it, and the columns of the labels."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from inference.basics.errors import OptionError, TableError
from inference.manifest.labels import COLUMNS, IMET_COLUMNS
from packing.init.read.cells import find_separator, split_cell
from packing.init.read.image_files import ImageFiles
from packing.init.read.sample import SampleSheet, check_column, choose_file
from packing.init.read.tables import CATEGORY, read_coco_truth, read_sheet
from packing.init.settings import Settings
from zoo.text import NAMED

TABLES = ("train.csv", "train_labels.csv")
LABELS = "labels.csv"
FOLDER_CLASS = "class"
USUAL_COLUMNS = (CATEGORY, "label", "labels", "target", "class", "species", "breed")
ROW_SEPARATORS = "_-. "
HALF = 0.5
FEW = 1000  # cells that are looked at to find the separator


@dataclass(frozen=True)
class Truth:
    """A row per training image."""

    source: str
    """File, or where the classes were found."""
    frame: pd.DataFrame
    id_column: str
    columns: tuple[str, ...] = ()
    """Of the labels: one, or one for each label."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Label ids, or names, and their names, if a file lists all labels."""
    labels_file: Path | None = None
    """labels.csv, if the competition has one."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Image ids, in the order of the table."""
        return tuple(self.frame[self.id_column])

    def cells(self, column: int = 0) -> list[str]:
        """Return the cells of a column of the labels."""
        return list(self.frame[self.columns[column]])

    def describe(self) -> str:
        """Return the source and the columns, as in 'train.csv, column label'."""
        shown = ", ".join(self.columns[:NAMED]) + ", …" * (len(self.columns) > NAMED)
        if self.columns == (FOLDER_CLASS,):
            return self.source
        return f"{self.source}, column{'s' * (len(self.columns) > 1)} {shown}"


def read_truth(settings: Settings, sample: SampleSheet, files: ImageFiles) -> Truth:
    """Find and read the truth, and choose the columns of the labels.

    Raises OptionError: it cannot be found, or its columns cannot be known; TableError: an id is empty or occurs twice.
    """
    truth = read_rows(settings, sample, files)
    seen: set[str] = set()
    for row, name in enumerate(truth.ids):
        if not name:
            raise TableError(f"{truth.source}: row {row + 1}: found an empty {truth.id_column}; wanted an id")
        if name in seen:
            raise TableError(f"{truth.source}: found image {name} twice; wanted a row for each image")
        seen.add(name)
    return truth if truth.columns else add_columns(truth, settings, sample)


def read_rows(settings: Settings, sample: SampleSheet, files: ImageFiles) -> Truth:
    """Read the table of the truth, or make it from the folders or names of the training images."""
    path = find_table(settings)
    labels = find_labels_file(settings.folder, path)
    names = read_label_names(labels) if labels else {}
    if path is None:
        frame, source = files.list_classes(sample.ids)
        return Truth(source, frame, "id", (FOLDER_CLASS,), names, labels)
    source = path.relative_to(settings.folder).as_posix()
    if path.suffix.lower() == ".json":
        frame, names = read_coco_truth(path, sample.id_column)
        return Truth(source, frame, sample.id_column, (CATEGORY,), names)
    frame = read_sheet(path)
    return Truth(source, frame, choose_id_column(frame, settings, sample, files, source), (), names, labels)


def find_table(settings: Settings) -> Path | None:
    """Return the path of the table of training images; None: there is none. Raises OptionError: there are several."""
    folder = settings.folder
    if settings.train:
        if not (folder / settings.train).is_file():
            raise OptionError(f"--train: {folder / settings.train}: no such file")
        return folder / settings.train
    for name in TABLES:
        if (folder / name).is_file():
            return folder / name
    tables = sorted(path.name for path in folder.glob("*train*.csv"))
    if not tables:
        found = [*folder.glob("*train*.json"), *folder.glob("*train*/*.json"), *folder.glob("*/train/metadata.json")]
        tables = sorted({path.relative_to(folder).as_posix() for path in found})
    if not tables and (folder / LABELS).is_file() and not is_label_list(folder / LABELS):
        tables = [LABELS]
    return folder / choose_file(tables, "--train", "table") if tables else None


def find_labels_file(folder: Path, table: Path | None) -> Path | None:
    """Return labels.csv if it lists the labels."""
    path = folder / LABELS
    return path if path != table and path.is_file() and is_label_list(path) else None


def is_label_list(path: Path) -> bool:
    """Return whether a table has the columns of labels.csv: of ids and names of labels."""
    columns = set(read_sheet(path).columns)
    return any(columns >= set(wanted) for wanted in (COLUMNS, IMET_COLUMNS))


def read_label_names(path: Path) -> dict[str, str]:
    """Return label id -> name of labels.csv."""
    frame = read_sheet(path)
    key, name = IMET_COLUMNS if IMET_COLUMNS[0] in frame.columns else COLUMNS
    return dict(zip(frame[key], frame[name], strict=True))


def choose_id_column(
    frame: pd.DataFrame, settings: Settings, sample: SampleSheet, files: ImageFiles, source: str
) -> str:
    """Return the column of the image ids: named by the user, or like the sample's, or whose cells are image files."""
    if settings.train_id_column:
        return check_column(frame, settings.train_id_column, source, "--train-id-column")
    if sample.id_column.lower() in map(str.lower, frame.columns):
        return check_column(frame, sample.id_column, source, "--train-id-column")
    names = [str(name) for name in frame.columns if frame[name].is_unique]
    placed = [name for name in names if files.share(frame[name]) > HALF]
    if len(placed or names) == 1:
        return (placed or names)[0]
    raise OptionError(
        f"--train-id-column: cannot be known: {source} has no column {sample.id_column} as {sample.path}; "
        f"wanted one of: {', '.join(map(str, frame.columns))}"
    )


def add_columns(truth: Truth, settings: Settings, sample: SampleSheet) -> Truth:
    """Return the truth with the columns of its labels."""
    frame, rest = truth.frame, [str(name) for name in truth.frame.columns if name != truth.id_column]
    if settings.label_columns:
        columns = tuple(check_column(frame, name, truth.source, "--label-column") for name in settings.label_columns)
    elif len(sample.columns) > 1:
        columns = match_wide(truth, sample, rest)
    else:
        columns = match_single(truth, sample, rest)
    return dataclasses.replace(truth, columns=columns)


def match_wide(truth: Truth, sample: SampleSheet, rest: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of the labels where the sample has a column per label.

    They have the sample's names, or it is one whose cells are the sample's names. Raises TableError: neither.
    """
    if set(sample.columns) <= set(rest):
        return sample.columns
    labels = frozenset(sample.columns)
    shares: dict[str, float] = {}
    for name in rest:
        cells = list(truth.frame[name])
        words = {word for cell in cells for word in split_cell(cell, find_separator(cells[:FEW], labels, name))}
        shares[name] = len(words & labels) / max(1, len(words))
    best = max(shares, key=lambda name: shares[name], default=None)
    if best is not None and shares[best] > 0:
        return (best,)
    found = sorted(labels.intersection(rest)) or ["none"]
    raise TableError(
        f"{sample.path}: its columns {', '.join(sample.columns[:NAMED])}, … match nothing in {truth.source}: found "
        f"{', '.join(found)} of them there, and no column with them in its cells; wanted the sample of this competition"
    )


def match_single(truth: Truth, sample: SampleSheet, rest: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of the labels where the sample has one column of answers.

    In this order: the columns that the sample's ids end with; the sample's name; the columns that its cells name; a
    usual name; the only column. Raises OptionError: none of these.
    """
    endings = find_endings(sample, rest)
    if endings:
        return endings
    answer = sample.columns[0]
    same = [name for name in rest if name == answer] or [name for name in rest if name.lower() == answer.lower()]
    if len(same) == 1:
        return (same[0],)
    words = {word for cell in sample.cells for word in split_cell(cell, " ")}
    marks = [name for name in rest if {*truth.frame[name]} <= {"0", "1"}]
    if len(marks) > 1 and words and words <= set(marks):
        return tuple(marks)
    usual = [name for name in rest if name in USUAL_COLUMNS]
    if len(usual) == 1 or len(rest) == 1:
        return ((usual or rest)[0],)
    raise OptionError(
        f"--label-column: cannot be known: {truth.source} has no column {answer} as {sample.path}; "
        f"wanted one or more of: {', '.join(rest)}"
    )


def find_endings(sample: SampleSheet, rest: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that the sample's ids end with, as in ID_LABEL; none if an id has no such ending."""
    longest_first = sorted(rest, key=len, reverse=True)
    found: set[str] = set()
    for name in sample.ids:
        ending = split_row(name, longest_first)
        if ending is None:
            return ()
        found.add(ending[1])
    return tuple(name for name in rest if name in found) if len(found) > 1 else ()


def split_row(row: str, longest_first: Sequence[str]) -> tuple[str, str] | None:
    """Return the character before the label, and the label, of a row's id such as ID_LABEL; None: no such label."""
    for label in longest_first:
        rest = row.removesuffix(label)
        if rest != row and len(rest) > 1 and rest[-1] in ROW_SEPARATORS:
            return rest[-1], label
    return None
