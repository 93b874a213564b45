"""From scores to labels, as the manifest declares it; inference/decide.py does it."""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated

from inference.errors import ManifestError
from inference.rules import Count, DecisionRule, Probability, between, is_ascending
from inference.schema import Rule, refuse


@dataclass(frozen=True)
class GroupDecision:
    """Labels of a group that are taken: those at or above the threshold, at least `minimum`, at most `maximum`."""

    threshold: Probability
    minimum: Count
    maximum: Count


@dataclass(frozen=True)
class Calibration:
    """From a group's scores to chances: straight lines between points, flat beyond the first and the last."""

    scores: Annotated[tuple[Probability, ...], Rule("ascending scores, at least one", is_ascending)]
    chances: Annotated[tuple[Probability, ...], Rule("ascending chances, at least one", is_ascending)]


@dataclass(frozen=True)
class Decision:
    """From scores to labels; `prior`: ids of the labels given to an image that cannot be read.

    `rule`: by each group's threshold and numbers of labels, or the labels of the highest expected F2, at most
    `maximum`, by the chances that `calibration` gives. `fallback`: the thresholds of the blend, for a run in which a
    stacker fails; empty where there is no stacker.
    """

    groups: Mapping[str, GroupDecision]
    prior: Annotated[tuple[int, ...], Rule("at least one label id", lambda ids: len(ids) > 0)]
    rule: DecisionRule = "thresholds"
    calibration: Mapping[str, Calibration] = dataclasses.field(default_factory=dict)
    maximum: Annotated[int, between(1, 100, "a whole number from 1 to 100")] = 30
    fallback: Mapping[str, GroupDecision] = dataclasses.field(default_factory=dict)


def check_decision(decision: Decision, groups: Collection[str]) -> None:
    """Calibration, fallback and numbers of labels suit the groups and one another; raises ManifestError."""
    for section, given in (("calibration", decision.calibration), ("fallback", decision.fallback)):
        wanted = set(groups) if given or (section, decision.rule) == ("calibration", "expected_f2") else set()
        if set(given) != wanted:
            raise ManifestError(
                f"`decision.{section}`: found {', '.join(given) or 'no group'}, wanted every group of `labels.groups`"
            )
    for group, calibration in decision.calibration.items():
        if len(calibration.scores) != len(calibration.chances):
            raise ManifestError(
                f"`decision.calibration.{group}`: found {len(calibration.scores)} scores and "
                f"{len(calibration.chances)} chances, wanted as many"
            )
    for group, rule in decision.groups.items():
        if rule.maximum < max(rule.minimum, 1):
            raise refuse(f"decision.groups.{group}.maximum", rule.maximum, "at least 1 and at least `minimum`")
