"""How labels or numbers are chosen from scores; implemented in inference/ensemble/decide.py."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from inference.manifest.values import (
    Count,
    DecisionRule,
    Finite,
    NotNegative,
    Numbers,
    PriorIds,
    Probability,
    Rule,
    between,
    is_ascending,
)


@dataclass(frozen=True)
class GroupDecision:
    """The rule that selects the labels of a group: those at or above the threshold, within limits on their number."""

    threshold: Probability
    minimum: Count
    """This many labels with the highest scores are selected even below the threshold."""
    maximum: Count


@dataclass(frozen=True)
class Calibration:
    """Points of the map from a group's scores to probabilities: linear between points, constant outside of them."""

    scores: Annotated[tuple[Probability, ...], Rule("ascending scores, at least one", is_ascending)]
    chances: Annotated[tuple[Probability, ...], Rule("ascending probabilities, at least one", is_ascending)]
    """The probability at each score."""


@dataclass(frozen=True)
class Fitted:
    """Numbers of the rules that are not fitted per group."""

    label_thresholds: tuple[Probability, ...] = ()
    """Of `thresholds`, by label; empty: those of the groups."""
    label_weights: tuple[NotNegative, ...] = ()
    """Of `ranked`: factors of the scores, by label; empty: 1."""
    cuts: Annotated[tuple[float, ...], Rule("ascending numbers", lambda cuts: not cuts or is_ascending(cuts))] = ()
    """Of `cut_points`: the limits between classes on the scale of the expected class, one fewer than the labels."""
    temperature: Annotated[float, between(0.01, 100, "a number from 0.01 to 100")] = 1.0
    """Of `probabilities`: divides the logits; above 1 is less certain."""
    clip: Annotated[float, between(0, 0.49, "a number from 0 to 0.49")] = 0.0
    """Of `probabilities`: distance kept from 0 and 1."""
    normalise: bool = False
    """Of `probabilities`: those of an image add up to 1."""
    slope: Finite = 1.0
    """Of `number`: the answer is slope * score + intercept."""
    intercept: Finite = 0.0


@dataclass(frozen=True)
class Decision:
    """How the answers for an image follow from its scores."""

    groups: Mapping[str, GroupDecision]
    prior: Mapping[str, PriorIds]
    """Group -> ids of its prior labels, which `thresholds` and `expected_f` give to an image without scores of it."""
    rule: DecisionRule = "thresholds"
    """`thresholds`: by `groups`; `expected_f`: the labels with the highest expected F-beta under the probabilities from
    `calibration`; the others: by `fitted`."""
    calibration: Mapping[str, Calibration] = dataclasses.field(default_factory=dict)
    maximum: Annotated[int, between(1, 100, "a whole number from 1 to 100")] = 30
    """Largest number of labels per image under `expected_f`."""
    beta: Annotated[float, between(0.01, 100, "a number from 0.01 to 100")] = 2.0
    """Of `expected_f`: how many times as much recall counts as precision."""
    fitted: Fitted = Fitted()
    prior_scores: Numbers = ()
    """Score of each label, which the other rules give to an image without scores; empty for the first two rules."""
    fallback: Mapping[str, GroupDecision] = dataclasses.field(default_factory=dict)
    """Thresholds of the blend, for a run in which a stacker fails; empty without stackers."""
    fallback_fitted: Fitted | None = None
    """The same of the other rules; None: `fitted`."""
