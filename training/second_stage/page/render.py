"""The page of the command `ensemble`: tables and plots in one HTML file without external resources."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference.basics.files import replace_file
from inference.manifest.records import BLEND
from training.scoring.rules import COUNTS, SHRUNK
from training.second_stage.findings import Findings, ThresholdCurve
from training.second_stage.fitted import APART, RANKS, TOGETHER, TREES, Weights
from training.second_stage.methods import BOTH

TEMPLATE = Path(__file__).with_name("page.html.jinja")
# Methods and parts whose internal names are not shown.
TITLES = {
    BLEND: "weighted average",
    APART: "CNN ①",
    TOGETHER: "CNN ②",
    BOTH: "CNN ① + ②",
}
MEANINGS = {
    APART: "one CNN stacker per group",
    TOGETHER: "one CNN stacker for all labels",
    BOTH: f"mean of {TITLES[APART]} and {TITLES[TOGETHER]}",
    TREES: "gradient-boosted trees over pairs of image and label",
    RANKS: "weighted average of the members' ranks instead of their scores",
}
# Links of the page, by the id of the section.
SECTIONS = {
    "methods": "methods",
    "rules": "rules",
    "thresholds": "thresholds",
    "calibration": "calibration",
    "frequencies": "frequencies",
    "confused": "confused labels",
    "errors": "errors",
    "members": "members",
    "weights": "weights",
    "values": "member values",
    "parity": "parity",
}


@dataclass(frozen=True)
class Axis:
    """The range of values of the bars in a table, `low` to `high`."""

    low: float
    high: float

    def place(self, value: float) -> str:
        """Return the position of a value on the axis, as a CSS percentage."""
        return f"{100 * (value - self.low) / (self.high - self.low):.2f}%"

    def measure(self, first: float, second: float) -> str:
        """Return the length of a bar between two values, as a CSS percentage."""
        return f"{100 * abs(second - first) / (self.high - self.low):.2f}%"


@dataclass(frozen=True)
class Peak:
    """The best point of a group's curve, beside the chosen one."""

    at_chosen: float
    """The metric at the chosen threshold."""
    threshold: float
    """With the best metric of the curve."""
    score: float


def write_ensemble_page(findings: Findings, path: Path) -> None:
    """Write the page atomically; the same findings give the same bytes. Raises OutputError."""
    page = render_ensemble_page(findings)
    with replace_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")


def render_ensemble_page(findings: Findings) -> str:
    """Return the page as HTML, with the names of members and groups escaped."""
    from training.second_stage.page import curves
    from zoo.plots import choose_colours
    from zoo.text import render_template

    thresholds, reliability, slices = findings.thresholds or {}, findings.reliability or {}, findings.slices or ()
    groups = list(dict.fromkeys([*findings.weights, *thresholds, *reliability, *findings.mix]))
    colours = dict(zip(groups, choose_colours(len(groups)), strict=True))
    sliced = list(dict.fromkeys(method for one in slices for method in one.scores))
    method_colours = curves.choose_method_colours(sliced)
    named = {one.name for one in findings.methods}
    return render_template(
        TEMPLATE,
        found=findings,
        titles=TITLES,
        meanings={name: meaning for name, meaning in MEANINGS.items() if name in named},
        base=BLEND,
        has_counts=findings.richest == COUNTS,
        has_own_thresholds=findings.richest == SHRUNK,
        sections={place: name for place, name in SECTIONS.items() if has_section(findings, place)},
        result=next((one for one in findings.methods if one.name == findings.method), None),
        decided=next((one for one in findings.rules if one.name == findings.rule), None),
        colours=colours,
        method_colours=method_colours,
        partial=any(one.share < 1 for one in findings.members),
        has_features=any(not one.groups for one in findings.members),
        gains=[
            choose_axis(end for one in table for end in (one.low, one.high))
            for table in (findings.methods, findings.rules)
        ],
        members=list_rows(findings.weights),
        weight_axis=choose_share_axis(findings.weights),
        parts=list_rows(findings.mix),
        mix_axis=choose_share_axis(findings.mix),
        ranked=sorted(findings.values.items(), key=lambda item: (-item[1], item[0])),
        value_axis=choose_axis(findings.values.values()),
        peaks={group: find_peak(curve) for group, curve in thresholds.items()},
        plots={
            "thresholds": curves.plot_thresholds(thresholds, colours, findings.metric) if thresholds else None,
            "reliability": curves.plot_reliability(reliability, colours) if reliability else None,
            "slices": curves.plot_slices(slices, method_colours, findings.slice_metric) if slices else None,
        },
    )


def has_section(findings: Findings, place: str) -> bool:
    """Return whether a section of SECTIONS suits the task and has rows."""
    optional = {
        "members": findings.members or None,
        "thresholds": findings.thresholds,
        "calibration": findings.reliability,
        "frequencies": findings.slices,
        "confused": findings.confused,
        "errors": findings.errors,
    }
    return place not in optional or optional[place] is not None


def choose_axis(values: Iterable[float]) -> Axis:
    """Return an axis that contains all values and 0, with a margin."""
    ends = [0.0, *values]
    low, high = min(ends), max(ends)
    margin = 0.03 * (high - low) or 1.0
    return Axis(low - margin, high + margin)


def choose_share_axis(weights: Weights) -> Axis:
    """Return an axis from 0 to the largest weight of any group."""
    return Axis(0.0, max((weight for column in weights.values() for weight in column.values()), default=0.0) or 1.0)


def list_rows(weights: Weights) -> list[str]:
    """Return the names of all groups, each once, in their order."""
    return list(dict.fromkeys(name for column in weights.values() for name in column))


def find_peak(curve: ThresholdCurve) -> Peak:
    """Find the best point of a group's curve."""
    best = int(np.argmax(curve.scores))
    at_chosen = float(np.interp(curve.chosen, curve.thresholds, curve.scores))
    return Peak(at_chosen, curve.thresholds[best], curve.scores[best])
