import math

import pytest
import torch
from timm.loss.cross_entropy import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch.autograd import gradcheck

from inference.manifest.task import TaskType
from training.fit.losses import LOSSES, focal_loss, focal_softmax, lovasz_hinge, make_loss, smooth_cross_entropy
from training.recipe import LossSettings


def draw(images: int, labels: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, labels, dtype=torch.float64, generator=dice) * 3
    return logits, (torch.rand(images, labels, generator=dice) < 0.3).double()


def cross_entropy_slowly(logits: torch.Tensor, targets: torch.Tensor, smoothing: float) -> float:
    terms = []
    for row, truth in zip(logits.tolist(), targets.tolist(), strict=True):
        for logit, target in zip(row, truth, strict=True):
            wanted = 1 - smoothing / 2 if target else smoothing / 2
            p = 1 / (1 + math.exp(-logit))
            terms.append(-wanted * math.log(p) - (1 - wanted) * math.log(1 - p))
    return sum(terms) / len(terms)


def focal_slowly(logits: torch.Tensor, targets: torch.Tensor, gamma: float) -> float:
    images = []
    for row, truth in zip(logits.tolist(), targets.tolist(), strict=True):
        terms = []
        for logit, target in zip(row, truth, strict=True):
            p = 1 / (1 + math.exp(-logit))
            given = p if target else 1 - p
            terms.append(-((1 - given) ** gamma) * math.log(given))
        images.append(sum(terms))
    return sum(images) / len(images)


def jaccard_loss(wrong: set[int], truth: set[int]) -> float:
    """Return 1 - Jaccard index of the predicted set, which is wrong for the labels in `wrong`."""
    predicted = truth ^ wrong
    union = truth | predicted
    return 1 - len(truth & predicted) / len(union) if union else 0.0


def lovasz_slowly(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Return the loss by definition: errors in descending order, each times the loss that its label adds."""
    images = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        truth = {label for label, given in enumerate(target) if given}
        errors = [max(0.0, 1 - logit * (1 if given else -1)) for logit, given in zip(row, target, strict=True)]
        order = sorted(range(len(errors)), key=lambda label: -errors[label])
        total, wrong = 0.0, set[int]()
        for label in order:
            before = jaccard_loss(wrong, truth)
            wrong.add(label)
            total += errors[label] * (jaccard_loss(wrong, truth) - before)
        images.append(total)
    return sum(images) / len(images)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_the_sum_over_labels(smoothing: float) -> None:
    logits, targets = draw(7, 9)
    expected = cross_entropy_slowly(logits, targets, smoothing)
    assert smooth_cross_entropy(logits, targets, smoothing).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_the_focal_loss_equals_the_sum_over_labels(gamma: float) -> None:
    logits, targets = draw(7, 9)
    assert focal_loss(logits, targets, gamma).item() == pytest.approx(focal_slowly(logits, targets, gamma), rel=1e-10)


def test_the_lovasz_hinge_equals_its_definition_by_sets() -> None:
    logits, targets = draw(40, 6)
    assert (targets.sum(dim=1) == 0).any()
    assert lovasz_hinge(logits, targets).item() == pytest.approx(lovasz_slowly(logits, targets), rel=1e-12)


def test_the_lovasz_hinge_is_twice_the_jaccard_loss_at_the_margin() -> None:
    # If every error is 0 or 2, the extension equals twice the set function.
    targets = torch.tensor([[1.0, 1.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    logits = torch.tensor([[1.0, -1.0, -1.0, 1.0, 1.0]], dtype=torch.float64)
    assert lovasz_hinge(logits, targets).item() == pytest.approx(2 * (1 - 2 / 4))


@pytest.mark.parametrize("name", ["bce", "focal", "lovasz", "focal_lovasz"])
def test_gradients_equal_numerical_ones(name: str) -> None:
    logits, targets = draw(5, 8, seed=3)
    loss = make_loss(LossSettings(name=name, smoothing=0.05, gamma=1.5, lovasz=0.7), "multilabel")  # type: ignore[arg-type]
    assert gradcheck(lambda given: loss(given, targets), logits.requires_grad_())


@pytest.mark.parametrize("name", ["bce", "focal", "lovasz", "focal_lovasz"])
def test_extreme_logits_give_finite_losses_and_gradients(name: str) -> None:
    logits = torch.tensor([[80.0, -80.0, 80.0, -80.0]], requires_grad=True)
    loss = make_loss(LossSettings(name=name), "multilabel")(logits, torch.tensor([[1.0, 0.0, 0.0, 1.0]]))  # type: ignore[arg-type]
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_focal_lovasz_is_the_weighted_sum() -> None:
    logits, targets = draw(5, 8)
    both = make_loss(LossSettings(name="focal_lovasz", gamma=2.0, lovasz=0.25), "multilabel")(logits, targets).item()
    assert both == pytest.approx(focal_slowly(logits, targets, 2.0) + 0.25 * lovasz_slowly(logits, targets))


def test_a_better_prediction_has_a_lower_loss() -> None:
    logits, targets = draw(5, 8)
    better = logits + (2 * targets - 1)
    for name in ("bce", "focal", "lovasz", "focal_lovasz"):
        loss = make_loss(LossSettings(name=name), "multilabel")  # type: ignore[arg-type]
        assert loss(better, targets) < loss(logits, targets), name


def test_the_focal_loss_of_soft_targets_is_the_mean_of_both_cases() -> None:
    logits, targets = draw(7, 9)
    shares = torch.rand(targets.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    total = 0.0
    for logit, share in zip(logits.ravel(), shares.ravel(), strict=True):
        cases = [focal_slowly(logit.view(1, 1), torch.full((1, 1), case), 2.0) for case in (1.0, 0.0)]
        total += float(share) * cases[0] + (1 - float(share)) * cases[1]
    assert focal_loss(logits, shares, 2.0).item() == pytest.approx(total / 7, rel=1e-10)


def draw_classes(images: int, labels: int, soft: bool) -> tuple[torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(4)
    logits, other = (torch.randn(images, labels, dtype=torch.float64, generator=dice) * 3 for _ in range(2))
    hard = torch.nn.functional.one_hot(other.argmax(dim=1), labels).double()
    return logits, other.softmax(dim=1) if soft else hard


def test_cross_entropy_of_classes_equals_timms() -> None:
    logits, soft = draw_classes(7, 5, soft=True)
    take_loss = make_loss(LossSettings(), "multiclass")
    assert take_loss(logits, soft).item() == pytest.approx(SoftTargetCrossEntropy()(logits, soft).item(), rel=1e-12)
    _, hard = draw_classes(7, 5, soft=False)
    expected = LabelSmoothingCrossEntropy(0.1)(logits, hard.argmax(dim=1)).item()
    smoothed = make_loss(LossSettings(name="cross_entropy", smoothing=0.1), "multiclass")
    assert smoothed(logits, hard).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_focal_loss_of_classes_equals_its_formula(gamma: float) -> None:
    logits, hard = draw_classes(7, 5, soft=False)
    chances = [row.exp()[truth.argmax()] / row.exp().sum() for row, truth in zip(logits, hard, strict=True)]
    expected = sum(-((1 - float(p)) ** gamma) * math.log(p) for p in chances) / 7
    assert focal_softmax(logits, hard, gamma).item() == pytest.approx(expected, rel=1e-9)


def test_losses_of_numbers_equal_their_formulas() -> None:
    outputs, targets = draw_classes(7, 1, soft=False)
    gaps = (outputs - targets).ravel().tolist()
    squares = make_loss(LossSettings(), "regression")(outputs, targets).item()
    assert squares == pytest.approx(sum(gap**2 for gap in gaps) / 7)
    huber = make_loss(LossSettings(name="huber", delta=0.5), "regression")(outputs, targets).item()
    parts = [gap**2 / 2 if abs(gap) <= 0.5 else 0.5 * (abs(gap) - 0.25) for gap in gaps]
    assert huber == pytest.approx(sum(parts) / 7)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_losses_of_other_tasks_have_right_and_finite_gradients(task: TaskType) -> None:
    logits, targets = draw_classes(5, 3, soft=True)
    for name in LOSSES[task]:
        loss = make_loss(LossSettings(name=name, smoothing=0.05, gamma=1.5), task)
        assert gradcheck(lambda given, loss=loss: loss(given, targets), logits.clone().requires_grad_()), name
        extreme = torch.tensor([[80.0, -80.0, 80.0]], requires_grad=True)
        make_loss(LossSettings(name=name, gamma=0.5), task)(extreme, torch.tensor([[1.0, 0.0, 0.0]])).backward()
        assert extreme.grad is not None and extreme.grad.isfinite().all(), name
