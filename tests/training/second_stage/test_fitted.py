"""The blend of ranks, as the kernel computes it."""

import numpy as np
import pytest

from inference.ensemble.blend import blend
from inference.manifest.decision import Decision
from inference.manifest.model import ALL, Model
from inference.manifest.records import Ensemble, LabelsEntry, Manifest
from tests.training.second_stage.drawn import TASKS, draw_members, name_labels
from training.second_stage.fitted import SCALE_POINTS, blend_members, find_scale, fit_ranks, rank_members


def test_the_blend_of_ranks_is_that_of_the_kernel() -> None:
    task, labels = TASKS["ROC AUC"], name_labels(TASKS["ROC AUC"])
    ranks = fit_ranks(draw_members(task, 300), labels, task)
    fresh = draw_members(task, 200, seed=5).leave_out("fair")
    manifest = Manifest(
        labels=LabelsEntry("labels.csv", "0" * 64, {"labels": ""}),
        models=tuple(Model(name, "x", ALL, 32, (0.5,) * 3, (0.5,) * 3, "bicubic") for name in fresh.names),
        ensemble=Ensemble(ranks.weights, ranks=ranks.scales),
        decision=Decision({}, {}, "probabilities"),
        task=task,
    )
    scores = {name: fresh.scores[:, place] for place, name in enumerate(fresh.names)}
    home = blend_members(rank_members(fresh, ranks.scales), labels, ranks.weights)
    np.testing.assert_allclose(home, blend(scores, manifest, labels), atol=1e-6)
    assert ranks.weights["labels"]["noise"] < 0.3


def test_a_scale_has_the_scores_at_equal_steps_of_rank() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(SCALE_POINTS * 10 - 9) / 1000).reshape(-1, 1)
    scale = find_scale(np.vstack([scores, [[np.nan]]]))
    assert scale == pytest.approx(np.arange(SCALE_POINTS) / 100)
    assert len(find_scale(np.full((5, 2), 0.25, np.float32))) == SCALE_POINTS
