"""Writing the demo dataset in the format of Kaggle's iMet 2019."""

import csv
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from demo.collection import NAMES, TEST_EXHIBITS, TRAIN_EXHIBITS, Exhibit, list_exhibits
from demo.drawing import draw_exhibit
from inference.basics.errors import OutputError
from inference.basics.files import make_folder, replace_file

CONSTANT_ANSWER = "0 1 2"  # label ids of every image in Kaggle's sample submission


def write_museum(folder: Path, train_images: int = TRAIN_EXHIBITS, test_images: int = TEST_EXHIBITS) -> None:
    """Write labels.csv, train.csv, sample_submission.csv, truth.csv, and the images in train/ and test/.

    train.csv always lists all training images, of which the first `train_images` are drawn; the other tables list the
    `test_images`. Existing images are skipped. Raises OutputError: a number is out of range, or writing fails.
    """
    if not 0 <= train_images <= TRAIN_EXHIBITS:
        raise OutputError(f"--train: found {train_images}; wanted 0 to {TRAIN_EXHIBITS}, the rows of train.csv")
    if test_images < 1:
        raise OutputError(f"--test: found {test_images}; wanted 1 or more; a submission needs a row")
    make_folder(folder)
    train, test = list_exhibits("train", TRAIN_EXHIBITS), list_exhibits("test", test_images)
    draw_pictures(folder, [*train[:train_images], *test])
    _write_table(folder / "labels.csv", ("attribute_id", "attribute_name"), enumerate(NAMES))
    answers = [(exhibit.id, CONSTANT_ANSWER) for exhibit in test]
    for name, rows in (("train", _list_rows(train)), ("truth", _list_rows(test)), ("sample_submission", answers)):
        _write_table(folder / f"{name}.csv", ("id", "attribute_ids"), sorted(rows))


def draw_pictures(folder: Path, exhibits: Sequence[Exhibit]) -> None:
    """Draw PART/ID.png for each exhibit on all cores, with a progress bar."""
    for part in {exhibit.part for exhibit in exhibits}:
        make_folder(folder / part)
    wanted = [(exhibit, folder / exhibit.part / f"{exhibit.id}.png") for exhibit in exhibits]
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
        draw_exhibit(exhibit).save(temporary, format="PNG", compress_level=1)


def _list_rows(exhibits: Iterable[Exhibit]) -> list[tuple[str, str]]:
    return [(exhibit.id, " ".join(map(str, exhibit.annotated))) for exhibit in exhibits]


def _write_table(path: Path, header: tuple[str, str], rows: Iterable[tuple[object, object]]) -> None:
    with replace_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
