import dataclasses
import hashlib
import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from inference.basics.errors import TrainingError
from inference.manifest.labels import Labels
from inference.manifest.task import Metric, Task
from tests.training.by_hand import score, take_by_hand
from training.pages.compare import Comparison, compare_zoos, describe_comparison, describe_gain
from training.scoring.bootstrap import bootstrap_mean
from training.scoring.scores import summarise_kind
from zoo.metrics.scoring import find_scoring

if TYPE_CHECKING:
    from conftest import Zoo

LABELS = Labels(tuple(range(7)), tuple("abcdefg"), {"culture": (0, 1, 2), "tag": (3, 4, 5, 6)})


def read_rows(zoo: "Zoo") -> list[tuple[str, list[int]]]:
    """Read the ids and labels of train.csv."""
    rows = [line.split(",") for line in zoo.train.read_text().split("\n")[1:] if line]
    return [(image, [int(label) for label in cell.split()]) for image, cell in rows]


def draw_scores(rows: Sequence[tuple[str, list[int]]], columns: Sequence[int], seed: int, signal: float) -> np.ndarray:
    """Draw scores that are `signal` higher for true labels."""
    truth = np.array([[column in labels for column in columns] for _, labels in rows])
    return np.clip(signal * truth + np.random.default_rng(seed).uniform(0, 0.6, truth.shape), 0, 1).astype(np.float16)


def copy_zoo(zoo: "Zoo") -> "Zoo":
    """Copy the zoo to another folder."""
    folder = zoo.folder / "second"
    folder.mkdir()
    for path in zoo.folder.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    return dataclasses.replace(zoo, folder=folder, manifest=folder / zoo.manifest.name)


def split_models(zoo: "Zoo", seed: int) -> None:
    """Split culture and tag into two folds each, such as culture_f0, which hold out 30 images each."""
    document, rows = json.loads(zoo.manifest.read_text()), read_rows(zoo)
    models = {model["name"]: model for model in document["models"]}
    document["models"] = [
        {**models[group], "name": f"{group}_f{fold}", "member": group, "fold": fold}
        for group in models
        for fold in (0, 1)
    ]
    document["ensemble"]["weights"] = {group: {f"{group}_f0": 1.0, f"{group}_f1": 1.0} for group in models}
    zoo.manifest.write_text(json.dumps(document))
    for group, columns in LABELS.groups.items():
        scores = draw_scores(rows, columns, seed, 0.4)
        for fold in (0, 1):
            part = slice(fold, None, 2)
            zoo.replace_scores(f"{group}_f{fold}", scores[part], [image for image, _ in rows[part]])


def run_compare(capsys: pytest.CaptureFixture[str], *given: object, **options: object) -> list[str]:
    compare_zoos(*given, **options)  # type: ignore[arg-type]
    return capsys.readouterr().out.splitlines()


def test_the_figures_match_scikit_learn_on_the_images_that_both_held_out(
    make_zoo: "Callable[[], Zoo]", capsys: pytest.CaptureFixture[str]
) -> None:
    first = make_zoo()
    second, rows = copy_zoo(first), read_rows(first)
    # The models of the first zoo share rows 20 to 40; the models of the second held out all but the first four of them.
    part = rows[24:50]
    given = {name: draw_scores(part, LABELS.groups[name], 7, 0.3) for name in LABELS.groups}
    for name, scores in given.items():
        second.replace_scores(name, scores, [image for image, _ in part])
    lines = run_compare(capsys, first.train, first.manifest, second.manifest)
    common = rows[24:40]
    truth = np.array([[column in labels for column in range(7)] for _, labels in common])
    blends = []
    for zoo in (first, second):
        columns = []
        for name in LABELS.groups:
            ids = (zoo.folder / f"{name}.oof.ids.txt").read_text().split()
            places = [ids.index(image) for image, _ in common]
            columns.append(np.load(zoo.folder / f"{name}.oof.npy")[places].astype(np.float32))
        blends.append(np.concatenate(columns, axis=1))
    assert lines[:2] == [f"A: {first.manifest} (blend)", f"B: {second.manifest} (blend)"]
    assert lines[3].split() == ["labels", "images", "A", "B", "B", "-", "A", "95", "%", "interval"]
    for line, kind in zip(lines[4:7], ("all", "culture", "tag"), strict=True):
        columns = LABELS.columns(kind)
        kept = truth[:, columns].any(axis=1) if kind != "all" else np.ones(len(truth), bool)
        labels = LABELS if kind == "all" else Labels(tuple(columns), tuple(columns), {kind: tuple(range(len(columns)))})  # type: ignore[arg-type]
        true = truth[kept][:, columns]
        taken = [take_by_hand(blend[kept][:, columns], true, labels) for blend in blends]
        figures = [score(part, true) for part in taken]
        assert line.split()[:4] == [kind, str(kept.sum()), *(f"{figure:.4f}" for figure in figures)]
        images = [[score(part[[row]], true[[row]]) for row in range(len(true))] for part in taken]
        expected = figures[1] - figures[0], *bootstrap_mean(np.subtract(images[1], images[0]), seed=0)
        assert [float(line.split()[place]) for place in (4, 5, 7)] == pytest.approx(expected, abs=6e-5)


def test_the_interval_matches_a_plain_loop() -> None:
    values = np.random.default_rng(1).normal(0.02, 0.2, 150) ** 3
    dice, means = random.Random(0), []
    for _ in range(4000):
        means.append(sum(dice.choice(values) for _ in values) / len(values))
    means.sort()
    low, high = bootstrap_mean(values, seed=0)
    width = means[3900] - means[100]
    assert low == pytest.approx(means[100], abs=0.05 * width)
    assert high == pytest.approx(means[3900], abs=0.05 * width)
    assert bootstrap_mean(values, seed=0) == (low, high)


def test_two_equal_zoos_have_no_significant_difference(
    make_zoo: "Callable[[], Zoo]", capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = make_zoo()
    lines = run_compare(capsys, zoo.train, zoo.manifest, zoo.manifest)
    assert [line.split()[4:] for line in lines[4:7]] == [["+0.0000", "+0.0000", "to", "+0.0000"]] * 3
    assert lines[-1] == (
        "B is equal to A (95 % interval of the difference 0.0000 to 0.0000; 20 images); "
        "0 is in the interval, so the difference is not significant."
    )


@pytest.mark.parametrize(
    ("one", "sentence"),
    [
        (
            Comparison("all", 24000, 0.6, 0.6123, 0.0101, 0.0146, 0.0123, 99),
            "B is 0.0123 above A (95 % interval 0.0101 to 0.0146; 24000 images).",
        ),
        (
            Comparison("tag", 24000, 0.6123, 0.6, -0.0146, -0.0101, -0.0123, 99),
            "For tag, B is 0.0123 below A (95 % interval 0.0101 to 0.0146; 24000 images).",
        ),
        (
            Comparison("all", 90, 0.6, 0.59, -0.04, 0.02, -0.01, 99),
            "B is 0.0100 below A (95 % interval -0.0200 to 0.0400; 90 images); "
            "0 is in the interval, so the difference is not significant.",
        ),
    ],
)
def test_the_sentence_says_which_is_better_and_whether_the_difference_is_significant(
    one: Comparison, sentence: str
) -> None:
    assert describe_gain(one, find_scoring(Task())) == sentence


def test_the_sentence_about_a_loss_calls_the_lower_one_better() -> None:
    scoring = find_scoring(Task(type="regression", metric=Metric("rmse")))
    one = Comparison("all", 90, 7.0, 6.5, 0.2, 0.8, 0.5, 999)
    assert describe_gain(one, scoring) == "B is 0.5000 below A (95 % interval 0.2000 to 0.8000; 90 images)."
    assert "A - B" in describe_comparison([one], scoring)
    assert "\nMetric: RMSE; lower is better.\n" in describe_comparison([one], scoring)


def test_the_name_of_a_recipe_selects_all_its_folds_and_the_name_of_a_model_only_that_model(
    make_zoo: "Callable[[], Zoo]", capsys: pytest.CaptureFixture[str]
) -> None:
    first = make_zoo()
    second = copy_zoo(first)
    for seed, zoo in enumerate((first, second)):
        split_models(zoo, seed)
    whole = run_compare(capsys, first.train, first.manifest, second.manifest)
    named = run_compare(capsys, first.train, first.manifest, second.manifest, ["culture", "tag"], ["tag", "culture"])
    assert named[4:] == whole[4:]
    assert whole[4].split()[1] == "60"
    assert named[0] == f"A: {first.manifest} (culture, tag)"
    single = run_compare(capsys, first.train, first.manifest, second.manifest, ["culture_f0", "tag_f0"])
    assert single[4].split()[1] == "30"


def test_only_groups_that_both_cover_are_compared(
    make_zoo: "Callable[[], Zoo]", capsys: pytest.CaptureFixture[str]
) -> None:
    first = make_zoo()
    second = copy_zoo(first)
    lines = run_compare(capsys, first.train, first.manifest, second.manifest, [], ["tag"])
    assert [line.split()[0] for line in lines[3:5]] == ["labels", "tag"]
    assert lines[5] == ""
    assert lines[-1].startswith("For tag, B is ")


def test_a_groups_figure_leaves_out_images_without_a_label_of_it() -> None:
    truth = np.array([[1, 0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 1]], bool)
    assert summarise_kind(truth.astype(np.float32), truth, LABELS, "culture", Task()).tolist() == [1, 1, 1]
    assert summarise_kind(truth.astype(np.float32), truth, LABELS, "tag", Task()).tolist() == [1, 1, 1]
    assert summarise_kind(truth.astype(np.float32), truth, LABELS, "all", Task()).tolist() == [1, 1, 1, 1]


def misspell(first: "Zoo", second: "Zoo") -> tuple[list[str], str]:
    return ["cultura"], f"{second.manifest}: no model 'cultura'; did you mean culture?"


def name_nothing_like(first: "Zoo", second: "Zoo") -> tuple[list[str], str]:
    return ["xyz"], f"{second.manifest}: no model 'xyz'; it has culture, tag"


def drop_label(first: "Zoo", second: "Zoo") -> tuple[list[str], str]:
    path = second.folder / "labels.csv"
    path.write_text(path.read_text().replace("tag::wide", "tag::broad"))
    document = json.loads(second.manifest.read_text())
    document["labels"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    second.manifest.write_text(json.dumps(document))
    return [], (
        f"{second.manifest}: found other labels than in {first.manifest}, or another order; wanted the same labels.csv"
    )


def part_images(first: "Zoo", second: "Zoo") -> tuple[list[str], str]:
    rows = read_rows(first)[:20]
    for name, columns in LABELS.groups.items():
        second.replace_scores(name, draw_scores(rows, columns, 0, 0.5), [image for image, _ in rows])
    return [], (
        f"{first.manifest} and {second.manifest}: found 0 images that both held out; wanted thousands, and at least 2; "
        "compare zoos with the same folds"
    )


def weigh_nothing(first: "Zoo", second: "Zoo") -> tuple[list[str], str]:
    document = json.loads(second.manifest.read_text())
    document["ensemble"]["weights"] = {"culture": {"culture": 0}, "tag": {}}
    second.manifest.write_text(json.dumps(document))
    return [], f"{second.manifest}: no model has a weight above 0; wanted one with out-of-fold predictions"


def part_groups(first: "Zoo", second: "Zoo") -> tuple[list[str], str]:
    document = json.loads(first.manifest.read_text())
    document["ensemble"]["weights"]["tag"]["tag"] = 0
    first.manifest.write_text(json.dumps(document))
    return ["tag"], (
        f"{first.manifest} covers culture, {second.manifest} covers tag: found no group that both cover; wanted one "
        "with at least 2 images"
    )


def name_features(first: "Zoo", second: "Zoo") -> tuple[list[str], str]:
    document = json.loads(second.manifest.read_text())
    features = {**document["models"][0], "name": "extra", "group": "features", "outputs": 2, "out_of_fold": None}
    document["models"].append(features)
    second.manifest.write_text(json.dumps(document))
    return ["extra"], (
        f"{second.manifest}: model extra: its outputs are no labels (group 'features'); choose other models"
    )


@pytest.mark.parametrize(
    "spoil", [misspell, name_nothing_like, drop_label, part_images, weigh_nothing, part_groups, name_features]
)
def test_zoos_that_cannot_be_compared_are_an_error(
    spoil: "Callable[[Zoo, Zoo], tuple[list[str], str]]", make_zoo: "Callable[[], Zoo]"
) -> None:
    first = make_zoo()
    second = copy_zoo(first)
    names, message = spoil(first, second)
    with pytest.raises(TrainingError) as caught:
        compare_zoos(first.train, first.manifest, second.manifest, second_names=names)
    assert str(caught.value) == message


def test_a_missing_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no such file; name the manifest"):
        compare_zoos(tmp_path / "train.csv", tmp_path / "a.json", tmp_path / "b.json")
