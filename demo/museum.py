"""Writing the demo dataset in the format of Kaggle's iMet 2019, or of another competition."""

import csv
import itertools
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from demo.collection import TEST_EXHIBITS, TRAIN_EXHIBITS, Exhibit, Part, make_exhibit
from demo.competitions import COMPETITIONS, Competition, MuseumTask
from demo.drawing import draw_exhibit
from inference.basics.errors import OutputError
from inference.basics.files import make_folder, replace_file

# Pillow's options by suffix.
OPTIONS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG", "compress_level": 1},
    ".jpg": {"format": "JPEG", "quality": 90},
}


def write_museum(
    folder: Path,
    train_images: int = TRAIN_EXHIBITS,
    test_images: int = TEST_EXHIBITS,
    task: MuseumTask = "multilabel",
) -> None:
    """Write train.csv, sample_submission.csv, truth.csv, iMet's labels.csv, and the images of a competition.

    train.csv always lists all training images, of which the first `train_images` are drawn; the other tables list the
    `test_images`. Existing images are skipped. Raises OutputError: a number is out of range, or writing fails.
    """
    if not 0 <= train_images <= TRAIN_EXHIBITS:
        raise OutputError(f"--train: found {train_images}; wanted 0 to {TRAIN_EXHIBITS}, the rows of train.csv")
    if test_images < 1:
        raise OutputError(f"--test: found {test_images}; wanted 1 or more; a submission needs a row")
    make_folder(folder)
    competition = COMPETITIONS[task]
    train = choose_exhibits("train", TRAIN_EXHIBITS, competition)
    test = choose_exhibits("test", test_images, competition)
    draw_pictures(folder, [*train[:train_images], *test], competition)
    if competition.names:
        _write_table(folder / "labels.csv", ("attribute_id", "attribute_name"), enumerate(competition.names))
    answers = [(competition.name(exhibit), competition.constant) for exhibit in test]
    for name, rows in (
        ("train", _list_rows(train, competition)),
        ("truth", _list_rows(test, competition)),
        ("sample_submission", answers),
    ):
        _write_table(folder / f"{name}.csv", competition.header, sorted(rows))


def choose_exhibits(part: Part, count: int, competition: Competition) -> list[Exhibit]:
    """Return the first `count` exhibits of a part that have an answer in the competition."""
    exhibits = (make_exhibit(part, index) for index in itertools.count())
    return list(itertools.islice(filter(competition.answer, exhibits), count))


def draw_pictures(folder: Path, exhibits: Sequence[Exhibit], competition: Competition) -> None:
    """Draw the image of each exhibit at its place in the competition, on all cores, with a progress bar."""
    wanted = [(exhibit, folder / competition.place(exhibit.part, competition.name(exhibit))) for exhibit in exhibits]
    for parent in {path.parent for _, path in wanted}:
        make_folder(parent)
    missing = [(exhibit, path) for exhibit, path in wanted if not path.exists()]
    if not missing:
        return
    # A fork copies the locks of threads started by torch or tqdm; Python 3.12 warns about it, and may hang.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as pool:
        done = pool.map(_write_picture, missing, chunksize=16)
        for _ in tqdm(done, total=len(missing), desc="drawing", unit="image", leave=False):
            pass


def _write_picture(wanted: tuple[Exhibit, Path]) -> None:
    exhibit, path = wanted
    with replace_file(path) as temporary:
        draw_exhibit(exhibit).save(temporary, **OPTIONS[path.suffix])


def _list_rows(exhibits: Iterable[Exhibit], competition: Competition) -> list[tuple[str, str]]:
    return [(competition.name(exhibit), competition.answer(exhibit)) for exhibit in exhibits]


def _write_table(path: Path, header: tuple[str, str], rows: Iterable[tuple[object, object]]) -> None:
    with replace_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
