"""Exported trees agree with LightGBM."""

import json
from pathlib import Path

import lightgbm
import numpy as np
import onnx
import onnxruntime
import pytest

from inference.basics.errors import TrainingError
from inference.ensemble.pairs import name_features
from tests.training.second_stage.stackers.test_trees import COUNTS, MEMBERS, gather_museum
from training.second_stage.stackers import tree_graph, trees
from training.second_stage.stackers.tree_graph import PARITY_LIMIT, export_trees
from training.second_stage.stackers.trees import Samples, fit_trees, predict_trees


@pytest.fixture(scope="module")
def fitted() -> tuple[lightgbm.Booster, Samples]:
    samples = gather_museum(1500, 10**6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "ROUNDS", 40)
        return fit_trees(samples, threads=1), samples


def test_the_onnx_file_agrees_with_lightgbm(fitted: tuple[lightgbm.Booster, Samples], tmp_path: Path) -> None:
    booster, samples = fitted
    path = tmp_path / "trees.onnx"
    parity = export_trees(booster, path, COUNTS, name_features(MEMBERS, ()), samples.features)
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
    export_trees(booster, tmp_path / "trees.onnx", COUNTS, name_features(MEMBERS, ()), samples.features)
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
    export_trees(fitted[0], path, COUNTS, name_features(MEMBERS, ()), fitted[1].features[:9])
    metadata = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["counts"]) == COUNTS.tolist()
    assert json.loads(metadata["features"]) == list(name_features(MEMBERS, ()))
    model = onnx.load(path)
    assert model.ir_version <= 10
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 15, "ai.onnx.ml": 3}


def test_a_file_that_differs_from_its_trees_is_an_error_and_not_kept(
    fitted: tuple[lightgbm.Booster, Samples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    booster, samples = fitted
    other = fit_trees(Samples(samples.features, samples.truth, 1 + samples.truth.astype(np.float32)), threads=1)
    graph = tree_graph.convert_trees(other, samples.features.shape[1])
    monkeypatch.setattr(tree_graph, "convert_trees", lambda *_: graph)
    with pytest.raises(TrainingError, match=r"^trees.onnx: found a difference of .* to LightGBM on \d+ pairs; wanted"):
        export_trees(booster, tmp_path / "trees.onnx", COUNTS, name_features(MEMBERS, ()), samples.features)
    assert not list(tmp_path.iterdir())


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
