import math
import statistics
from itertools import combinations

import numpy as np
import pytest

from inference.ensemble.pairs import PAIRED, compute_features, find_pairs, name_features

GROUPS = np.array([1, 0, 0, 1, 0, 1, 1])
COUNTS = np.array([9, 0, 4, 120, 7, 1, 30])
NOTHING = np.empty((99, 0), np.float32)  # no features of other models


def draw_scores(images: int, members: int, seed: int = 0) -> np.ndarray:
    """Draw scores in steps of 1/8, so that many are equal, including 0 and 1."""
    random = np.random.default_rng(seed)
    return (random.integers(0, 9, (images, members, len(COUNTS))) / 8).astype(np.float32)


def draw_traits(images: int) -> np.ndarray:
    return np.random.default_rng(9).random((images, 4)).astype(np.float32)


def find_slowly(scores: np.ndarray, top: int) -> set[tuple[int, int]]:
    """Find the pairs one image and one member at a time."""
    found = set()
    for row, image in enumerate(scores.tolist()):
        for member in image:
            ranked = sorted(range(len(member)), key=lambda column: (-member[column], column))
            found |= {(row, column) for column in ranked[:top] if COUNTS[column]}
    return found


def describe_slowly(image: list[list[float]], column: int, traits: list[float], members: list[str]) -> dict[str, float]:
    """Compute the features of one pair from their definitions; `image`: its scores, (members, labels)."""
    own = [member[column] for member in image]
    named = dict(zip(members, own, strict=True))
    features = dict(named)
    for one, two in combinations(members[:PAIRED], 2):
        features[f"{one} + {two}"] = named[one] + named[two]
        features[f"{one} * {two}"] = named[one] * named[two]
        features[f"{one} / {two}"] = named[one] / max(named[two], 1e-8)
    for one, two, three in combinations(members[:PAIRED], 3):
        features[f"{one} + {two} + {three}"] = named[one] + named[two] + named[three]
        features[f"{one} * {two} * {three}"] = named[one] * named[two] * named[three]
        features[f"{one} / ({two} + {three})"] = named[one] / max(named[two] + named[three], 1e-8)
    means = [statistics.fmean(scores) for scores in zip(*image, strict=True)]
    group = [mean for mean, place in zip(means, GROUPS, strict=True) if place == GROUPS[column]]
    others = [mean for mean, place in zip(means, GROUPS, strict=True) if place != GROUPS[column]]
    ranked = sorted(range(len(means)), key=lambda other: (-means[other], other))
    return features | {
        "mean": statistics.fmean(own),
        "median": statistics.median(own),
        "deviation": statistics.pstdev(own),
        "minimum": min(own),
        "maximum": max(own),
        "rank": ranked.index(column),
        "sum of group": math.fsum(group),
        "best of group": max(group),
        "mean / best of group": means[column] / max(max(group), 1e-8),
        "sum elsewhere": math.fsum(others),
        "best elsewhere": max(others),
        "squares": math.fsum(mean * mean for mean in means),
        "count": int(COUNTS[column]),
        "group": int(GROUPS[column]),
        "brightness": traits[0],
        "colourfulness": traits[1],
        "longest side": traits[2],
        "upright": traits[3],
    }


@pytest.mark.parametrize("top", [0, 1, 2, 5, 6, 7, 20])
@pytest.mark.parametrize("members", [1, 3])
def test_pairs_agree_with_one_image_and_member_at_a_time(top: int, members: int) -> None:
    scores = draw_scores(40, members)
    rows, columns = find_pairs(scores, top, COUNTS)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == sorted(find_slowly(scores, top))


@pytest.mark.parametrize("score", [0.0, 0.25])
def test_if_all_scores_are_equal_the_first_labels_become_pairs(score: float) -> None:
    rows, columns = find_pairs(np.full((2, 3, 7), score, np.float32), 2, COUNTS)
    assert rows.tolist() == [0, 1], "the second label has no training image"
    assert columns.tolist() == [0, 0]


def test_the_outputs_of_other_models_come_last_and_are_those_of_the_pairs_image() -> None:
    scores, extra = draw_scores(5, 2), np.random.default_rng(4).normal(size=(5, 5)).astype(np.float32)
    rows, columns = find_pairs(scores, 2, COUNTS)
    found = compute_features(scores, rows, columns, COUNTS, GROUPS, draw_traits(5), extra)
    names = name_features(["a", "b"], [("wide", 3), ("other", 2)])
    assert names[-5:] == ("wide[0]", "wide[1]", "wide[2]", "other[0]", "other[1]")
    assert found.shape == (len(rows), len(names)) and len(set(names)) == len(names)
    for row, features in zip(rows.tolist(), found, strict=True):
        assert features[-5:].tolist() == extra[row].tolist()
    without = compute_features(scores, rows, columns, COUNTS, GROUPS, draw_traits(5), NOTHING[:5])
    assert np.array_equal(found[:, :-5], without) and names[:-5] == name_features(["a", "b"], ())


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_features_agree_with_their_definitions(count: int) -> None:
    members = [f"m{place}" for place in range(count)]
    scores, traits = draw_scores(12, count, seed=count), draw_traits(12)
    rows, columns = find_pairs(scores, 3, COUNTS)
    features = compute_features(scores, rows, columns, COUNTS, GROUPS, traits, NOTHING[: len(scores)])
    assert features.dtype == np.float32
    names = name_features(members, ())
    assert features.shape == (len(rows), len(names))
    for row, column, found in zip(rows.tolist(), columns.tolist(), features.tolist(), strict=True):
        wanted = describe_slowly(scores[row].tolist(), column, traits[row].tolist(), members)
        assert set(names) == set(wanted)
        assert found == pytest.approx([wanted[name] for name in names], rel=1e-5, abs=1e-6), (row, column)


def test_no_feature_is_nan_or_infinite_if_all_scores_are_0() -> None:
    scores = np.zeros((3, 5, 7), np.float32)
    features = compute_features(scores, *find_pairs(scores, 7, COUNTS), COUNTS, GROUPS, draw_traits(3), NOTHING[:3])
    assert np.isfinite(features).all()


def test_with_one_group_the_features_of_other_groups_are_0() -> None:
    scores = draw_scores(5, 2)
    features = compute_features(
        scores, *find_pairs(scores, 3, COUNTS), COUNTS, np.zeros_like(GROUPS), draw_traits(5), NOTHING[:5]
    )
    names = name_features(["a", "b"], ())
    assert not features[:, [names.index("sum elsewhere"), names.index("best elsewhere")]].any()


def test_features_do_not_depend_on_the_chunk() -> None:
    scores, traits = draw_scores(10, 3).clip(0.01, 0.99), draw_traits(10)
    whole = compute_features(scores, *find_pairs(scores, 2, COUNTS), COUNTS, GROUPS, traits, NOTHING[: len(scores)])
    chunks = [
        compute_features(
            scores[part], *find_pairs(scores[part], 2, COUNTS), COUNTS, GROUPS, traits[part], NOTHING[part]
        )
        for part in (slice(0, 3), slice(3, 4), slice(4, 10))
    ]
    assert np.array_equal(np.concatenate(chunks), whole)


def test_without_pairs_there_are_no_features() -> None:
    scores = draw_scores(2, 3)
    features = compute_features(scores, *find_pairs(scores, 0, COUNTS), COUNTS, GROUPS, draw_traits(2), NOTHING[:2])
    assert features.shape == (0, len(name_features(["a", "b", "c"], ())))


def test_only_the_first_members_of_a_large_zoo_are_combined() -> None:
    names = name_features([f"m{place}" for place in range(14)], ())
    assert len(names) == len(set(names)) == 14 + 6 * 3 + 4 * 3 + 6 + 6 + 2 + 4
    assert [name for name in names if "m4" in name] == ["m4"]
