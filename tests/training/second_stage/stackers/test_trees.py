import dataclasses
import subprocess
import sys
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from inference.basics.errors import TrainingError
from inference.ensemble.pairs import find_pairs, name_features
from inference.manifest.labels import Labels
from training.second_stage.member_scores import MemberScores
from training.second_stage.stackers import trees
from training.second_stage.stackers.tree_graph import export_trees
from training.second_stage.stackers.trees import (
    COVERED,
    Samples,
    choose_top,
    find_share,
    fit_pairs,
    fit_trees,
    gather_samples,
    predict_trees,
    score_pairs,
)

MEMBERS = ("first", "second", "third")
LABELS = 12
# The last label is on no image.
RATES = np.array([0.5, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05, 0.02, 0.0])
COUNTS = (RATES * 1500).astype(np.int64)
GROUPS = np.array([0] * 5 + [1] * 7)
NOTHING = np.empty((6000, 0), np.float32)  # no outputs of 'features' members


def draw_museum(images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores (images, members, labels) correlated with the truth (images, labels), and traits (images, 4)."""
    random = np.random.default_rng(seed)
    truth = random.random((images, LABELS)) < RATES
    noise = random.normal(0, 1.2, (images, len(MEMBERS), LABELS))
    logits = np.log(RATES + 0.01) + 2.5 * truth[:, None] + noise
    scores = (1 / (1 + np.exp(-logits))).astype(np.float16).astype(np.float32)
    return scores, truth, random.random((images, 4)).astype(np.float32)


def gather_museum(images: int, limit: int, seed: int = 0) -> Samples:
    scores, truth, traits = draw_museum(images, seed)
    return gather_samples(scores, truth, 8, COUNTS, GROUPS, traits, NOTHING[:images], limit)


@pytest.fixture(scope="module")
def fitted() -> tuple[lightgbm.Booster, Samples]:
    samples = gather_museum(1500, 10**6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "ROUNDS", 40)
        return fit_trees(samples, threads=1), samples


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("steps", [3, 1000])
def test_the_smallest_top_that_covers_the_true_labels_is_chosen(seed: int, steps: int) -> None:
    random = np.random.default_rng(seed)
    scores = (random.integers(0, steps, (60, 2, 30)) / steps).astype(np.float32)
    truth = random.random((60, 30)) < 0.15

    def cover(top: int) -> float:
        rows, columns = find_pairs(scores, top, np.ones(30, np.int64))
        return float(truth[rows, columns].sum() / truth.sum())

    assert choose_top(scores, truth) == min(top for top in range(1, 31) if cover(top) >= COVERED)


def test_top_is_small_if_no_label_is_true_or_all_true_labels_rank_first() -> None:
    scores, truth, _ = draw_museum(20)
    assert choose_top(scores, np.zeros_like(truth)) == 1
    assert choose_top(scores, scores[:, 0] == scores[:, 0].max(axis=1, keepdims=True)) <= 2


def test_a_sample_has_every_true_pair_and_its_weights_add_up_to_all_pairs() -> None:
    whole, sample = gather_museum(1500, 10**6), gather_museum(1500, 6000)
    assert len(sample.truth) == pytest.approx(6000, rel=0.05)
    assert sample.truth.sum() == whole.truth.sum()
    assert set(sample.weights[sample.truth]) == {1}
    assert sample.weights.sum() == pytest.approx(len(whole.truth), rel=0.03)
    assert set(whole.weights) == {1}


def test_trees_fitted_to_a_sample_give_the_probabilities_of_all_pairs() -> None:
    booster = fit_trees(gather_museum(6000, 20_000), threads=1)
    held_out = gather_museum(1500, 10**6, seed=1)
    chances = predict_trees(booster, held_out.features)
    assert chances.mean() == pytest.approx(held_out.truth.mean(), rel=0.06)
    for low, high in ((0.0, 0.1), (0.1, 0.4), (0.4, 0.7), (0.7, 1.0)):
        chosen = (chances >= low) & (chances < high)
        assert held_out.truth[chosen].mean() == pytest.approx(chances[chosen].mean(), abs=0.1)


def test_trees_beat_the_mean_of_members_on_held_out_images(
    fitted: tuple[lightgbm.Booster, Samples],
) -> None:
    held_out = gather_museum(1500, 10**6, seed=1)
    names = name_features(MEMBERS, ())

    def lose(chances: np.ndarray) -> float:
        return float(-np.log(np.where(held_out.truth, chances, 1 - chances).clip(1e-6)).mean())

    assert lose(predict_trees(fitted[0], held_out.features)) < lose(held_out.features[:, names.index("mean")]) - 0.02


def test_the_same_samples_and_seed_make_the_same_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "ROUNDS", 5)
    samples = gather_museum(300, 2000)
    first, again, other = (fit_trees(samples, seed, threads=1).model_to_string() for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("true", [False, True])
def test_only_true_or_only_false_pairs_are_an_error(true: bool) -> None:
    samples = Samples(np.zeros((7, 3), np.float32), np.full(7, true), np.ones(7, np.float32))
    with pytest.raises(TrainingError) as caught:
        fit_trees(samples)
    found = 7 if true else 0
    assert str(caught.value) == f"tree stacker: found {found} true pairs of 7; wanted both true and false pairs"


def test_a_single_member_and_equal_scores_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "ROUNDS", 3)
    _, truth, traits = draw_museum(400)
    scores = np.full((400, 1, LABELS), 0.25, np.float32)
    samples = gather_samples(scores, truth, LABELS, truth.sum(axis=0), GROUPS, traits, NOTHING[:400], 10**6)
    booster = fit_trees(samples, threads=1)
    chances = predict_trees(booster, samples.features)
    assert np.isfinite(chances).all()
    export_trees(booster, tmp_path / "trees.onnx", truth.sum(axis=0), name_features(["only"], ()), samples.features)


def test_lightgbm_is_imported_only_when_trees_are_fitted() -> None:
    module = "training.second_stage.stackers.trees"
    code = f"import sys, {module}; print({{'lightgbm', 'onnxmltools', 'onnxruntime'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def test_outputs_of_other_networks_leave_room_for_fewer_pairs() -> None:
    scores, truth, traits = draw_museum(1500)
    extra = np.random.default_rng(7).random((1500, 5)).astype(np.float32)
    given = (scores, truth, 8, COUNTS, GROUPS, traits)
    whole, sample = gather_samples(*given, extra, 10**6), gather_samples(*given, extra, 2000)
    assert len(sample.truth) == pytest.approx(2000, rel=0.1)
    assert sample.truth.sum() == pytest.approx(1000, rel=0.1)
    for true in (True, False):  # the weights undo the sampling of both
        assert sample.weights[sample.truth == true].sum() == pytest.approx((whole.truth == true).sum(), rel=0.1)
    images = {tuple(row) for row in extra}
    assert {tuple(row) for row in whole.features[:, -5:]} == images
    assert {tuple(row) for row in sample.features[:, -5:]} <= images
    assert find_share(MEMBERS, [("wide", 1000)]) == 33 / 1033


def test_what_only_the_features_show_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "ROUNDS", 30)
    scores, truth, traits = draw_museum(1200)
    random = np.random.default_rng(8)
    blank = random.random(1200) < 0.4
    truth[blank] = False  # though the scores are those of images with labels
    eyes = np.stack([random.random(1200), np.where(blank, 0.8, 0.2) * random.uniform(0.9, 1, 1200)], axis=1)
    members = MemberScores(
        MEMBERS, (("a", "b"),) * 3, np.arange(1200), scores, truth, traits, {"eyes": eyes.astype(np.float16)}
    )
    labels = Labels(tuple(range(LABELS)), ("",) * LABELS, {"a": tuple(range(5)), "b": tuple(range(5, 12))})
    weights = {group: dict.fromkeys(MEMBERS, 1.0) for group in labels.groups}
    stacker = fit_pairs(members, labels, weights, seed=0)
    assert stacker.features == (("eyes", 2),)
    scored = score_pairs(stacker, members, labels, scores.mean(axis=1))
    blind = dataclasses.replace(members, features={})
    without = score_pairs(fit_pairs(blind, labels, weights, seed=0), blind, labels, scores.mean(axis=1))
    wrong, wrong_without = (int(((found > 0.5) != truth).sum()) for found in (scored, without))
    assert wrong < 0.5 * wrong_without
