"""Temperature and clipping of probabilities, and a straight line for numbers."""

import numpy as np
from numpy.typing import NDArray

from inference.ensemble.blend import Scores
from inference.ensemble.fitted_rules import adjust_probabilities
from inference.manifest.decision import Fitted
from zoo.metrics.scoring import Scoring
from zoo.metrics.selection import Truth

LOW, HIGH = 0.1, 10.0
"""Limits of the temperature."""
CLIPS = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
"""Distances from 0 and 1 that are tried."""
DIGITS = 6


def fit_probabilities(scores: Scores, truth: Truth, scoring: Scoring, *, normalise: bool) -> Fitted:
    """Return the temperature, then the clip, with the lowest log loss or KL divergence.

    `scores`, `truth`: (images, labels). A temperature other than 1, and a clip larger than the smallest, are taken only
    if they gain more than one standard error (`gains_surely`), so that other images lose nothing by chance. The
    smallest clip is half an image divided by the number of images and, with `normalise`, of labels. A distance of 0 is
    no choice: images without a sure mistake do not show how rare it is, and Jeffreys' estimate of the rate of an event
    that never occurred is half of one.
    """
    from scipy.optimize import minimize_scalar

    smallest = round_number(0.5 / (len(scores) + 1) / (scores.shape[1] if normalise else 1))

    def lose(temperature: float, clip: float) -> NDArray[np.float64]:
        fitted = Fitted(temperature=temperature, clip=clip, normalise=normalise)
        return scoring.summarise(adjust_probabilities(scores, fitted), truth)

    found = minimize_scalar(
        lambda logarithm: lose(float(np.exp(logarithm)), smallest).mean(),
        bounds=(np.log(LOW), np.log(HIGH)),
        method="bounded",
        options={"xatol": 1e-3},
    )
    temperature = round_number(float(np.exp(found.x)))
    if not gains_surely(lose(temperature, smallest), lose(1.0, smallest)):
        temperature = 1.0
    clip = min((clip for clip in CLIPS if clip > smallest), key=lambda clip: lose(temperature, clip).mean())
    if not gains_surely(lose(temperature, clip), lose(temperature, smallest)):
        clip = smallest
    return Fitted(temperature=temperature, clip=clip, normalise=normalise)


def gains_surely(losses: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Return whether `losses` are lower on average than those of `others` by more than one standard error.

    Both: (images,), of the same images.
    """
    gains = others - losses
    return bool(gains.mean() > gains.std() / np.sqrt(len(gains)))


def fit_line(scores: Scores, truth: NDArray[np.floating]) -> Fitted:
    """Return the slope and the intercept of least squares; `scores`, `truth`: (images, 1), in range units.

    Equal scores get the slope 1, a single image no change.
    """
    if len(scores) < 2:
        return Fitted()
    found, true = scores[:, 0].astype(np.float64), truth[:, 0].astype(np.float64)
    spread = ((found - found.mean()) ** 2).sum()
    slope = float(((found - found.mean()) * (true - true.mean())).sum() / spread) if spread > 0 else 1.0
    return Fitted(slope=round_number(slope), intercept=round_number(float(true.mean() - slope * found.mean())))


def round_number(number: float) -> float:
    """Return the number, rounded for short JSON."""
    return float(f"{number:.{DIGITS}g}")
