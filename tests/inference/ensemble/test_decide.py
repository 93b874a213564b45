import dataclasses

import numpy as np
import pytest
from sklearn.metrics import fbeta_score

from inference.ensemble.blend import blend
from inference.ensemble.decide import answer_prior, decide, decide_group
from inference.manifest.decision import Decision, Fitted, GroupDecision
from inference.manifest.file import read_manifest
from inference.manifest.labels import Labels
from inference.manifest.records import Ensemble
from inference.manifest.task import Form, Metric, Task
from inference.task.answers import list_answers
from tests.conftest import Workshop

LABELS = Labels((10, 11, 12, 20, 21), ("c::a", "t::b", "c::d", "t::e", "t::f"), {"c": (0, 2), "t": (1, 3, 4)})


def decide_slowly(scores: np.ndarray, rule: GroupDecision) -> list[list[bool]]:
    """Select labels image by image, as the manifest defines it."""
    selected = []
    for row in scores.tolist():
        ranked = sorted(range(len(row)), key=lambda column: (-row[column], column))
        given = [column for column in ranked[: rule.maximum] if row[column] >= rule.threshold]
        chosen = set(given) | set(ranked[: rule.minimum])
        selected.append([column in chosen for column in range(len(row))])
    return selected


def test_decisions_agree_with_one_label_at_a_time() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        scores = random.integers(0, 8, (5, 6)) / 8  # many ties
        minimum = int(random.integers(0, 4))
        rule = GroupDecision(float(random.integers(0, 9)) / 8, minimum, int(random.integers(max(minimum, 1), 7)))
        assert decide_group(scores, rule).tolist() == decide_slowly(scores, rule)


def test_an_image_below_all_thresholds_gets_the_label_of_the_highest_score() -> None:
    strict = Decision({"c": GroupDecision(0.9, 0, 2), "t": GroupDecision(0.9, 0, 2)}, (10,))
    scores = np.array([[0.1, 0.2, 0.1, 0.3, 0.2], [0.95, 0, 0, 0, 0]])
    assert list_answers(decide(scores, LABELS, strict), LABELS, Task()) == [(20,), (10,)]


def test_the_blend_is_the_weighted_mean_of_the_models_that_cover_a_group(workshop: Workshop) -> None:
    manifest = read_manifest(workshop.manifest)
    weights = {"culture": {"everything": 1.0, "culture": 3.0}, "tag": {"everything": 2.0, "tag": 0.0}}
    manifest = dataclasses.replace(manifest, ensemble=Ensemble(weights))
    labels = Labels(tuple(range(5)), ("",) * 5, {"culture": (0, 1), "tag": (2, 3, 4)})
    random = np.random.default_rng(1)
    scores = {
        name: random.random((7, columns)).astype(np.float16)
        for name, columns in (("everything", 5), ("culture", 2), ("tag", 3))
    }
    whole, culture = scores["everything"].astype(np.float64), scores["culture"].astype(np.float64)
    blended = blend(scores, manifest, labels)
    assert np.allclose(blended[:, :2], (whole[:, :2] + 3 * culture) / 4, atol=1e-6)
    assert np.allclose(blended[:, 2:], whole[:, 2:], atol=1e-6), "a weight of 0 excludes a model"


def test_the_blend_ignores_models_without_predictions_and_is_nan_without_any(
    workshop: Workshop,
) -> None:
    manifest = read_manifest(workshop.manifest)
    weights = {"culture": {"everything": 1.0, "culture": 3.0}, "tag": {"everything": 2.0, "tag": 5.0}}
    manifest = dataclasses.replace(manifest, ensemble=Ensemble(weights))
    labels = Labels(tuple(range(5)), ("",) * 5, {"culture": (0, 1), "tag": (2, 3, 4)})
    random = np.random.default_rng(4)
    columns = {"everything": (0, 1, 2, 3, 4), "culture": (0, 1), "tag": (2, 3, 4)}
    scores = {name: random.random((30, len(own))).astype(np.float16) for name, own in columns.items()}
    for array in scores.values():
        array[random.random(30) < 0.5] = np.nan
    blended = blend(scores, manifest, labels)
    for row, label in np.ndindex(blended.shape):
        group = "culture" if label < 2 else "tag"
        known = [
            (weight, float(scores[name][row, columns[name].index(label)]))
            for name, weight in weights[group].items()
            if not np.isnan(scores[name][row, 0])
        ]
        if known:
            mean = sum(weight * score for weight, score in known) / sum(weight for weight, _ in known)
            assert blended[row, label] == pytest.approx(mean, abs=1e-6)
        else:
            assert np.isnan(blended[row, label])
    assert 0 < np.isnan(blended[:, 0]).sum() < 30


def test_a_lower_threshold_selects_more_labels_and_scikit_learn_gives_a_higher_f2() -> None:
    random = np.random.default_rng(3)
    scores, truth = random.random((50, 5)), random.random((50, 5)) < 0.4
    truth[:, 0] |= ~truth.any(axis=1)
    found = []
    for threshold in (0.8, 0.5, 0.2):
        rule = GroupDecision(threshold, 0, 5)
        selected = decide(scores, LABELS, Decision({"c": rule, "t": rule}, (10,)))
        found.append((int(selected.sum()), fbeta_score(truth, selected, beta=2, average="samples")))
    assert found == sorted(found)


def test_thresholds_of_labels_replace_those_of_groups_and_an_image_keeps_its_best_label() -> None:
    decision = Decision({}, {}, fitted=Fitted(label_thresholds=(0.5, 0.1, 0.9, 0.3, 0.3)))
    scores = np.array([[0.5, 0.09, 0.89, 0.31, 0.0], [0.1, 0.0, 0.2, 0.1, 0.1]], np.float32)
    assert decide(scores, LABELS, decision).astype(int).tolist() == [[1, 0, 0, 1, 0], [0, 0, 1, 0, 0]]


def test_the_blend_averages_ranks_where_the_manifest_has_them(workshop: Workshop) -> None:
    manifest = read_manifest(workshop.manifest)
    weights = {"culture": {"culture": 1.0, "everything": 1.0}, "tag": {"tag": 1.0}}
    scales = {"culture": (0.0, 0.1, 0.2, 0.9, 1.0), "everything": (0.2, 0.4, 0.6)}
    manifest = dataclasses.replace(manifest, ensemble=Ensemble(weights, ranks=scales))
    labels = Labels(tuple(range(5)), tuple("abcde"), {"culture": (0, 1), "tag": (2, 3, 4)})
    scores = {
        "culture": np.array([[0.1, 0.95], [np.nan, np.nan]], np.float32),
        "everything": np.array([[0.5, 0.6, 0, 0, 0], [0.1, 0.45, 0, 0, 0]], np.float32),
        "tag": np.array([[0.3, 0.2, 0.1]] * 2, np.float32),
    }
    blended = blend(scores, manifest, labels)
    assert blended[0, :2] == pytest.approx([(0.25 + 0.75) / 2, (0.875 + 1) / 2])
    assert blended[1, :2] == pytest.approx([0, 0.625]), "ranks of the model that has scores"
    assert blended[:, 2:] == pytest.approx(scores["tag"]), "a model without a scale keeps its scores"


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("ranked", [0.2, 0.3, 0.5]),
        ("cut_points", [False, True, False]),
        ("probabilities", [0.2, 0.3, 0.5]),
    ],
)
def test_an_image_without_scores_is_decided_by_the_prior_scores(rule: str, wanted: list[float]) -> None:
    labels = Labels((0, 1, 2), tuple("abc"), {"labels": (0, 1, 2)})
    decision = Decision({}, {}, rule, fitted=Fitted(cuts=(0.5, 1.5)), prior_scores=(0.2, 0.3, 0.5))  # type: ignore[arg-type]
    scores = np.array([[np.nan] * 3, [0.0, 0.0, 1.0]], np.float32)
    found = decide(scores, labels, decision)
    assert found[0].tolist() == wanted
    assert found[1].tolist() == [0, 0, 1]


def test_the_prior_answer_has_the_form_of_the_task(workshop: Workshop) -> None:
    manifest = read_manifest(workshop.manifest)
    labels = Labels(tuple(range(5)), tuple("abcde"), {"culture": (0, 1), "tag": (2, 3, 4)})
    prior = manifest.decision.prior
    assert answer_prior(manifest, labels) == tuple(sorted(prior["culture"] + prior["tag"]))
    task = Task(type="regression", submission=Form("wide", "number"), metric=Metric("rmse"), value_range=(1.0, 5.0))
    decision = Decision({}, {}, "number", fitted=Fitted(slope=2.0, intercept=-0.5), prior_scores=(0.5,))
    one = Labels((0,), ("Pawpularity",), {"labels": (0,)})
    assert list(answer_prior(dataclasses.replace(manifest, task=task, decision=decision), one)) == [3.0]
