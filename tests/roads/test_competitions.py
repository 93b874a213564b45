"""Bundles of other competitions than iMet's: their forms, folders, names and rerun."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from inference.basics.files import hash_file
from inference.manifest.file import MANIFEST_NAME, read_manifest
from inference.run.predict import run
from inference.run.state import Request
from packing.dry_run.run_script import rehearse
from packing.pack.metadata import DATASET_METADATA, KERNEL_METADATA, Names
from packing.pack.render_notebook import render_notebook
from tests.colour_bundle import NAMES, find_softmax, paint, write_bundle
from tests.conftest import ROOT, write_rows

SANDBOX = ROOT / "packing" / "dry_run" / "sandbox.py"
IMAGES = 5
BEST: dict[str, Any] = {
    "competition": "colours",
    "type": "multiclass",
    "id_column": "Image",
    "sample": "data/sample.csv",
    "images": {"path": "data/test/{id:3}/{id}"},
    "submission": {"layout": "list", "content": "label_name", "column": "Id", "top_k": 1},
    "metric": {"name": "accuracy"},
}
RANKED = BEST | {
    "submission": {"layout": "list", "content": "label_id", "column": "Id", "top_k": 2},
    "metric": {"name": "map", "k": 2},
}
WIDE = BEST | {
    "submission": {"layout": "wide", "content": "probability", "sum_to_one": True},
    "metric": {"name": "log_loss"},
}
LONG: dict[str, Any] = {
    "type": "multilabel",
    "id_column": "row_id",
    "images": {"path": "test/{id}.jpg"},
    "submission": {"layout": "long", "content": "probability", "column": "p", "row": "{label}|{id}"},
    "metric": {"name": "roc_auc"},
}
NUMBER: dict[str, Any] = {
    "type": "regression",
    "id_column": "Id",
    "value_range": [1, 100],
    "submission": {"layout": "wide", "content": "number"},
    "metric": {"name": "rmse"},
}


def make_competition(
    folder: Path, task: dict[str, Any], count: int = IMAGES, absent: tuple[str, ...] = ()
) -> np.ndarray:
    """Write the folder of a competition with this task; return the mean colours of its images, (images, 3).

    `absent`: ids in the sample without an image.
    """
    form, ids = task["submission"], [f"{index:04}x.jpg" for index in range(count)]
    if task is LONG:
        ids = [f"{index}_{index}" for index in range(count)]
        rows: list[tuple[object, ...]] = [(f"{name}|{image}", 0.5) for image in (*ids, *absent) for name in NAMES]
        header: tuple[str, ...] = ("row_id", "p")
    elif form["layout"] == "wide":
        names = NAMES if task is WIDE else ("Pawpularity",)
        header = (task["id_column"], *names[::-1])
        rows = [(image, *(0.5 for _ in names)) for image in (*ids, *absent)]
    else:
        header, rows = (task["id_column"], "Id"), [(image, "new") for image in (*ids, *absent)]
    sample = folder / task.get("sample", "sample_submission.csv")
    sample.parent.mkdir(parents=True, exist_ok=True)
    write_rows(sample, header, rows)
    place = task.get("images", {"path": "test/{id}"})["path"]
    return np.array(
        [paint(folder / place.replace("{id:3}", name[:3]).replace("{id}", name), seed) for seed, name in enumerate(ids)]
    )


def predict(bundle: Path, competition: Path, out: Path, **options: Any) -> pd.DataFrame:
    """Run the bundle; return its submission as pandas reads it, ids as text."""
    run(Request(bundle, out, competition, **options))
    return pd.read_csv(out, dtype={0: str})


def test_the_packed_script_writes_names_for_images_in_nested_folders(tmp_path: Path) -> None:
    """As a subprocess with only the kernel's packages. An id that leads out of the folder gets the prior answer."""
    bundle, competition, out = write_bundle(tmp_path / "bundle", BEST), tmp_path / "c", tmp_path / "out" / "s.csv"
    colours = make_competition(competition, BEST, absent=("999.jpg", "../../secret.jpg"))
    paint(competition / "secret.jpg", 2)
    paint(competition / "data" / "secret.jpg", 2)
    command = [
        sys.executable,
        "-I",
        str(SANDBOX),
        f"{bundle}{os.pathsep}{competition}",
    ]
    command += [str(bundle / "inference.pyz"), "--bundle", str(bundle), "--competition", str(competition)]
    finished = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False)
    assert finished.returncode == 3, finished.stderr
    found = pd.read_csv(out)
    assert list(found.columns) == ["Image", "Id"] and list(found.Image[-2:]) == ["999.jpg", "../../secret.jpg"]
    assert list(found.Id) == [NAMES[column] for column in colours.argmax(axis=1)] + [NAMES[0]] * 2
    assert set(json.loads(out.with_name("run_log.json").read_text())["unreadable"]) == {"999.jpg", "../../secret.jpg"}


def test_the_best_labels_are_ranked(tmp_path: Path) -> None:
    colours = make_competition(tmp_path / "c", RANKED)
    found = predict(write_bundle(tmp_path / "b", RANKED), tmp_path / "c", tmp_path / "s.csv")
    assert list(found.Id) == [f"{first} {second}" for first, second, _ in (-colours).argsort(axis=1, kind="stable")]


def test_probabilities_are_written_in_the_samples_own_columns_and_add_up_to_1(tmp_path: Path) -> None:
    colours = make_competition(tmp_path / "c", WIDE, absent=("no.jpg",))
    found = predict(write_bundle(tmp_path / "b", WIDE), tmp_path / "c", tmp_path / "s.csv")
    assert list(found.columns) == ["Image", *NAMES[::-1]]
    values = found[list(NAMES)].to_numpy()
    np.testing.assert_allclose(values[:-1], find_softmax(colours), atol=1e-6)
    np.testing.assert_allclose(values[-1], [0.5, 0.3, 0.2], atol=1e-8)
    np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-7)


def test_a_row_for_each_image_and_label(tmp_path: Path) -> None:
    colours = make_competition(tmp_path / "c", LONG)
    found = predict(write_bundle(tmp_path / "b", LONG), tmp_path / "c", tmp_path / "s.csv")
    assert list(found.row_id) == [f"{name}|{index}_{index}" for index in range(IMAGES) for name in NAMES]
    np.testing.assert_allclose(found.p.to_numpy().reshape(-1, 3), 1 / (1 + np.exp(-8 * colours)), atol=1e-6)


def test_numbers_are_in_the_competitions_units(tmp_path: Path) -> None:
    colours = make_competition(tmp_path / "c", NUMBER, absent=("no.jpg",))
    found = predict(write_bundle(tmp_path / "b", NUMBER, ("Pawpularity",)), tmp_path / "c", tmp_path / "s.csv")
    np.testing.assert_allclose(found.Pawpularity, [*(1 + 99 * colours.mean(axis=1)), 50.5], rtol=1e-6)


def test_only_the_folder_of_the_rerun_counts(tmp_path: Path) -> None:
    """The rerun has more images, and others under the ids of the public ones; nothing is kept in the bundle."""
    bundle = write_bundle(tmp_path / "b", WIDE)
    before = {path.name: hash_file(path) for path in bundle.iterdir()}
    for count in (2, 9):
        competition = tmp_path / f"c{count}"
        colours = make_competition(competition, WIDE, count)[::-1]
        for place, path in enumerate(sorted(competition.rglob("*.jpg"))):  # another colour in each of the two folders
            colours[place] = paint(path, 100 * count + place)
        found = predict(bundle, competition, tmp_path / "s.csv")
        np.testing.assert_allclose(found[list(NAMES)], find_softmax(colours), atol=1e-6)
    assert before == {path.name: hash_file(path) for path in bundle.iterdir()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c2", "c9", "run_log.json", "s.csv"]


def test_a_few_scores_per_image_give_the_same_best_label(tmp_path: Path) -> None:
    make_competition(tmp_path / "c", BEST)
    whole = predict(write_bundle(tmp_path / "all", BEST), tmp_path / "c", tmp_path / "s.csv")
    bundle = write_bundle(tmp_path / "few", BEST, keep_top=2)
    kept = predict(bundle, tmp_path / "c", tmp_path / "t.csv", predictions=tmp_path / "kept")
    assert whole.equals(kept)
    saved = np.load(tmp_path / "kept" / "colour.npy")
    assert saved.shape == (IMAGES, 2) and saved.dtype.names == ("column", "score")


def test_a_dry_run_of_another_competition_is_limited_without_changing_its_sample(tmp_path: Path) -> None:
    colours = make_competition(tmp_path / "c", WIDE)
    rehearsal = rehearse(write_bundle(tmp_path / "b", WIDE, images=7000), tmp_path / "c", tmp_path / "out", limit=3)
    found = pd.read_csv(tmp_path / "out" / "submission.csv")
    assert list(found.columns) == ["Image", *NAMES[::-1]] and rehearsal.images == 3
    np.testing.assert_allclose(found[list(NAMES)], find_softmax(colours[:3]), atol=1e-6)
    assert "\n7,000 images at this rate: " in rehearsal.describe()


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree like /kaggle, whose notebook runs in this process: the script too, and charts are kept, not shown."""
    import IPython.display

    from inference import __main__ as script
    from inference.run import supervise

    root = tmp_path / "kaggle"
    (root / "working").mkdir(parents=True)
    (root / "input").mkdir()
    monkeypatch.setenv("KAGGLE_ROOT", str(root))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(IPython.display, "display", lambda figure: print("chart:", figure.axes[0].get_xlabel()))
    monkeypatch.setattr(supervise, "supervise", lambda command, *_: script.main(command[2:]) == 0)
    trial = {"provider": "CPUExecutionProvider", "images": 1, "model": "colour", "onnxruntime": "1"}
    monkeypatch.setattr(supervise, "run_trial", lambda *_: (trial, ""))
    return root


LABELS = "most frequent labels"
AS_BEST = "chart: % of images as the best label, the "
MEAN = "chart: mean probability, %, the "


@pytest.mark.parametrize(
    ("task", "names", "train", "shown"),
    [
        (BEST, NAMES, "Image,Id\na,blue\n", ["1.00 labels per image in train.csv", f"{AS_BEST}1 {LABELS}"]),
        (RANKED, NAMES, None, ["2.00 labels per image, ", AS_BEST]),
        (WIDE, NAMES, "Image,species\na,1\n", ["not compared with the training labels: ", f"{MEAN}3 {LABELS}"]),
        (LONG, NAMES, None, [f"{MEAN}3 {LABELS}"]),
        (NUMBER, ("Pawpularity",), "Id,Pawpularity,x\na,7,8\n", ["chart: Pawpularity"]),
    ],
    ids=["best", "ranked", "wide", "long", "number"],
)  # fmt: skip
def test_the_page_shows_what_suits_the_task(
    task: dict[str, Any],
    names: tuple[str, ...],
    train: str | None,
    shown: list[str],
    kaggle: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    competition = kaggle / "input" / "competitions" / "colours"
    make_competition(competition, task)
    if train:
        (competition / "train.csv").write_text(train)
    bundle = write_bundle(kaggle / "input" / "colour-bundle", task, names)
    hashes = {MANIFEST_NAME: hash_file(bundle / MANIFEST_NAME), DATASET_METADATA: "", KERNEL_METADATA: ""}
    given = Names("me", "colour-bundle", "Colour bundle", "colours")
    text = render_notebook(given, hashes, read_manifest(bundle / MANIFEST_NAME).task)
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    assert not any("F2" in source for _, source in cells), "F2 is not the metric"
    scope: dict[str, Any] = {}
    for kind, source in cells:
        if kind == "code":
            exec(source, scope)
    output = capsys.readouterr().out
    assert f"{kaggle}/working/submission.csv: valid, " in output and "failed" not in output
    assert output.count("chart: ") == 3 and "cannot" not in output
    for text in shown:
        assert text in output
