import dataclasses
import math

import numpy as np

from inference.ensemble.blend import fill_members, gather_members
from inference.manifest.file import read_manifest
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest, Model, list_members, name_member
from tests.conftest import Workshop

LABELS = Labels(tuple(range(5)), ("",) * 5, {"culture": (0, 1), "tag": (2, 3, 4)})


def make_manifest(workshop: Workshop) -> Manifest:
    """Return a manifest of one recipe with two folds for all labels, and one model for the tags."""
    manifest = read_manifest(workshop.manifest)
    by_name = {model.name: model for model in manifest.models}
    folds = [dataclasses.replace(by_name["everything"], name=f"wide_f{fold}", fold=fold) for fold in (0, 1)]
    return dataclasses.replace(manifest, models=(*folds, by_name["tag"]))


def mean_slowly(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def draw_scores(rows: int) -> dict[str, np.ndarray]:
    """Draw scores with images that one fold, both folds or no model has predicted."""
    random = np.random.default_rng(0)
    scores = {
        name: random.random((rows, columns)).astype(np.float16)
        for name, columns in (("wide_f0", 5), ("wide_f1", 5), ("tag", 3))
    }
    scores["wide_f0"][::3] = np.nan
    scores["wide_f1"][::2] = np.nan
    scores["tag"][::4] = np.nan
    return scores


def test_the_folds_of_a_recipe_are_one_member(workshop: Workshop) -> None:
    manifest = make_manifest(workshop)
    assert {name: [model.name for model in models] for name, models in list_members(manifest.models).items()} == {
        "wide": ["wide_f0", "wide_f1"],
        "tag": ["tag"],
    }


def test_only_the_fold_of_the_model_is_removed_from_its_name() -> None:
    model = Model("wide_f1", "resnet18", "all", 64, (0.5,) * 3, (0.5,) * 3, "bicubic", fold=0)
    assert name_member(model) == "wide_f1"


def test_members_are_the_mean_of_their_folds_and_missing_scores_the_mean_of_the_other_members(
    workshop: Workshop,
) -> None:
    manifest, scores = make_manifest(workshop), draw_scores(24)
    gathered = gather_members(scores, manifest, LABELS, ["tag", "wide"])
    filled = fill_members(gathered)
    for row in range(24):
        for column in range(5):
            wide = mean_slowly([float(scores[name][row, column]) for name in ("wide_f0", "wide_f1")])
            tag = float(scores["tag"][row, column - 2]) if column >= 2 else math.nan
            others = mean_slowly([tag, wide])
            for found, own in zip(gathered[row, :, column], (tag, wide), strict=True):
                assert math.isnan(found) if math.isnan(own) else math.isclose(found, own, abs_tol=1e-6)
            for found, own in zip(filled[row, :, column], (tag, wide), strict=True):
                expected = own if not math.isnan(own) else 0 if math.isnan(others) else others
                assert math.isclose(found, expected, abs_tol=1e-6)


def test_the_scores_of_a_model_that_did_not_run_are_filled_too(workshop: Workshop) -> None:
    manifest, scores = make_manifest(workshop), draw_scores(24)
    del scores["wide_f0"], scores["wide_f1"]
    gathered = gather_members(scores, manifest, LABELS, ["wide", "tag"])
    assert np.isnan(gathered[:, 0]).all()
    filled = fill_members(gathered)
    assert np.array_equal(filled[:, 0], filled[:, 1])
