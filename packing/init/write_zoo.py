"""The files of a new zoo, written all or none: labels.csv, train.csv, folds.csv and weights_manifest.json."""

import csv
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from numpy import int64
from numpy.typing import NDArray

from inference.basics.errors import OptionError, OutputError
from inference.basics.files import make_folder
from inference.manifest.file import MANIFEST_NAME, write_manifest
from inference.manifest.labels import COLUMNS
from inference.manifest.task import Task
from packing.init.answers import Answers
from packing.init.read.truth import Truth
from zoo.edit import create_manifest
from zoo.tables.folds import FOLDS_NAME, write_folds

LABELS_NAME, TRAIN_NAME = "labels.csv", "train.csv"
NAMES = (LABELS_NAME, TRAIN_NAME, FOLDS_NAME, MANIFEST_NAME)


def check_out(out: Path, folder: Path, force: bool) -> None:
    """Raise OptionError if the files would replace those of another zoo, or the competition's own."""
    if out.resolve() == folder.resolve():
        raise OptionError(f"--out: found {out}, the competition's folder; wanted another one")
    for name in NAMES[::-1]:
        if (out / name).exists() and not force:
            raise OptionError(f"--out: {out / name} exists; choose another folder, or replace the file with --force")


def write_zoo(
    out: Path,
    task: Task,
    answers: Answers,
    truth: Truth,
    images: Sequence[str],
    owners: NDArray[int64],
    time_limit: float | None,
) -> None:
    """Write the files of a zoo in `out`; `images`: path of each image, empty if unknown; `owners`: fold of each image.

    Raises OutputError: a file cannot be written; ManifestError: the task is not valid.
    """
    make_folder(out.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as made:
            folder = Path(made)
            write_labels(folder / LABELS_NAME, answers, truth)
            header = ("id", *(("image",) if images else ()), answers.header)
            columns: list[Sequence[str]] = [truth.ids, *([images] if images else []), answers.cells]
            write_rows(folder / TRAIN_NAME, header, zip(*columns, strict=True))
            write_folds(truth.ids, owners, folder / FOLDS_NAME)
            manifest = create_manifest(folder / MANIFEST_NAME, folder / LABELS_NAME, folder / TRAIN_NAME, task)
            if time_limit is not None:
                runtime = dataclasses.replace(manifest.runtime, time_limit=round(time_limit))
                manifest = dataclasses.replace(manifest, runtime=runtime)
            write_manifest(manifest, folder / MANIFEST_NAME)
            make_folder(out)
            for name in NAMES:
                os.replace(folder / name, out / name)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror or error}") from error


def write_labels(path: Path, answers: Answers, truth: Truth) -> None:
    """Copy the competition's labels.csv, or write one."""
    if truth.labels_file is not None and answers.names == tuple(truth.names.values()):
        shutil.copyfile(truth.labels_file, path)
    else:
        write_rows(path, COLUMNS, zip(map(str, answers.label_ids), answers.names, strict=True))


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file with Unix line ends."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
