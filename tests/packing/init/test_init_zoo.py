# ruff: noqa: E501 (tables of a fault and its message, with one row per line)
"""init on invented copies of 23 competitions, and on broken ones."""

import csv
import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import build_kernel
from inference.manifest.file import MANIFEST_NAME, read_manifest
from inference.manifest.labels import read_labels
from inference.manifest.task import Form, Images, Metric, Task
from tests.packing.init import competitions
from tests.packing.init.competitions import COMPETITIONS, write_competition, write_pictures, write_table
from zoo.tables.train_table import read_table

SAMPLE = "sample_submission.csv"
COCO = "test2019.json"
LIST_ID = Form("list", "label_id", "label", top_k=1)
WIDE = Form("wide", "probability", "id")
F2, AREA, LOG_LOSS = Metric(), Metric("roc_auc"), Metric("log_loss")
TASKS = {
    "imet-2019-fgvc6": ("multilabel", "id", Images(), Form(), F2),
    "imet-2020-fgvc7": ("multilabel", "id", Images(), Form(), Metric("f_beta", 1.0, "micro")),
    "cassava-leaf-disease-classification": (
        "multiclass", "image_id", Images("test_images/{id}"), LIST_ID, Metric("accuracy")
    ),
    "plant-pathology-2021-fgvc8": (
        "multilabel", "image", Images("test_images/{id}"), Form("list", "label_name", "labels"), Metric(beta=1.0)
    ),
    "plant-pathology-2020-fgvc7": (
        "multiclass", "image_id", Images("images/{id}"), Form("wide", "probability", "healthy"), AREA
    ),
    "ranzcr-clip-catheter-line-classification": (
        "multilabel", "StudyInstanceUID", Images(), Form("wide", "probability", "ETT - Abnormal"), AREA
    ),
    "hotel-id-2021-fgvc8": (
        "multiclass", "image", Images("test_images/{id}"), Form("list", "label_id", "hotel_id", top_k=5), Metric("map")
    ),
    "whale-categorization-playground": (
        "multiclass", "Image", Images(), Form("list", "label_name", "Id", top_k=5), Metric("map")
    ),
    "inaturalist-2019-fgvc6": (
        "multiclass", "id", Images("{file_name}", COCO), Form("list", "label_id", "predicted", top_k=5),
        Metric("accuracy"),
    ),
    "herbarium-2020-fgvc7": (
        "multiclass", "Id", Images("test/{file_name}", "test/metadata.json"),
        Form("list", "label_id", "Predicted", top_k=1), Metric("f_beta", 1.0, "macro"),
    ),
    "iwildcam-2019-fgvc6": (
        "multiclass", "Id", Images("test_images/{id}"), Form("list", "label_id", "Predicted", top_k=1),
        Metric("f_beta", 1.0, "macro"),
    ),
    "paddy-disease-classification": (
        "multiclass", "image_id", Images("test_images/{id}"), Form("list", "label_name", "label", top_k=1),
        Metric("accuracy"),
    ),
    "plant-seedlings-classification": (
        "multiclass", "file", Images(), Form("list", "label_name", "species", top_k=1), Metric("f_beta", 1.0, "micro")
    ),
    "aptos2019-blindness-detection": (
        "multiclass", "id_code", Images("test_images/{id}"), Form("list", "label_id", "diagnosis", top_k=1),
        Metric("kappa"),
    ),
    "siim-isic-melanoma-classification": (
        "binary", "image_name", Images("jpeg/test/{id}"), Form("wide", "probability", "target"), AREA
    ),
    "aerial-cactus-identification": ("binary", "id", Images(), Form("wide", "probability", "has_cactus"), AREA),
    "histopathologic-cancer-detection": ("binary", "id", Images(), Form("wide", "probability", "label"), AREA),
    "invasive-species-monitoring": ("binary", "name", Images(), Form("wide", "probability", "invasive"), AREA),
    "dogs-vs-cats-redux-kernels-edition": ("binary", "id", Images(), Form("wide", "probability", "label"), LOG_LOSS),
    "dog-breed-identification": (
        "multiclass", "id", Images(), Form("wide", "probability", "affenpinscher", sum_to_one=True), LOG_LOSS
    ),
    "leaf-classification": (
        "multiclass", "id", Images("images/{id}"), Form("wide", "probability", "Acer_Capillipes", sum_to_one=True),
        LOG_LOSS,
    ),
    "hms-harmful-brain-activity-classification": (
        "multiclass", "eeg_id", Images("test_spectrograms/{id}"),
        Form("wide", "probability", "seizure_vote", sum_to_one=True), Metric("kl_divergence"),
    ),
    "rsna-2022-cervical-spine-fracture-detection": (
        "multilabel", "row_id", Images("test_images/{id}"), Form("long", "probability", "fractured"), LOG_LOSS
    ),
    "petfinder-pawpularity-score": ("regression", "Id", Images(), Form("wide", "number", "Pawpularity"), Metric("rmse")),
}  # fmt: skip
NAMES = {
    "imet-2019-fgvc6": list(competitions.IMET_LABELS),
    "plant-pathology-2021-fgvc8": ["complex", "frog_eye_leaf_spot", "healthy", "rust", "scab"],
    "ranzcr-clip-catheter-line-classification": list(competitions.RANZCR),
    "hotel-id-2021-fgvc8": ["7", "18807", "36363", "53586", "60181", "64314"],
    "inaturalist-2019-fgvc6": ["7", "6", "5", "4", "3", "2", "1", "0"],
    "herbarium-2020-fgvc7": [f"Plantago {label} L." for label in range(6)],
    "plant-seedlings-classification": ["Black-grass", "Common wheat", "Maize", "Sugar beet"],
    "siim-isic-melanoma-classification": ["target"],
    "dog-breed-identification": list(competitions.BREEDS),
    "hms-harmful-brain-activity-classification": list(competitions.VOTES),
    "petfinder-pawpularity-score": ["Pawpularity"],
}


def init(folder: Path, out: Path, *options: str) -> int:
    return build_kernel.main(["init", str(folder), "--out", str(out), *options])


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a competition, written once."""
    root = tmp_path_factory.mktemp("competitions")

    def open_one(name: str) -> Path:
        if not (root / name).exists():
            write_competition(name, root / name)
        return root / name

    return open_one


@pytest.fixture(scope="module")
def made(written: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The zoo that init writes for a competition, made once."""
    root = tmp_path_factory.mktemp("zoos")

    def make(name: str) -> Path:
        if not (root / name).exists():
            assert init(written(name), root / name, *COMPETITIONS[name].options) == 0
        return root / name

    return make


@pytest.mark.parametrize("name", TASKS)
def test_the_task_of_a_competition_is_declared(name: str, made: Callable[[str], Path]) -> None:
    manifest = read_manifest(made(name) / MANIFEST_NAME)
    kind, id_column, images, form, metric = TASKS[name]
    wanted = Task(name, kind, id_column, SAMPLE, images, form, metric)  # type: ignore[arg-type]
    if kind == "regression":
        wanted = dataclasses.replace(wanted, value_range=(1.0, 100.0))
    assert manifest.task == wanted
    assert manifest.models == () and not any(manifest.ensemble.weights.values())
    imet = {"imet-2019-fgvc6": {"culture": "culture::", "tag": "tag::"}}
    if name != "imet-2020-fgvc7":
        assert manifest.labels.groups == imet.get(name, {"labels": ""})
    assert manifest.runtime.time_limit == (4 if name == "imet-2020-fgvc7" else 9) * 3600


@pytest.mark.parametrize("name", NAMES)
def test_the_labels_are_in_the_order_of_the_competition(name: str, made: Callable[[str], Path]) -> None:
    manifest = read_manifest(made(name) / MANIFEST_NAME)
    labels = read_labels(made(name) / "labels.csv", manifest.labels.groups)
    assert list(labels.names) == NAMES[name]
    ids = [7, 18807, 36363, 53586, 60181, 64314] if name.startswith("hotel") else list(range(len(labels.names)))
    assert list(labels.ids) == ids


@pytest.mark.parametrize("name", ["imet-2019-fgvc6", "imet-2020-fgvc7"])
def test_a_list_of_labels_is_copied_as_it_is(name: str, made: Callable[[str], Path], written: Any) -> None:
    assert (made(name) / "labels.csv").read_bytes() == (written(name) / "labels.csv").read_bytes()


@pytest.mark.parametrize("name", TASKS)
def test_every_row_names_its_image_and_the_reader_finds_the_truth(
    name: str, made: Callable[[str], Path], written: Callable[[str], Path]
) -> None:
    """The truth that was written, through the tables of init, against what the competition's builder says."""
    manifest = read_manifest(made(name) / MANIFEST_NAME)
    labels = read_labels(made(name) / "labels.csv", manifest.labels.groups)
    table = read_table(made(name) / "train.csv", labels, manifest.task)
    assert table.images is not None and len(table.images) == competitions.TRAIN
    assert all((written(name) / path).is_file() for path in table.images)
    assert len(set(table.images)) == competitions.TRAIN
    assert [row["id"] for row in read_rows(made(name) / "folds.csv")] == list(table.ids)
    for place in range(competitions.TRAIN):
        truth, found = COMPETITIONS[name].truth(place), table.targets[place]
        if truth is None:  # classes by folders: the image says it
            named = table.images[place].split("/")[1]
            truth = int(named.startswith("dog")) if "dogs" in name else named
            if "ranzcr" in name:
                cells = read_rows(written(name) / "train.csv")[place]
                truth = [int(cells[label]) for label in labels.names]
        if isinstance(truth, list | np.ndarray):
            assert list(found) == pytest.approx(np.array(truth) / (sum(truth) if "vote" in labels.names[0] else 1))
        elif manifest.task.type == "regression":
            assert found[0] == pytest.approx((truth - 1) / 99)
        elif manifest.task.type == "binary":
            assert found[0] == truth
        else:
            words = str(truth).split() if manifest.task.type == "multilabel" else [str(truth)]
            known = labels.names if manifest.task.submission.content != "label_id" else tuple(map(str, labels.ids))
            assert {known[column] for column in np.flatnonzero(found)} == set(words)


@pytest.mark.parametrize(
    ("name", "column"),
    [("ranzcr-clip-catheter-line-classification", "PatientID"), ("siim-isic-melanoma-classification", "patient_id")],
)
def test_folds_keep_a_patient_together(name: str, column: str, made: Any, written: Any) -> None:
    patients = [row[column] for row in read_rows(written(name) / "train.csv")]
    folds = [row["fold"] for row in read_rows(made(name) / "folds.csv")]
    assert len(set(zip(patients, folds, strict=True))) == len(set(patients)) and len(set(folds)) == 5


def test_the_table_says_what_was_found_and_from_what(written: Any, tmp_path: Path, capsys: Any) -> None:
    assert init(written("hotel-id-2021-fgvc8"), tmp_path / "zoo", "--metric", "map@5", "--folds", "2") == 0
    lines = [re.split(r"\s{2,}", line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["found", "value", "from"],
        ["competition", "hotel-id-2021-fgvc8", "name of the folder"],
        ["id column", "image", SAMPLE],
        ["training images", "train_images/{chain}/{id}, 30 of 30 rows have a file", "train.csv"],
        ["type", "multiclass", "train.csv, column hotel_id: one label in every row"],
        ["labels", "6 (whole numbers): 7, 18807, 36363, …", "train.csv"],
        ["labels per image", "1 to 1, mean 1", "train.csv"],
        ["submission", "list in column hotel_id: label_id, 5, separated by ' ', best first", SAMPLE],
        ["test images", "test_images/{id}, 1 images in test_images/", "files of 1 of 6 ids looked at"],
        ["metric", "MAP@5", "--metric"],
        ["folds", "2, stratified by the labels; 15 to 15 images", "--seed 0"],
        [f"wrote labels.csv, train.csv, folds.csv and {MANIFEST_NAME} to {tmp_path / 'zoo'}"],
    ]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("imet-2019-fgvc6", "f2, f1, f_beta=BETA, micro_f1, macro_f1 for several labels of 5"),
        ("cassava-leaf-disease-classification", "accuracy, macro_f1, micro_f1, kappa, map@1 for one label of 5"),
        ("hotel-id-2021-fgvc8", "map@5, accuracy for the 5 best labels of 6"),
        (
            "leaf-classification",
            "log_loss, roc_auc, kl_divergence for a probability for each of 3 labels, of which one is true",
        ),
        ("ranzcr-clip-catheter-line-classification", "roc_auc, log_loss for a probability for each of 11 labels"),
        ("aerial-cactus-identification", "roc_auc, log_loss for one probability"),
        (
            "siim-isic-melanoma-classification",
            "accuracy, macro_f1, micro_f1, kappa for the label 0 or 1; roc_auc, log_loss for the probability of 1",
        ),
    ],
)
def test_a_metric_is_asked_for(name: str, wanted: str, written: Any, tmp_path: Path, capsys: Any) -> None:
    assert init(written(name), tmp_path / "zoo") == 1
    said = capsys.readouterr()
    assert said.err == f"error: --metric: cannot be known from tables; wanted one of: {wanted}\n"
    assert "training images" in said.out and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("imet-2019-fgvc6", ("--metric", "auc"), "--metric: found 'auc'; wanted one of: f2, f1, f_beta=BETA, micro_f1, "
         "macro_f1, accuracy, kappa, map@K, roc_auc, log_loss, kl_divergence, rmse"),
        ("imet-2019-fgvc6", ("--metric", "kappa"), "--metric: found 'kappa'; wanted one of: f2, f1, f_beta=BETA, "
         "micro_f1, macro_f1 for several labels of 5"),
        ("hotel-id-2021-fgvc8", ("--metric", "map@3"), "--metric: found 'map@3'; wanted one of: map@5, accuracy for "
         "the 5 best labels of 6"),
        ("cassava-leaf-disease-classification", ("--metric", "f1"), "--metric: found 'f1'; wanted one of: accuracy, "
         "macro_f1, micro_f1, kappa, map@1 for one label of 5"),
        ("imet-2019-fgvc6", ("--metric", "f2", "--type", "multiclass"), "train.csv: image a000000b: found 2 labels: "
         "0, 2; wanted one (several are --type multilabel)"),
        ("imet-2019-fgvc6", ("--metric", "f2", "--layout", "wide"), "--layout: found wide; wanted list for multilabel "
         "labels and the 1 columns of answers in sample_submission.csv"),
        ("imet-2019-fgvc6", ("--metric", "f2", "--group-by", "artist"), "train.csv: no column artist; found id, "
         "attribute_ids; name it with --group-by"),
        ("imet-2019-fgvc6", ("--metric", "f2", "--folds", "31"), "`folds`: found 31; wanted at most the number of "
         "images, 30"),
        ("imet-2019-fgvc6", ("--metric", "f2", "--train", "x.csv"), "--train: FOLDER/x.csv: no such file"),
        ("imet-2019-fgvc6", ("--metric", "f2", "--sample", "x.csv"), "--sample: FOLDER/x.csv: no such file"),
        ("imet-2019-fgvc6", ("--metric", "f2", "--competition", "A B"), "--competition: found 'A B'; wanted the name "
         "in the competition's URL, of a-z, 0-9 and -"),
        ("imet-2019-fgvc6", ("--metric", "f2", "--images", "test"), "--images: found 'test'; wanted a pattern such as "
         "test/{id} or test/{id:3}/{id}"),
        ("imet-2019-fgvc6", ("--metric", "f2", "--images", "{a}/{id}"), "--images: found no table of the test images "
         "with the column a; name columns of such a table"),
        ("imet-2019-fgvc6", ("--metric", "f2", "--train-images", "{a}/{id}"), "--train-images: found {a}; wanted id or "
         "a column of train.csv: attribute_ids"),
        ("dogs-vs-cats-redux-kernels-edition", ("--metric", "log_loss"), "--positive: cannot be known: wanted the class "
         "whose probability is asked, one of: cat, dog"),
        ("rsna-breast-cancer-detection", ("--metric", "roc_auc", "--train-id-column", "image_id"), "--images: cannot be "
         "known: found no image of the sample's ids; give a pattern such as 'test/{id}'"),
        ("ranzcr-clip-catheter-line-classification", ("--metric", "roc_auc", "--type", "multiclass"), "train.csv: "
         "image 1.2.826.0.0: found 4 labels: ETT - Abnormal, NGT - Normal, CVC - Abnormal, CVC - Borderline; wanted one "
         "(several are --type multilabel)"),
        ("hms-harmful-brain-activity-classification", ("--metric", "log_loss", "--type", "multilabel"), "train.csv: "
         "image 1628180742: lpd_vote: found '2'; wanted a number from 0 to 1"),
        ("hms-harmful-brain-activity-classification", ("--metric", "rmse"), "--metric: found 'rmse'; wanted one of: "
         "log_loss, roc_auc, kl_divergence for a probability for each of 6 labels, of which one is true"),
    ],
)  # fmt: skip
def test_options_that_do_not_suit_are_refused(
    name: str, options: tuple[str, ...], message: str, written: Any, tmp_path: Path, capsys: Any
) -> None:
    folder = written(name)
    assert init(folder, tmp_path / "zoo", *options) == 1
    assert capsys.readouterr().err.replace(str(folder), "FOLDER") == f"error: {message}\n"
    assert list(tmp_path.iterdir()) == []


def test_an_existing_zoo_is_replaced_only_by_force(written: Any, tmp_path: Path, capsys: Any) -> None:
    folder, out = written("imet-2019-fgvc6"), tmp_path / "zoo"
    out.mkdir()
    (out / "model.pth").write_text("kept")
    (out / MANIFEST_NAME).write_text("{}")
    assert init(folder, out, "--metric", "f2") == 1
    exists = f"{out / MANIFEST_NAME} exists; choose another folder, or replace the file with --force"
    assert capsys.readouterr().err == f"error: --out: {exists}\n"
    assert sorted(path.name for path in out.iterdir()) == ["model.pth", MANIFEST_NAME]
    assert init(folder, out, "--metric", "f2", "--force") == 0
    names = ["folds.csv", "labels.csv", "model.pth", "train.csv", MANIFEST_NAME]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    assert [path.name for path in tmp_path.iterdir()] == ["zoo"]
    assert init(folder, folder, "--metric", "f2", "--force") == 1
    assert capsys.readouterr().err == f"error: --out: found {folder}, the competition's folder; wanted another one\n"


def test_missing_images_and_images_without_a_row_are_counted(written: Any, tmp_path: Path, capsys: Any) -> None:
    folder = Path(shutil.copytree(written("paddy-disease-classification"), tmp_path / "paddy"))
    (folder / "train_images/blast/100331.jpg").rename(folder / "train_images/blast/new.jpg")
    assert init(folder, tmp_path / "zoo", "--metric", "accuracy") == 0
    said = capsys.readouterr().out
    assert "train_images/{label}/{id}, 29 of 30 rows have a file" in said
    assert "note: 1 of 30 images of train.csv have no file; training skips them only if asked\n" in said
    assert "note: 1 images beside the training images have no row in train.csv\n" in said
    assert read_rows(tmp_path / "zoo/train.csv")[1]["image"] == "train_images/blast/100331.jpg"


def test_a_hidden_test_folder_is_guessed_and_said(written: Any, tmp_path: Path, capsys: Any) -> None:
    folder = Path(shutil.copytree(written("aptos2019-blindness-detection"), tmp_path / "aptos"))
    shutil.rmtree(folder / "test_images")
    assert init(folder, tmp_path / "zoo", "--metric", "kappa") == 0
    guess = "test_images/{id}, 0 images in test_images/"
    assert guess in capsys.readouterr().out
    for name in ("test_images", "test_tiles"):
        (folder / name).mkdir()
    assert init(folder, tmp_path / "other", "--metric", "kappa") == 1
    wanted = "found no image of the sample's ids; give 'test_images/{id}' or 'test_tiles/{id}'"
    assert capsys.readouterr().err == f"error: --images: cannot be known: {wanted}\n"


def test_ids_that_are_equal_as_numbers_are_different_images(tmp_path: Path) -> None:
    ids = ["1", "01", "001", "1e0", "1.0", "+1"]
    folder = tmp_path / "numbers"
    write_table(folder / "train.csv", ("id", "label"), [(name, place % 2) for place, name in enumerate(ids)])
    write_table(folder / SAMPLE, ("id", "label"), [("007", 0), ("7", 0)])
    write_pictures(folder, [f"train/{name}.png" for name in ids] + ["test/7.png", "test/007.png"])
    assert init(folder, tmp_path / "zoo", "--metric", "accuracy", "--folds", "2") == 0
    rows = read_rows(tmp_path / "zoo/train.csv")
    assert [(row["id"], row["image"], row["labels"]) for row in rows] == [
        (name, f"train/{name}.png", str(place % 2)) for place, name in enumerate(ids)
    ]


def test_a_nested_test_folder_is_found_by_the_start_of_the_id(written: Any, tmp_path: Path, capsys: Any) -> None:
    folder = Path(shutil.copytree(written("aerial-cactus-identification"), tmp_path / "cactus"))
    for path in list((folder / "test").iterdir()):
        nested = folder / "test" / path.name[:7]
        nested.mkdir(exist_ok=True)
        path.rename(nested / path.name)
    init(folder, tmp_path / "zoo", "--metric", "roc_auc")
    assert "test/{id:7}/{id}, 6 images in test/" in capsys.readouterr().out


CELLS = {
    "comma_in_quotes": ("labels", '"0,3"'),
    "python_list": ("labels", '"[0, 3]"'),
    "semicolons_in_cells": ("labels", "0;3"),
    "bars": ("labels", "0|3"),
    "spaces": ("labels", " 0  3 "),
}


def write_small(folder: Path, text: str | bytes, sample: str = "id,label\nx,0\n", labels: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "train.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    (folder / SAMPLE).write_text(sample)
    if labels:
        (folder / "labels.csv").write_text(labels)
    (folder / "test").mkdir()
    return folder


@pytest.mark.parametrize("cell", [text for _, text in CELLS.values()], ids=list(CELLS))
def test_lists_of_labels_are_read_in_any_form(cell: str, tmp_path: Path) -> None:
    rows = "".join(f"i{place},{cell if place % 2 else place % 4}\n" for place in range(12))
    folder = write_small(tmp_path / "a", f"id,label\n{rows}", "id,label\nx,0 3\n")
    assert init(folder, tmp_path / "zoo", "--metric", "f2", "--folds", "2") == 0
    assert [row["labels"] for row in read_rows(tmp_path / "zoo/train.csv")] == ["0", "0 3", "2", "0 3"] * 3


PLAIN = "id,label\n" + "".join(f"i{place},{place % 3}\n" for place in range(12))


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode("utf-16"),
        ("\ufeff" + PLAIN.replace("\n", "\r\n")).encode(),
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode(),
        PLAIN.replace("\n", "  \n").replace(",", " , ").encode(),
        re.sub(r",(\d)", r",\1.0", PLAIN).encode(),
        re.sub(r"(i\d+),(\d)", r'"\1","\2"', PLAIN).encode(),
        re.sub(r"^(i\d+)", r"0,\1", PLAIN, flags=re.M).replace("id,", ",id,").encode(),
        PLAIN.replace("id,label", "ID,Label").encode(),
        PLAIN.rstrip("\n").encode(),
    ],
    ids=["utf16", "bom", "semicolons", "tabs", "spaces", "floats", "quotes", "pandas_index", "upper_case", "no_end"],
)
def test_tables_are_read_in_any_form(content: bytes, tmp_path: Path) -> None:
    folder = write_small(tmp_path / "a", content)
    assert init(folder, tmp_path / "zoo", "--metric", "accuracy", "--folds", "2") == 0
    rows = read_rows(tmp_path / "zoo/train.csv")
    assert [(row["id"], row["labels"]) for row in rows] == [(f"i{place}", str(place % 3)) for place in range(12)]


GOOD = "id,label\na,0\nb,1\nc,2\nd,0\n"
LISTED = "label_id,label_name\n0,cat\n1,dog\n2,cow\n"
BAD: list[tuple[str, str | bytes, dict[str, str], str]] = [
    ("unknown label", GOOD + "e,9\n", {"labels": LISTED}, "train.csv: image e: found label '9'; wanted labels of labels.csv"),
    ("unknown name", "id,label\na,cat\nb,dog\nc,hen\n", {"labels": LISTED}, "train.csv: image c: found label 'hen'; wanted labels of labels.csv"),
    ("negative label", GOOD + "e,-1\n", {}, "train.csv: image e: label: found '-1'; wanted whole numbers from 0"),
    ("nan label", GOOD + "e,nan\n", {}, "train.csv: image e: label: found 'nan'; wanted labels, or an empty cell for none"),
    ("empty label", GOOD + "e,\n", {}, "train.csv: image e: found no label; wanted one (several are --type multilabel)"),
    ("duplicate id", GOOD + "a,1\n", {}, "train.csv: found image a twice; wanted a row for each image"),
    ("empty id", GOOD + ",1\n", {}, "train.csv: row 5: found an empty id; wanted an id"),
    ("header only", "id,label\n", {}, "FOLDER/train.csv: has no row; wanted one for each image"),
    ("empty file", "", {}, "FOLDER/train.csv: found an empty file; wanted a table with a header line"),
    ("short row", GOOD + "e\n", {}, "FOLDER/train.csv: row 5 (e): found 1 cells; wanted 2"),
    ("long row", GOOD + "e,1,2\n", {}, "FOLDER/train.csv: row 5 (e): found 3 cells; wanted 2"),
    ("nul", GOOD + "e\0,1\n", {}, "FOLDER/train.csv: line 6: found a NUL character; the file is damaged"),
    ("latin1", GOOD.encode() + "é,1\n".encode("latin-1"), {}, "FOLDER/train.csv: line 6: not UTF-8: invalid continuation byte; save the table as UTF-8"),
    ("two columns", "id,label,label\na,0,1\n", {}, "FOLDER/train.csv: found two columns 'label'; wanted unique names"),
    ("one class", "id,label\na,1x\nb,1x\n", {}, "train.csv, column label: found one class, 1x; wanted at least two"),
    ("no column", "id,kind,place\na,0,1\nb,1,1\n", {}, "--label-column: cannot be known: train.csv has no column label as sample_submission.csv; wanted one or more of: kind, place"),
    ("no id column", "file,label,place\na,0,1\nb,1,2\n", {}, "--train-id-column: cannot be known: train.csv has no column id as sample_submission.csv; wanted one of: file, label, place"),
    ("names with spaces", "id,label\na,red fox\nb,red\nc,red\n", {"sample": "id,label\nx,red\n"}, "--separator: cannot be known: train.csv, column label has cells such as 'red fox', one label or several; give --separator ' ' or --separator none"),
    ("value", "id,label\na,1.5\nb,2,5\n".replace("2,5", '"2,5"'), {"type": "regression"}, "train.csv: image b: label: found '2,5'; wanted a number"),
    ("nan value", "id,label\na,1.5\nb,nan\n", {"metric": "rmse"}, "train.csv: image b: label: found 'nan'; wanted a number"),
    ("infinite value", "id,label\na,1.5\nb,inf\n", {"type": "regression"}, "train.csv: image b: label: found 'inf'; wanted a number"),
    ("equal values", "id,label\na,1.5\nb,1.5\n", {}, "train.csv, column label: found 1.5 for every image; wanted different numbers"),
    ("share above 1", "id,label\na,0.5\nb,1.5\n", {"metric": "log_loss"}, "train.csv: image b: label: found '1.5'; wanted a number from 0 to 1"),
    ("votes of zero", "id,a,b\nx,1,2\ny,0,0\n", {"sample": "id,a,b\nz,1,0\n"}, "train.csv: image y: found the votes 0, 0; wanted one above 0"),
    ("negative vote", "id,a,b\nx,1,2\ny,-1,0\n", {"sample": "id,a,b\nz,1,0\n"}, "train.csv: image y: a: found '-1'; wanted a number from 0"),
    ("empty vote", "id,a,b\nx,1,2\ny,,0\n", {"sample": "id,a,b\nz,1,0\n"}, "train.csv: image y: a: found ''; wanted a number"),
    ("wrong sample", GOOD, {"sample": "id,u,v\nz,1,0\n"}, "sample_submission.csv: its columns u, v, … match nothing in train.csv: found none of them there, and no column with them in its cells; wanted the sample of this competition"),
    ("breed that the sample lacks", "id,label\na,u\nb,v\nc,w\n", {"sample": "id,u,v\nz,1,0\n"}, "train.csv: image c: found label 'w'; wanted the columns of sample_submission.csv"),
    ("sample of ids", GOOD, {"sample": "id\nz\n"}, "FOLDER/sample_submission.csv: found only the column id; wanted a column of the answers too"),
    ("sample id twice", GOOD, {"sample": "id,label\nz,0\nz,0\n"}, "FOLDER/sample_submission.csv: found id z twice; wanted unique ids"),
    ("sample id empty", GOOD, {"sample": "id,label\n,0\n"}, "FOLDER/sample_submission.csv: row 1: found an empty id; wanted an id"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "given", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_tables_are_refused(
    content: str | bytes, given: dict[str, str], message: str, tmp_path: Path, capsys: Any
) -> None:
    files = {key: value for key, value in given.items() if key in ("sample", "labels")}
    options = [word for key, value in given.items() if key not in files for word in (f"--{key}", value)]
    folder = write_small(tmp_path / "a", content, **files)
    assert init(folder, tmp_path / "zoo", *options) == 1
    assert capsys.readouterr().err.replace(str(folder), "FOLDER") == f"error: {message}\n"
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        (("--separator", "none"), ["1", "0", "0"]),
        (("--separator", " ", "--type", "multilabel"), ["0 1", "1", "1"]),
    ],
)
def test_an_ambiguous_separator_is_settled_by_the_option(
    options: tuple[str, ...], rows: list[str], tmp_path: Path
) -> None:
    folder = write_small(tmp_path / "a", "id,label\na,red fox\nb,red\nc,red\n", "id,label\nx,red\n")
    metric = "accuracy" if "none" in options else "f1"
    assert init(folder, tmp_path / "zoo", "--metric", metric, "--folds", "2", *options) == 0
    assert [row["labels"] for row in read_rows(tmp_path / "zoo/train.csv")] == rows


def test_a_class_with_one_image_is_named(tmp_path: Path, capsys: Any) -> None:
    folder = write_small(tmp_path / "a", GOOD)
    assert init(folder, tmp_path / "zoo", "--metric", "accuracy", "--folds", "3") == 0
    small = "3 of 3 labels have fewer images than the 3 folds: 0 (2), 1 (1), 2 (1)"
    assert f"note: {small}\n" in capsys.readouterr().out
    assert {row["fold"] for row in read_rows(tmp_path / "zoo/folds.csv")} == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": []}, "no `annotations`; wanted JSON in COCO's form"),
        ({"categories": None}, "no `categories`; wanted JSON in COCO's form"),
        ({"images": []}, "no `images`; wanted JSON in COCO's form"),
        ({"annotations": [{"image_id": 99, "category_id": 1}]}, "an annotation names image 99, which `images` lacks"),
        (
            {"annotations": [{"image_id": 1, "category_id": 99}]},
            "image 1: found category 99; wanted one of `categories`",
        ),
        ({"annotations": [{"image_id": 1}]}, "'category_id' is missing; wanted JSON in COCO's form"),
    ],
)
def test_broken_coco_files_are_refused(
    change: dict[str, Any], message: str, written: Any, tmp_path: Path, capsys: Any
) -> None:
    folder = Path(shutil.copytree(written("inaturalist-2019-fgvc6"), tmp_path / "a"))
    path = folder / "train2019.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert init(folder, tmp_path / "zoo", "--metric", "accuracy") == 1
    assert capsys.readouterr().err == f"error: {path}: {message}\n"
