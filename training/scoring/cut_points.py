"""Cut points on the expected class, for quadratic kappa of ordered classes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores

STEPS = 200
"""Candidates per class."""
SMALLEST_GAIN = 1e-12


@dataclass(frozen=True)
class Candidates:
    """Cuts to choose from, and the images whose expected class is at or above each."""

    cuts: NDArray[np.float64]
    """Ascending, (candidates,)."""
    above: NDArray[np.float64]
    """Share of images at or above each."""
    above_true: NDArray[np.float64]
    """The sum of the true classes of those, divided by the number of all images."""
    true: float
    """Mean of the true classes."""
    true_squares: float
    """Mean of their squares."""

    def score(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return quadratic kappa for several lists of cuts, (lists,); `places`: indices in `cuts`, (lists, cuts).

        The answer is the number of cuts at or below the expected class. So the means of the answer, of its square and
        of its product with the true class are sums over the cuts.
        """
        answer = self.above[places].sum(axis=1)
        squares = (self.above[places] * (2 * np.arange(places.shape[1]) + 1)).sum(axis=1)
        found = squares + self.true_squares - 2 * self.above_true[places].sum(axis=1)
        by_chance = squares + self.true_squares - 2 * answer * self.true
        kappas: NDArray[np.float64] = 1 - np.divide(found, by_chance, out=np.zeros_like(found), where=by_chance > 0)
        return kappas


def round_expectations(size: int) -> tuple[float, ...]:
    """Return the cuts that round the expected class to the nearest of `size` classes."""
    return tuple(column + 0.5 for column in range(size - 1))


def fit_cuts(scores: Scores, classes: NDArray[np.int64]) -> tuple[float, ...]:
    """Return ascending cuts of the expected class with the best quadratic kappa, one fewer than the classes.

    `scores`: (images, classes in their order); `classes`: the true ones, (images,). A coordinate search from the cuts
    of `round_expectations`: one cut after another takes the best candidate between its neighbours, until none
    improves. Of equally good candidates, it takes the middle one.
    """
    candidates = count_candidates(scores, classes)
    places = STEPS // 2 + STEPS * np.arange(scores.shape[1] - 1)
    best = float(candidates.score(places[None, :])[0])
    improved = True
    while improved:
        improved = False
        for column in range(len(places)):
            low = places[column - 1] if column else 0
            high = places[column + 1] if column + 1 < len(places) else len(candidates.cuts) - 1
            tried = np.repeat(places[None, :], high - low + 1, axis=0)
            tried[:, column] = np.arange(low, high + 1)
            found = candidates.score(tried)
            if found.max() > best + SMALLEST_GAIN:
                best, improved = float(found.max()), True
                equal = np.flatnonzero(found >= best - SMALLEST_GAIN)
                places[column] = low + equal[len(equal) // 2]
    return tuple(map(float, candidates.cuts[places]))


def count_candidates(scores: Scores, classes: NDArray[np.int64]) -> Candidates:
    """Count the images at or above each candidate; `scores`: (images, classes), `classes`: (images,)."""
    expected = scores.astype(np.float64) @ np.arange(scores.shape[1])
    order = np.argsort(expected, kind="stable")
    true = classes[order].astype(np.float64)
    cuts = np.arange(STEPS * (scores.shape[1] - 1) + 1) / STEPS
    below = np.searchsorted(expected[order], cuts, side="left")
    sums = np.concatenate([[0.0], true.cumsum()])
    return Candidates(
        cuts=cuts,
        above=1 - below / len(true),
        above_true=(sums[-1] - sums[below]) / len(true),
        true=float(true.mean()),
        true_squares=float((true**2).mean()),
    )
