import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, fbeta_score, roc_auc_score

from inference.manifest.labels import Labels
from inference.manifest.task import Form, Metric, Task
from training.scoring.rules import decide_crossed
from training.scoring.scores import describe_figures, narrow_labels, score_network, summarise_kind
from zoo.metrics.f_beta import THRESHOLDS
from zoo.metrics.scoring import find_scoring

LABELS = Labels(tuple(range(9)), tuple("abcdefghi"), {"culture": (0, 1, 2), "tag": (3, 4, 5, 6, 7, 8)})
PLAIN = Labels((0, 1, 2), ("a", "b", "c"), {"labels": (0, 1, 2)})
BEST, WIDE = Form(content="label_name", column="label", top_k=1), Form(layout="wide", content="probability")
ACCURACY = Task(type="multiclass", submission=BEST, metric=Metric(name="accuracy"))
CLASSES = Task(type="multiclass", submission=BEST, metric=Metric(beta=1.0, average="macro"))
AREA = Task(submission=WIDE, metric=Metric(name="roc_auc"))
MICRO, MACRO = (Task(metric=Metric(beta=1.0, average=average)) for average in ("micro", "macro"))


def draw_case(seed: int, images: int = 80, labels: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Draw scores and truth; some images have no true label of a group."""
    random = np.random.default_rng(seed)
    truth = random.random((images, labels)) < 0.2
    return np.clip(0.4 * truth + 0.6 * random.random(truth.shape), 0, 0.99).astype(np.float32), truth


def find_best(scores: np.ndarray, truth: np.ndarray, beta: float, average: str) -> float:
    """Return scikit-learn's F-beta at the best of some thresholds."""
    return max(
        fbeta_score(truth, scores >= threshold, beta=beta, average=average, zero_division=0)
        for threshold in map(float, THRESHOLDS[1::2])
    )


def test_f2_of_a_group_skips_images_without_a_label_of_it() -> None:
    scores, truth = draw_case(0)
    figures = score_network(scores, truth, LABELS, "all", Task())
    assert list(figures) == ["f2", "f2_culture", "f2_tag"]
    kept = truth[:, :3].any(axis=1)
    expected = find_best(scores[kept, :3], truth[kept, :3], 2.0, "samples")
    assert figures["f2_culture"] == pytest.approx(expected, abs=0.005)
    alone = score_network(scores[:, :3], truth[:, :3], LABELS, "culture", Task())
    assert alone == {"f2_culture": figures["f2_culture"]}
    assert np.isnan(score_network(scores[:, :3], truth[:, :3] & False, LABELS, "culture", Task())["f2_culture"])


@pytest.mark.parametrize(("task", "average"), [(MICRO, "micro"), (MACRO, "macro")])
def test_micro_and_macro_f1_count_all_images(task: Task, average: str) -> None:
    scores, truth = draw_case(1)
    figures = score_network(scores, truth, LABELS, "all", task)
    assert list(figures) == [f"{average}_f1", f"{average}_f1_culture", f"{average}_f1_tag"]
    # Every image gets at least one label, which may cost a little.
    assert figures[f"{average}_f1_tag"] == pytest.approx(find_best(scores[:, 3:], truth[:, 3:], 1.0, average), abs=0.02)
    assert describe_figures(figures, task).startswith(
        f"{average} F1 {figures[f'{average}_f1']:.4f}, {average} F1 of cu"
    )


def test_one_group_alone_has_one_figure() -> None:
    scores, truth = draw_case(2, labels=3)
    truth = np.eye(3, dtype=np.bool_)[scores.argmax(axis=1) * (np.arange(80) % 3 > 0)]
    figures = score_network(scores, truth, PLAIN, "all", ACCURACY)
    expected = accuracy_score(truth.argmax(axis=1), scores.argmax(axis=1))
    assert figures == {"accuracy": pytest.approx(expected)}
    assert score_network(scores, truth, PLAIN, "labels", ACCURACY) == figures
    assert describe_figures(figures, ACCURACY) == f"accuracy {expected:.4f}"
    assert list(score_network(scores, truth, PLAIN, "all", CLASSES)) == ["macro_f1"]


def test_the_area_of_several_groups_is_one_figure_or_that_of_the_networks_group() -> None:
    scores, truth = draw_case(3)
    figures = score_network(scores, truth, LABELS, "all", AREA)
    assert figures == {"roc_auc": pytest.approx(roc_auc_score(truth, scores))}
    figures = score_network(scores[:, 3:], truth[:, 3:], LABELS, "tag", AREA)
    assert figures == {"roc_auc_tag": pytest.approx(roc_auc_score(truth[:, 3:], scores[:, 3:]))}
    assert describe_figures(figures, AREA) == f"ROC AUC of tag {figures['roc_auc_tag']:.4f}"


def test_a_kind_has_a_figure_per_image_if_the_metric_is_a_mean_and_counts_if_it_is_a_ratio() -> None:
    scores, truth = draw_case(4)
    found = summarise_kind(scores, truth, LABELS, "tag", Task())
    assert found.shape == (truth[:, 3:].any(axis=1).sum(),)
    summary = summarise_kind(scores, truth, LABELS, "culture", MICRO)
    assert summary.shape == (80, 3)
    assert summary[:, 2].tolist() == truth[:, :3].sum(axis=1).tolist()


def test_macro_f1_of_classes_is_cross_fitted() -> None:
    random = np.random.default_rng(5)
    classes = random.integers(0, 3, 60)
    scores = random.dirichlet(np.ones(3), 60).astype(np.float32)
    truth = np.eye(3, dtype=np.bool_)[classes]
    summary = summarise_kind(scores, truth, PLAIN, "all", CLASSES)
    assert summary[:, 1].tolist() == classes.tolist()
    answers = decide_crossed(scores, truth, PLAIN, CLASSES)
    found = find_scoring(CLASSES).total(summary)
    assert found == pytest.approx(f1_score(classes, answers.argmax(axis=1), average="macro"))


def test_labels_are_narrowed_to_a_group() -> None:
    assert narrow_labels(LABELS, "culture") == Labels((0, 1, 2), ("a", "b", "c"), {"culture": (0, 1, 2)})
