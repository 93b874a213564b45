import dataclasses
import math

import numpy as np

from inference.ensemble.blend import blend, fill_members, gather_features, gather_members
from inference.manifest.file import read_manifest
from inference.manifest.labels import Labels
from inference.manifest.model import Model, list_members, name_member
from inference.manifest.records import Manifest
from tests.conftest import Workshop

LABELS = Labels(tuple(range(5)), ("",) * 5, {"culture": (0, 1), "tag": (2, 3, 4)})


def make_manifest(workshop: Workshop) -> Manifest:
    """Return a manifest of one recipe with two folds for all labels, and one model for the tags."""
    manifest = read_manifest(workshop.manifest)
    by_name = {model.name: model for model in manifest.models}
    wide = dataclasses.replace(by_name["everything"], member="wide")
    folds = [dataclasses.replace(wide, name=f"wide_f{fold}", fold=fold) for fold in (0, 1)]
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


def test_a_member_is_declared_and_nothing_is_read_from_a_models_name() -> None:
    model = Model("wide_f0", "resnet18", "all", 64, (0.5,) * 3, (0.5,) * 3, "bicubic", fold=0)
    assert name_member(model) == "wide_f0"
    assert name_member(dataclasses.replace(model, member="wide")) == "wide"


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


def test_the_outputs_of_members_for_features_stand_side_by_side_the_mean_over_their_folds(workshop: Workshop) -> None:
    manifest = make_manifest(workshop)
    wide = dataclasses.replace(manifest.models[0], group="features", member="eyes", outputs=4)
    eyes = [dataclasses.replace(wide, name=f"eyes_f{fold}", fold=fold) for fold in (0, 1)]
    lone = dataclasses.replace(wide, name="lone", member=None, fold=None, outputs=2)
    never = dataclasses.replace(wide, name="never", member=None, fold=None, outputs=3)
    manifest = dataclasses.replace(manifest, models=(*manifest.models, *eyes, lone, never))
    random, scores = np.random.default_rng(6), draw_scores(12)
    scores |= {name: random.random((12, 4)).astype(np.float16) for name in ("eyes_f0", "eyes_f1")}
    scores["lone"] = random.normal(size=(12, 2)).astype(np.float32)
    scores["eyes_f0"][::2] = np.nan
    scores["eyes_f1"][::3] = scores["lone"][5] = np.nan
    found = gather_features(scores, manifest, ("lone", "eyes", "never"))
    assert found.shape == (12, 9) and found.dtype == np.float32
    for row in range(12):
        means = [mean_slowly([float(scores[f"eyes_f{fold}"][row, place]) for fold in (0, 1)]) for place in range(4)]
        wanted = [*scores["lone"][row].tolist(), *means, *[math.nan] * 3]
        np.testing.assert_allclose(found[row], wanted, atol=1e-6)
    assert gather_features(scores, manifest, ()).shape == (12, 0)


def test_a_further_blend_has_weights_of_its_own(workshop: Workshop) -> None:
    manifest, scores = make_manifest(workshop), draw_scores(24)
    further = {"culture": {"wide_f1": 2.0}, "tag": {"wide_f0": 1.0, "tag": 3.0}}
    ensemble = dataclasses.replace(
        manifest.ensemble, weights={"culture": {"wide_f0": 1.0}, "tag": {"tag": 1.0}}, blends={"theirs": further}
    )
    manifest = dataclasses.replace(manifest, ensemble=ensemble)
    found = blend(scores, manifest, LABELS, "theirs")
    for row in range(24):
        for column in range(5):
            weights = further["culture" if column < 2 else "tag"]
            known = [
                (weight, score)
                for name, weight in weights.items()
                if not math.isnan(score := float(scores[name][row, column - 2 if name == "tag" else column]))
            ]
            total = sum(weight for weight, _ in known)
            wanted = sum(weight * score for weight, score in known) / total if known else math.nan
            np.testing.assert_allclose(found[row, column], wanted, atol=1e-6)
    main = blend(scores, manifest, LABELS)
    np.testing.assert_array_equal(main[:, 2:], scores["tag"].astype(np.float32))
