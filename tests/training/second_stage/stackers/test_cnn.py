import copy
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

import training.second_stage.stackers.export_stackers as cnn_export
from inference.basics.errors import ExportError, TrainingError
from inference.ensemble.blend import fill_members
from training.second_stage.stackers.cnn import CnnSettings, CnnStacker, drop_members, fit_cnn, predict_cnn
from training.second_stage.stackers.export_stackers import export_cnn

SMALL = CnnSettings(channels=4, features=4, rank=16, epochs=10, batch_size=64, learning_rate=1e-2)
IMAGES = 1200

Bits = NDArray[np.bool_]
Floats = NDArray[np.float32]


def score(truth: Bits, spread: float, dice: np.random.Generator) -> Floats:
    """Return probabilities of a model: the truth plus Gaussian noise of deviation `spread`, in logits."""
    logits = 2 * (2 * truth - 1) + dice.normal(0, spread, truth.shape)
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def draw_scores(members: int = 3, labels: int = 6, spread: float = 1.5, seed: int = 0) -> tuple[Floats, Bits]:
    dice = np.random.default_rng(seed)
    truth = dice.random((IMAGES, labels)) < 0.3
    return np.stack([score(truth, spread, dice) for _ in range(members)], axis=1), truth


def log_loss(scores: Floats, truth: Bits) -> float:
    clipped = np.clip(scores.astype(np.float64), 1e-4, 1 - 1e-4)
    return float(-np.log(np.where(truth, clipped, 1 - clipped)).mean())


def mean_of_logits(scores: Floats) -> NDArray[np.float64]:
    clipped = np.clip(scores.astype(np.float64), 1e-4, 1 - 1e-4)
    return 1 / (1 + np.exp(-np.log(clipped / (1 - clipped)).mean(axis=1)))


FITTED, JUDGED = slice(0, 900), slice(900, None)


@pytest.mark.parametrize("members", [1, 2, 3, 14])
def test_an_untrained_stacker_returns_the_mean_of_the_logits(members: int) -> None:
    scores, truth = draw_scores(members)
    fitted = fit_cnn(scores, truth, replace(SMALL, epochs=1, learning_rate=1e-12), seed=0)
    np.testing.assert_allclose(predict_cnn(fitted, scores), mean_of_logits(scores), atol=1e-6)


def test_probabilities_of_0_and_1_are_clipped() -> None:
    scores = np.tile(np.array([0, 1, 0.5], np.float16), (4, 2, 1))
    fitted = fit_cnn(scores, np.ones((4, 3), np.bool_), replace(SMALL, epochs=1, learning_rate=1e-12), seed=0)
    np.testing.assert_allclose(predict_cnn(fitted, scores)[0], [1e-4, 1 - 1e-4, 0.5], atol=1e-6)


def test_learns_that_two_labels_occur_together() -> None:
    scores, truth = draw_scores()
    truth[:, 0] = truth[:, 1]
    scores[:, :, 0] = score(truth[:, :1].repeat(3, axis=1), 30, np.random.default_rng(1))
    fitted = fit_cnn(scores[FITTED], truth[FITTED], SMALL, seed=0)
    stacked = predict_cnn(fitted, scores[JUDGED])[:, 0]
    mean = mean_of_logits(scores[JUDGED])[:, 0]
    assert ((mean > 0.5) == truth[JUDGED, 0]).mean() < 0.75
    assert ((stacked > 0.5) == truth[JUDGED, 0]).mean() > 0.95


def test_learns_which_member_to_trust_for_which_label() -> None:
    scores, truth = draw_scores(members=2, spread=0.5)
    noise = np.random.default_rng(1).random((IMAGES, 3), np.float32)
    scores[:, 0, :3] = noise  # the first member is noise on the first three labels,
    scores[:, 1, 3:] = noise  # the second one on the others
    fitted = fit_cnn(scores[FITTED], truth[FITTED], SMALL, seed=0)
    stacked, mean = predict_cnn(fitted, scores[JUDGED]), mean_of_logits(scores[JUDGED])
    for labels in (slice(0, 3), slice(3, 6)):
        assert log_loss(stacked[:, labels], truth[JUDGED, labels]) < 0.3 * log_loss(
            mean[:, labels], truth[JUDGED, labels]
        )


def test_member_dropout_reduces_the_loss_without_a_member() -> None:
    scores, truth = draw_scores(members=3, spread=3)
    scores[:, 0] = score(truth, 0.8, np.random.default_rng(1))  # by far the best member, removed later
    missing = scores[JUDGED].copy()
    missing[:, 0] = np.nan
    losses = {}
    for chance in (0.0, 0.3):
        fitted = fit_cnn(scores[FITTED], truth[FITTED], replace(SMALL, member_dropout=chance), seed=0)
        losses[chance] = log_loss(predict_cnn(fitted, missing), truth[JUDGED])
    assert losses[0.3] < losses[0.0]
    assert losses[0.3] < 1.1 * log_loss(mean_of_logits(fill_members(missing)), truth[JUDGED])


def test_a_dropped_member_is_filled_as_the_kernel_fills_a_missing_one() -> None:
    scores, _ = draw_scores(members=4)
    scores[:, 1, :2] = np.nan  # a member that does not cover the first two labels
    dropped = np.random.default_rng(1).random((IMAGES, 4)) < 0.4
    gone = dropped[:, :, None] & np.ones_like(scores, np.bool_)
    none_left = (gone | np.isnan(scores)).all(axis=1, keepdims=True)
    assert none_left.any()
    expected = fill_members(np.where(gone & ~none_left, np.nan, scores).astype(np.float32))
    found = drop_members(torch.from_numpy(scores), torch.from_numpy(dropped)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_members_that_do_not_cover_a_label_may_be_given_as_nan_or_filled() -> None:
    scores, truth = draw_scores()
    scores[:, 2, :3] = np.nan
    settings = replace(SMALL, member_dropout=0, epochs=2)
    apart, filled = (fit_cnn(given, truth, settings, seed=0) for given in (scores, fill_members(scores)))
    np.testing.assert_allclose(predict_cnn(apart, scores), predict_cnn(filled, fill_members(scores)), atol=1e-5)


def test_one_member_is_enough() -> None:
    scores, truth = draw_scores(members=1)
    fitted = fit_cnn(scores[FITTED], truth[FITTED], SMALL, seed=0)
    assert log_loss(predict_cnn(fitted, scores[JUDGED]), truth[JUDGED]) < log_loss(scores[JUDGED, 0], truth[JUDGED])


def test_a_label_without_a_positive_keeps_the_score_of_the_mean() -> None:
    scores, truth = draw_scores()
    truth[:, 4] = False
    stacked = predict_cnn(fit_cnn(scores, truth, SMALL, seed=0), scores)
    np.testing.assert_allclose(stacked[:, 4], mean_of_logits(scores)[:, 4], atol=1e-6)
    assert np.abs(stacked[:, 3] - mean_of_logits(scores)[:, 3]).max() > 0.01


def test_the_same_seed_gives_the_same_stacker_and_keeps_the_global_random_state() -> None:
    scores, truth = draw_scores()
    settings = replace(SMALL, epochs=2)
    torch.manual_seed(1)
    first = fit_cnn(scores, truth, settings, seed=0)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    again, other = fit_cnn(scores, truth, settings, seed=0), fit_cnn(scores, truth, settings, seed=1)
    for name, weights in first.state_dict().items():
        assert torch.equal(weights, again.state_dict()[name]), name
    assert not np.array_equal(predict_cnn(first, scores), predict_cnn(other, scores))


def test_half_and_single_precision_give_the_same_stacker() -> None:
    scores, truth = draw_scores()
    half = scores.astype(np.float16)
    settings = replace(SMALL, epochs=1)
    stackers = [fit_cnn(given, truth, settings, seed=0) for given in (half, half.astype(np.float32))]
    np.testing.assert_array_equal(*(predict_cnn(stacker, half) for stacker in stackers))


@dataclass(frozen=True)
class Exported:
    stacker: CnnStacker
    scores: Floats
    path: Path
    parity: float


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> Exported:
    scores, truth = draw_scores()
    scores[:, 2, :3] = np.nan
    stacker = fit_cnn(scores, truth, replace(SMALL, epochs=2), seed=0)
    path = tmp_path_factory.mktemp("exported") / "stacker.onnx"
    return Exported(stacker, scores, path, export_cnn(stacker, path, scores[:100]))


def test_the_onnx_graph_matches_torch_for_any_number_of_images(exported: Exported) -> None:
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    wanted = predict_cnn(exported.stacker, exported.scores)
    assert exported.parity < 1e-5
    for images in (1, 7, IMAGES):
        (answer,) = session.run(["probabilities"], {"scores": fill_members(exported.scores[:images])})
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, wanted[:images], atol=1e-5)
    # The agreement is not that of the mean alone.
    assert np.abs(wanted - mean_of_logits(fill_members(exported.scores))).max() > 0.01


def test_the_onnx_graph_is_one_file_that_old_runtimes_load_and_names_no_path(exported: Exported) -> None:
    assert list(exported.path.parent.iterdir()) == [exported.path]
    graph = onnx.load(exported.path)
    assert (graph.opset_import[0].version, graph.ir_version) == (18, 10)
    assert str(Path(cnn_export.__file__).parents[2]).encode() not in graph.SerializeToString()


def test_a_graph_that_differs_from_torch_is_an_error_and_leaves_no_file(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy.deepcopy(exported.stacker)
    with torch.no_grad():
        other.expand.bias += 0.01
    monkeypatch.setattr(cnn_export, "trace_module", lambda *_: onnx.load(exported.path))
    message = r"^stacker\.onnx: found a difference of \d\.\de-03 to torch on 1200 images; wanted at most 1e-04$"
    with pytest.raises(ExportError, match=message):
        export_cnn(other, tmp_path / "stacker.onnx", exported.scores)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("scores", "truth", "message"),
    [
        (
            np.zeros((5, 3)),
            np.zeros((5, 3)),
            "scores: found shape (5, 3); wanted (images, members, labels), at least one of each",
        ),
        (
            np.zeros((0, 2, 3)),
            np.zeros((0, 3)),
            "scores: found shape (0, 2, 3); wanted (images, members, labels), at least one of each",
        ),
        (
            np.zeros((5, 2, 3)),
            np.zeros((5, 4)),
            "truth: found shape (5, 4); wanted (5, 3), the images and labels of the scores",
        ),
        (
            np.full((5, 2, 3), 1.5),
            np.zeros((5, 3)),
            "scores of images 0 to 4: found 1.5 to 1.5; wanted probabilities; write the out-of-fold scores again",
        ),
    ],
)
def test_unusable_input_is_an_error(scores: Floats, truth: Bits, message: str) -> None:
    with pytest.raises(TrainingError, match=f"^{re.escape(message)}$"):
        fit_cnn(scores.astype(np.float32), truth.astype(np.bool_), SMALL, seed=0)


def test_a_different_number_of_members_than_in_the_fit_is_an_error() -> None:
    stacker = CnnStacker(3, torch.zeros(2, 6), torch.ones(2, 6), torch.ones(6, dtype=torch.bool), SMALL)
    message = "scores: found shape (4, 2, 6); wanted (images, 3 members, 6 labels), as in the fit"
    with pytest.raises(TrainingError, match=f"^{re.escape(message)}$"):
        predict_cnn(stacker, np.zeros((4, 2, 6), np.float32))


def test_a_diverging_training_is_an_error() -> None:
    scores, truth = draw_scores()
    message = r"^tag: found a loss of (nan|inf) after epoch \d+ of 12; wanted a finite loss; lower the learning rate$"
    with pytest.raises(TrainingError, match=message):
        fit_cnn(scores, truth, replace(SMALL, learning_rate=1e30), seed=0, title="tag")


def draw_classes(images: int = IMAGES, seed: int = 0) -> tuple[Floats, Bits]:
    """Return probabilities of three members that add up to 1, and one true label per image."""
    dice = np.random.default_rng(seed)
    truth = np.arange(4) == dice.integers(0, 4, images)[:, None]
    powers = np.exp(2 * truth[:, None] + dice.normal(0, 1.5, (images, 3, 4)))
    return (powers / powers.sum(axis=2, keepdims=True)).astype(np.float32), truth


def test_one_label_per_image_starts_from_the_geometric_mean() -> None:
    scores, truth = draw_classes()
    fitted = fit_cnn(scores, truth, replace(SMALL, epochs=1, learning_rate=1e-12, exclusive=True), seed=0)
    wanted = np.exp(np.log(scores.astype(np.float64)).mean(axis=1))
    np.testing.assert_allclose(predict_cnn(fitted, scores), wanted / wanted.sum(axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("soft", [False, True])
def test_one_label_per_image_is_learned_from_classes_or_shares(soft: bool) -> None:
    scores, truth = draw_classes()
    scores[:, 0] = scores[:, 0][:, [1, 2, 3, 0]]  # the first member names the labels wrongly
    targets = 0.9 * truth + 0.025 if soft else truth
    fitted = fit_cnn(scores[FITTED], targets[FITTED].astype(targets.dtype), replace(SMALL, exclusive=True), seed=0)
    stacked, mean = predict_cnn(fitted, scores[JUDGED]), scores[JUDGED].mean(axis=1)
    np.testing.assert_allclose(stacked.sum(axis=1), 1, atol=1e-5)

    def lose(chances: Floats) -> float:
        return float(-(targets[JUDGED] * np.log(chances)).sum(axis=1).mean())

    assert lose(stacked) < lose(mean) - 0.2
