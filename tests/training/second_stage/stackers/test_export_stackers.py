"""Exported stackers of one label per image: the kernel's sessions agree with torch and LightGBM."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from inference.ensemble.stackers import Inputs, StackerSession
from inference.manifest.records import BLEND
from tests.training.second_stage.drawn import TASKS, draw_members, name_labels
from training.second_stage import fitted
from training.second_stage.fitted import APART, TREES, LayerSettings, fit_layers, score_layers
from training.second_stage.stackers import trees
from training.second_stage.stackers.cnn import CnnSettings
from training.second_stage.stackers.export_stackers import export_layers


def test_the_kernel_scores_one_label_per_image_as_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitted, "CnnSettings", partial(CnnSettings, rank=8, epochs=1, updates=60, learning_rate=1e-2))
    monkeypatch.setattr(trees, "ROUNDS", 20)
    task = TASKS["accuracy"]
    labels = name_labels(task)
    layers = fit_layers(draw_members(task, 500), labels, task, LayerSettings(together=False), "test")
    assert layers.trees
    layers = fitted.Layers(layers.weights, layers.cnns, trees.PairStacker(**{**vars(layers.trees), "top": 3}))
    mix = {"labels": {BLEND: 0.2, APART: 0.4, TREES: 0.4}}
    stackers = export_layers(layers, mix, draw_members(task, 500), labels, tmp_path)
    assert [(stacker.name, stacker.parity < 1e-5) for stacker in stackers] == [("cnn_labels", True), ("trees", True)]
    fresh = draw_members(task, 300, seed=5)
    for members in (fresh, fresh.leave_out("fair")):
        home = score_layers(layers, members, labels)
        for stacker, part in zip(stackers, (APART, TREES), strict=True):
            places = [members.names.index(name) for name in stacker.members]
            session = StackerSession(stacker, tmp_path / f"{stacker.name}.onnx", labels)
            own = members.scores[:, places].astype(np.float32)
            found = session.score(Inputs(own, home[BLEND], members.traits))
            np.testing.assert_allclose(found, home[part], atol=1e-5)
            np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
            assert np.abs(found - home[BLEND]).max() > 0.05
    for part in (APART, TREES):
        right = (home[part].argmax(axis=1) == fresh.truth.argmax(axis=1)).mean()
        assert right > 0.7, part
