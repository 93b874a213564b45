"""Exhibits of the demo dataset, without their images: ids, sizes, and labels with a long tail."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SEED = 2019
TRAIN_EXHIBITS = 6000
TEST_EXHIBITS = 600

CULTURES = ("aztec", "byzantine", "celtic", "egyptian", "greek", "japanese", "khmer", "moorish", "norse", "persian")
TAGS = (
    "birds", "boats", "bridges", "butterflies", "crowns", "cups", "eyes", "fish", "flowers", "hearts", "houses",
    "keys", "ladders", "leaves", "moons", "mountains", "snakes", "stars", "suns", "swords", "towers", "trees",
    "vases", "wheels",
)  # fmt: skip
NAMES = tuple(f"culture::{name}" for name in CULTURES) + tuple(f"tag::{name}" for name in TAGS)

# Probabilities of 0, 1, … labels of a group.
CULTURES_AN_EXHIBIT = (0.12, 0.80, 0.08)
TAGS_AN_EXHIBIT = (0.0, 0.38, 0.34, 0.20, 0.08)
# Shares of labels missing in train.csv; the labels of the test images are complete.
OVERLOOKED_CULTURE, OVERLOOKED_TAG = 0.10, 0.05
LONG_SHARE = 0.012

Part = Literal["train", "test"]


@dataclass(frozen=True)
class Exhibit:
    """One image to draw."""

    id: str
    part: Part
    index: int
    width: int
    """In pixels."""
    height: int
    labels: tuple[int, ...]
    """True labels."""
    annotated: tuple[int, ...]
    """Labels in the tables; in the training part some are missing."""

    @property
    def cultures(self) -> tuple[str, ...]:
        """Return the names of its cultures."""
        return tuple(CULTURES[label] for label in self.labels if label < len(CULTURES))

    @property
    def tags(self) -> tuple[str, ...]:
        """Return the names of its tags, the things to draw."""
        return tuple(TAGS[label - len(CULTURES)] for label in self.labels if label >= len(CULTURES))


def make_random(part: Part, index: int, purpose: str) -> np.random.Generator:
    """Return a separate generator for each exhibit and purpose, so that exhibits do not depend on each other."""
    digest = hashlib.blake2b(f"{SEED}/{part}/{index}/{purpose}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest))


def make_exhibit(part: Part, index: int) -> Exhibit:
    """Return the exhibit at an index of a part; the result does not depend on other exhibits."""
    random = make_random(part, index, "labels")
    cultures = _draw_labels(random, len(CULTURES), CULTURES_AN_EXHIBIT)
    tags = [len(CULTURES) + tag for tag in _draw_labels(random, len(TAGS), TAGS_AN_EXHIBIT)]
    labels = tuple(sorted([*cultures, *tags]))
    width, height = _draw_size(random)
    annotated = labels
    if part == "train":
        rates = np.where(np.array(labels) < len(CULTURES), OVERLOOKED_CULTURE, OVERLOOKED_TAG)
        seen = random.random(len(labels)) >= rates
        annotated = tuple(label for label, kept in zip(labels, seen, strict=True) if kept) or labels
    digest = hashlib.blake2b(f"{SEED}/{part}/{index}".encode()).hexdigest()
    return Exhibit(digest[: int(random.integers(12, 17))], part, index, width, height, labels, annotated)


def list_exhibits(part: Part, count: int) -> list[Exhibit]:
    """Return the first `count` exhibits of a part."""
    return [make_exhibit(part, index) for index in range(count)]


def _draw_labels(random: np.random.Generator, choices: int, counts: Sequence[float]) -> list[int]:
    count = int(random.choice(len(counts), p=counts))
    return [int(label) for label in random.choice(choices, count, replace=False, p=_share_labels(choices))]


@cache
def _share_labels(choices: int) -> NDArray[np.float64]:
    # Zipf's law on shuffled labels, so that the frequency does not follow the alphabet.
    weights = (np.random.default_rng(SEED + choices).permutation(choices) + 1.8) ** -1.2
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def _draw_size(random: np.random.Generator) -> tuple[int, int]:
    short = int(random.integers(140, 171))
    ratio = random.uniform(6, 20) if random.random() < LONG_SHARE else random.uniform(1, 1.6)
    sides = (short, int(short * ratio))
    return sides if random.random() < 0.5 else sides[::-1]
