"""All scores of a model, or the best of each image."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from inference.ensemble.kept_scores import AllScores, TopScores, load_scores, measure_scores, open_scores
from inference.manifest.file import parse_manifest
from inference.manifest.labels import Labels
from tests.inference.run.small_run import LABELS, MANIFEST


def draw_probabilities(images: int, labels: int) -> np.ndarray:
    logits = np.random.default_rng(images + labels).normal(0, 3, (images, labels))
    odds = np.exp(logits)
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def test_the_best_scores_are_kept_and_the_others_share_the_rest() -> None:
    scores, kept = draw_probabilities(40, 30), TopScores(50, 30, 5, "float32")
    rows = list(range(3, 43))
    kept.write(rows, scores)
    found = kept.read(slice(3, 43))
    for given, spread in zip(scores, found, strict=True):
        best = sorted(range(30), key=lambda column: -given[column])
        assert (spread[best[:5]] == given[best[:5]]).all()
        rest = min((1 - given[best[:5]].sum()) / 25, given[best[4]])
        np.testing.assert_allclose(spread[best[5:]], rest, atol=1e-6)
    assert (found.argmax(axis=1) == scores.argmax(axis=1)).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=0.02)
    assert np.isnan(kept.read([0, 1, 2, 49])).all() and kept.find_known().sum() == 40


def test_scores_that_are_not_kept_never_rank_before_kept_ones() -> None:
    """float16 may round kept scores, so that their sum is not that of the scores."""
    kept = TopScores(1, 4, 2, "float16")
    kept.write([0], np.array([[0.1, 0.01, 0.02, 0.03]], np.float32))
    assert kept.read([0])[0].argsort()[-1] == 0 and kept.read([0])[0, 1] <= kept.read([0])[0, 3]
    kept.write([0], np.array([[0.9, 0.3, 0.0, 0.1]], np.float32))
    assert (kept.read([0])[0, 2:] == 0).all(), "the rest is not negative"


def test_equal_scores_keep_the_row_valid() -> None:
    kept = TopScores(1, 6, 3, "float16")
    kept.write([0], np.full((1, 6), 1 / 6, np.float32))
    np.testing.assert_allclose(kept.read([0]), 1 / 6, atol=1e-3)


@pytest.mark.parametrize("scores", [AllScores(4, 3, "float16"), TopScores(4, 3, 2, "float16")])
def test_files_of_both_kinds_give_the_first_images(scores: AllScores | TopScores, tmp_path: Path) -> None:
    scores.write([0, 2], np.array([[0.75, 0.125, 0.125], [0.5, 0.25, 0.25]], np.float32))
    np.save(tmp_path / "x.npy", scores.array)
    found = load_scores(tmp_path / "x.npy", 3, 3)
    np.testing.assert_array_equal(found[[0, 2]], [[0.75, 0.125, 0.125], [0.5, 0.25, 0.25]])
    assert np.isnan(found[1]).all() and found.shape == (3, 3)


@pytest.mark.parametrize(("keep", "bytes_per_image"), [(None, 2 * (2 + 4)), (2, 2 * 2 + 2 * 6), (3, 2 * 2 + 3 * 6)])
def test_the_measured_bytes_are_those_of_the_arrays(keep: int | None, bytes_per_image: int) -> None:
    """Models of two and of four labels; the model with no more labels than are kept keeps all."""
    manifest = parse_manifest(MANIFEST)
    manifest = dataclasses.replace(manifest, runtime=dataclasses.replace(manifest.runtime, keep_top=keep))
    opened = open_scores(manifest, LABELS, 7)
    assert measure_scores(manifest, LABELS, 7) == 7 * bytes_per_image
    assert sum(scores.array.nbytes for scores in opened.values()) == 7 * bytes_per_image
    assert [scores.labels for scores in opened.values()] == [2, 4]


@pytest.mark.parametrize(
    ("activation", "dtype", "size"), [("softmax", "float16", 2), (None, "float16", 2), ("identity", "float32", 4)]
)
def test_all_outputs_of_a_model_for_features_are_kept(activation: str | None, dtype: str, size: int) -> None:
    one, two = MANIFEST["models"]  # type: ignore[misc]
    wide = {**one, "name": "wide", "group": "features", "outputs": 9, "activation": activation}  # type: ignore[dict-item]
    manifest = parse_manifest({**MANIFEST, "models": [one, two, wide]})
    manifest = dataclasses.replace(manifest, runtime=dataclasses.replace(manifest.runtime, keep_top=3))
    opened = open_scores(manifest, LABELS, 7)
    assert isinstance(opened["two"], TopScores) and isinstance(opened["wide"], AllScores)
    assert (opened["wide"].labels, opened["wide"].array.shape, opened["wide"].array.dtype) == (9, (7, 9), dtype)
    assert measure_scores(manifest, LABELS, 7) == 7 * (2 * 2 + 3 * 6 + 9 * size)
    assert measure_scores(manifest, LABELS, 7) == sum(kept.array.nbytes for kept in opened.values())


def test_64500_classes_of_40000_images_need_gigabytes_or_megabytes() -> None:
    labels = Labels(tuple(range(64_500)), tuple(map(str, range(64_500))), {"c": tuple(range(64_500)), "t": ()})
    manifest = parse_manifest(MANIFEST)
    one = dataclasses.replace(manifest, models=manifest.models[:1])
    kept = dataclasses.replace(one, runtime=dataclasses.replace(one.runtime, keep_top=100))
    assert (measure_scores(one, labels, 40_000), measure_scores(kept, labels, 40_000)) == (5_160_000_000, 24_000_000)
