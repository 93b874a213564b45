"""The tables of a fit for the terminal."""

from collections.abc import Mapping

from inference.manifest.records import BLEND
from training.second_stage.findings import Findings, Judged
from zoo.text import align_columns

BETTER = "lower figures are better; a difference above 0 is an improvement"


def describe_findings(found: Findings) -> str:
    """Format the tables of a fit for the terminal."""
    rows = [("method", found.metric, "against the weighted average", "95 % interval")]
    rows += [_show(one, one.name == BLEND) for one in found.methods]
    decided = [("rule", found.metric, f"against {found.base}", "95 % interval")]
    decided += [_show(one, one.name == found.base) for one in found.rules]
    values = [("without", f"{found.metric} lost" if found.higher_is_better else f"{found.metric} added")]
    ranked = sorted(found.values.items(), key=lambda item: -item[1])
    values += [(member, f"{value:+.4f}") for member, value in ranked]
    return "\n".join(
        [
            f"{found.images} images in {found.folds} outer folds; each image is judged by a fit to other images",
            *([] if found.higher_is_better else [BETTER]),
            "",
            *align_columns(rows, left=1),
            *(f"{part} is left out: {reason}" for part, reason in found.left_out.items()),
            "",
            f"decision rules for the {found.method}",
            *align_columns(decided, left=1),
            "",
            *align_columns(values, left=1),
            "",
            *(f"blend weights, {group}: {_list_weights(weights)}" for group, weights in found.weights.items()),
            *(f"mix weights, {group}: {_list_weights(weights)}" for group, weights in found.mix.items()),
        ]
    )


def _show(one: Judged, is_base: bool) -> tuple[str, str, str, str]:
    name = "weighted average" if one.name == BLEND else one.name
    if is_base:
        return name, f"{one.score:.4f}", "", ""
    return name, f"{one.score:.4f}", f"{one.gain:+.4f}", f"{one.low:+.4f} to {one.high:+.4f}"


def _list_weights(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
