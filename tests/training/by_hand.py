"""What several tests hold the figures of zoos against."""

import numpy as np
from sklearn.metrics import fbeta_score

from inference.ensemble.decide import decide
from inference.manifest.labels import Labels
from inference.manifest.records import Decision
from training.scoring.thresholds import fit_decision


def take_by_hand(scores: np.ndarray, truth: np.ndarray, labels: Labels) -> np.ndarray:
    """Labels taken of even rows by rules of odd rows and the other way round; (images, labels) each."""
    taken = np.empty_like(truth)
    for judged, fitted in ((0, 1), (1, 0)):
        rules = fit_decision(scores[fitted::2], truth[fitted::2], labels).groups
        taken[judged::2] = decide(scores[judged::2], labels, Decision(rules, ()))
    return taken


def score(taken: np.ndarray, truth: np.ndarray) -> float:
    """scikit-learn's F2 of samples."""
    return float(fbeta_score(truth, taken, beta=2, average="samples", zero_division=0))
