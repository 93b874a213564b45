import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, root_mean_squared_error

from inference.manifest.labels import Labels
from inference.manifest.task import Task
from tests.training.small_tasks import CLASSES, COLOURS, NUMBERS, Competition, make_competition, read_rows
from training.__main__ import main
from training.pages.slices.labels import slice_values
from training.pages.slices.mistakes import MOST_CLASSES, count_confusions, list_confusions, plot_confusions
from zoo.edit import append_model, declare_out_of_fold, open_manifest
from zoo.tables.out_of_fold import write_out_of_fold

LABELS = Labels((0, 1, 2), ("a", "b", "c"), {"labels": (0, 1, 2)})


def test_confusions_equal_scikit_learns_and_the_worst_come_first() -> None:
    dice = np.random.default_rng(0)
    truth, found = dice.integers(0, 3, 200), dice.integers(0, 3, 200)
    counts = count_confusions(dice.random((200, 3)) + 2 * np.eye(3)[found], np.eye(3, dtype=bool)[truth])
    assert (counts == confusion_matrix(truth, found)).all()
    pairs = list_confusions(counts, LABELS)
    assert len(pairs) == 6
    assert [pair.images for pair in pairs] == sorted((pair.images for pair in pairs), reverse=True)
    for pair in pairs:
        row, column = ("abc".index(name) for name in (pair.true, pair.predicted))
        assert row != column
        assert (pair.images, pair.share) == (
            counts[row, column],
            pytest.approx(counts[row, column] / counts[row].sum()),
        )


def test_pairs_without_mistakes_are_left_out_and_large_matrices_are_not_drawn() -> None:
    counts = np.diag([5, 0, 7])
    assert list_confusions(counts, LABELS) == []
    assert str(plot_confusions(counts, LABELS)).startswith("data:image/svg+xml;base64,")
    size = MOST_CLASSES + 1
    many = Labels(tuple(range(size)), tuple(map(str, range(size))), {"labels": tuple(range(size))})
    assert plot_confusions(np.eye(size, dtype=np.int64), many) is None


def test_quarters_of_the_true_numbers_have_their_own_errors() -> None:
    true, gaps = np.arange(40.0), np.tile([1.0, -3.0], 20)
    rows = slice_values((true + gaps)[:, None] / 40, (true / 40)[:, None].astype(np.float32), NUMBERS)
    assert [(row.values, row.images) for row in rows] == [
        ("0 to 9.75", 10), ("9.75 to 19.5", 10), ("19.5 to 29.25", 10), ("29.25 to 39", 10)
    ]  # fmt: skip
    for place, row in enumerate(rows):
        part = slice(10 * place, 10 * place + 10)
        assert (row.bias, row.error) == (pytest.approx(-1, abs=1e-5), pytest.approx(2, abs=1e-5))
        assert row.figure == pytest.approx(root_mean_squared_error(true[part], true[part] + gaps[part]), abs=1e-5)


def add_predictions(made: Competition, scores: np.ndarray, task: Task) -> None:
    """Add a model with these out-of-fold scores of all images."""
    from inference.manifest.model import Model

    ids = [row["id"] for row in read_rows(made.zoo / "train.csv")]
    write_out_of_fold(scores.astype(task.score_dtype), ids, made.zoo, "one")
    declared = declare_out_of_fold(made.zoo / "one.oof.npy", made.zoo, scores.shape[1], task)
    model = Model("one", "test_resnet", "all", 32, (0.5,) * 3, (0.5,) * 3, "bilinear", out_of_fold=declared)
    append_model(open_manifest(made.manifest, None, None), model, made.manifest)


def run_slices(made: Competition, folder: Path) -> dict[str, object]:
    """Run the command and return its JSON."""
    tables = ["--manifest", str(made.manifest), "--train", str(made.zoo / "train.csv"), "--images", str(made.data)]
    assert main(["slices", *tables, "--json", str(folder / "s.json"), "--page", str(folder / "s.html")]) == 0
    return dict(json.loads((folder / "s.json").read_text()))


def test_the_page_of_classes_has_a_confusion_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_competition(tmp_path, CLASSES)
    kinds = np.array([int(row["labels"]) for row in read_rows(made.zoo / "train.csv")])
    found = np.where(np.arange(36) < 6, (kinds + 1) % 3, kinds)
    add_predictions(made, 0.1 + 0.7 * np.eye(3)[found], CLASSES)
    figures = run_slices(made, tmp_path)
    assert figures["metric"] == "accuracy" and figures["groups"] == figures["values"] == []
    assert figures["models"][-1]["figures"] == {"all": pytest.approx(30 / 36)}  # type: ignore[index]
    page, text = (tmp_path / "s.html").read_text(), capsys.readouterr().out
    assert 'alt="Confusion matrix"' in page and "Predicted against true" not in page
    assert "The most confused classes" in text and "F2" not in page + text
    assert "Maïs, doux" in page and text.count("Sugar beet") >= 1
    assert sum(one["images"] for one in figures["confusions"]) == 6  # type: ignore[attr-defined]
    assert {one["true"] for one in figures["confusions"]} <= set(COLOURS)  # type: ignore[attr-defined]


def test_the_page_of_numbers_has_a_scatter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_competition(tmp_path, NUMBERS)
    sides = np.array([float(row["value"]) for row in read_rows(made.zoo / "train.csv")])
    add_predictions(made, (0.8 * sides + np.tile([3.0, 5.0], 18))[:, None] / 40, NUMBERS)
    figures = run_slices(made, tmp_path)
    assert figures["metric"] == "RMSE" and figures["frequencies"] == figures["confusions"] == []
    assert sum(one["images"] for one in figures["values"]) == 36  # type: ignore[attr-defined]
    page = (tmp_path / "s.html").read_text()
    assert 'alt="Predicted against true numbers' in page and "Confusion" not in page
    assert "The blend by quarters of the true numbers" in capsys.readouterr().out
