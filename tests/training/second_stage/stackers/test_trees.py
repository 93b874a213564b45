import json
import subprocess
import sys
from pathlib import Path

import lightgbm
import numpy as np
import onnx
import onnxruntime
import pytest

from inference.basics.errors import TrainingError
from inference.ensemble.pairs import find_pairs, name_features
from training.second_stage.stackers import trees
from training.second_stage.stackers.trees import (
    COVERED,
    PARITY_LIMIT,
    Samples,
    choose_top,
    export_trees,
    fit_trees,
    gather_samples,
    predict_trees,
)

MEMBERS = ("first", "second", "third")
LABELS = 12
# The last label is on no image.
RATES = np.array([0.5, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05, 0.02, 0.0])
COUNTS = (RATES * 1500).astype(np.int64)
GROUPS = np.array([0] * 5 + [1] * 7)


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
    return gather_samples(scores, truth, 8, COUNTS, GROUPS, traits, limit)


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
    names = name_features(MEMBERS)

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


def test_the_onnx_file_agrees_with_lightgbm(fitted: tuple[lightgbm.Booster, Samples], tmp_path: Path) -> None:
    booster, samples = fitted
    path = tmp_path / "trees.onnx"
    parity = export_trees(booster, path, COUNTS, name_features(MEMBERS), samples.features)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (chances,) = session.run(None, {"features": samples.features})
    exact = booster.predict(samples.features)
    assert chances.shape == (len(samples.features),)
    assert chances.dtype == np.float32
    assert np.abs(chances - exact).max() <= PARITY_LIMIT
    assert parity <= PARITY_LIMIT
    assert np.ptp(exact) > 0.5
    assert session.run(None, {"features": samples.features[:1]})[0] == pytest.approx(chances[:1], abs=PARITY_LIMIT)


def test_values_next_to_a_threshold_take_the_same_branch_as_in_lightgbm(
    fitted: tuple[lightgbm.Booster, Samples], tmp_path: Path
) -> None:
    booster, samples = fitted
    export_trees(booster, tmp_path / "trees.onnx", COUNTS, name_features(MEMBERS), samples.features)
    session = onnxruntime.InferenceSession(tmp_path / "trees.onnx", providers=["CPUExecutionProvider"])
    splits = booster.trees_to_dataframe().dropna(subset="threshold")
    rows = []
    for place, (feature, threshold) in enumerate(zip(splits.split_feature, splits.threshold, strict=True)):
        near = np.float32(threshold)
        for value in (np.nextafter(near, np.float32(-1)), near, np.nextafter(near, np.float32(9e9))):
            row = samples.features[place % len(samples.features)].copy()
            row[int(feature.removeprefix("Column_"))] = value
            rows.append(row)
    features = np.stack(rows)
    (chances,) = session.run(None, {"features": features})
    assert np.abs(chances - booster.predict(features)).max() <= PARITY_LIMIT


def test_trees_with_only_positive_leaves_are_exported_correctly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "ROUNDS", 1)
    random = np.random.default_rng(0)
    features = random.random((4000, 3)).astype(np.float32)
    truth = random.random(4000) < 0.6 + 0.3 * features[:, 0]
    booster = fit_trees(Samples(features, truth, np.ones(4000, np.float32)), threads=1)
    assert booster.trees_to_dataframe().query("left_child.isna()").value.min() > 0
    assert export_trees(booster, tmp_path / "trees.onnx", np.arange(3), ("a", "b", "c"), features) <= PARITY_LIMIT


def test_the_file_has_counts_and_features_and_loads_in_every_onnx_runtime_since_1_20(
    fitted: tuple[lightgbm.Booster, Samples], tmp_path: Path
) -> None:
    path = tmp_path / "trees.onnx"
    export_trees(fitted[0], path, COUNTS, name_features(MEMBERS), fitted[1].features[:9])
    metadata = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["counts"]) == COUNTS.tolist()
    assert json.loads(metadata["features"]) == list(name_features(MEMBERS))
    model = onnx.load(path)
    assert model.ir_version <= 10
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 15, "ai.onnx.ml": 3}


def test_a_file_that_differs_from_its_trees_is_an_error_and_not_kept(
    fitted: tuple[lightgbm.Booster, Samples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    booster, samples = fitted
    other = fit_trees(Samples(samples.features, samples.truth, 1 + samples.truth.astype(np.float32)), threads=1)
    graph = trees.convert_trees(other, samples.features.shape[1])
    monkeypatch.setattr(trees, "convert_trees", lambda *_: graph)
    with pytest.raises(TrainingError, match=r"^trees.onnx: found a difference of .* to LightGBM on \d+ pairs; wanted"):
        export_trees(booster, tmp_path / "trees.onnx", COUNTS, name_features(MEMBERS), samples.features)
    assert not list(tmp_path.iterdir())


def test_a_single_member_and_equal_scores_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "ROUNDS", 3)
    _, truth, traits = draw_museum(400)
    scores = np.full((400, 1, LABELS), 0.25, np.float32)
    samples = gather_samples(scores, truth, LABELS, truth.sum(axis=0), GROUPS, traits, 10**6)
    booster = fit_trees(samples, threads=1)
    chances = predict_trees(booster, samples.features)
    assert np.isfinite(chances).all()
    export_trees(booster, tmp_path / "trees.onnx", truth.sum(axis=0), name_features(["only"]), samples.features)


def test_lightgbm_is_imported_only_when_trees_are_fitted() -> None:
    module = "training.second_stage.stackers.trees"
    code = f"import sys, {module}; print({{'lightgbm', 'onnxmltools', 'onnxruntime'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def test_shares_are_learned_and_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "ROUNDS", 40)
    random = np.random.default_rng(0)
    features = random.random((4000, 3)).astype(np.float32)
    shares = (0.1 + 0.8 * features[:, 0]).astype(np.float32)
    booster = fit_trees(Samples(features, shares, np.ones(4000, np.float32)), threads=1)
    assert predict_trees(booster, features) == pytest.approx(shares, abs=0.08)
    parity = export_trees(booster, tmp_path / "trees.onnx", np.arange(3), ("a", "b", "c"), features, exclusive=True)
    assert parity <= PARITY_LIMIT
    notes = onnxruntime.InferenceSession(tmp_path / "trees.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(notes["exclusive"]) is True
