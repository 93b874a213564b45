"""A plan as bars: all and what is kept against the limit, and each model's time."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference.files import make_folder, replace_file
from inference.plan import add_seconds
from packing.plan import RunPlan

INK, GREY, KEPT, DROPPED = "#333333", "#999999", "#3b6ea5", "#d9a441"
HOUR = 3600
ROW = 0.3  # inches


def draw_plan(plan: RunPlan, path: Path) -> None:
    """Write the chart as a PNG, whole or not at all; raises OutputError."""
    rows = len(plan.models) + 1
    height = ROW * (rows + 2) + 2.1
    figure = Figure(figsize=(9, height), dpi=120, layout="constrained")
    whole, each = figure.subplots(2, 1, height_ratios=[2, rows])
    draw_whole(whole, plan)
    draw_models(each, plan)
    figure.suptitle(f"{plan.images:,} images on {plan.machine}", color=INK, fontsize=11)
    make_folder(path.parent)
    with replace_file(path) as temporary:
        figure.savefig(temporary, format="png")


def draw_whole(axes: Axes, plan: RunPlan) -> None:
    """The whole run, and what is kept of it, against the limit."""
    bars = [("everything", plan.passes, DROPPED)] if plan.dropped else []
    bars.append(("what is kept" if plan.dropped else "everything", plan.kept, KEPT))
    axes.barh(
        [name for name, _, _ in bars],
        [plan.add_up(passes) / HOUR for _, passes, _ in bars],
        0.6,
        color=[colour for _, _, colour in bars],
    )
    axes.axvline(plan.time_limit / HOUR, color=INK, linewidth=1.5)
    axes.annotate(
        " limit", (plan.time_limit / HOUR, 1), xycoords=("data", "axes fraction"), color=INK, fontsize=8, va="bottom"
    )
    style_axes(axes)


def draw_models(axes: Axes, plan: RunPlan) -> None:
    """Each model's time: the views that are kept, then those that are left out; decoding below."""
    names = [model.name for model in plan.models]
    kept, dropped = (
        [plan.images * add_seconds((one for one in passes if one.model == name), plan.seconds) / HOUR for name in names]
        for passes in (plan.kept, plan.dropped)
    )
    axes.barh(names, kept, 0.6, color=KEPT, label="kept")
    if plan.dropped:
        axes.barh(names, dropped, 0.6, left=kept, color=DROPPED, label="to leave out")
    axes.barh(["decoding"], [plan.images * plan.decoding / HOUR], 0.6, color=GREY)
    if plan.dropped:
        axes.legend(fontsize=8, frameon=False)
    axes.set_xlabel("hours", color=INK, fontsize=8)
    style_axes(axes)


def style_axes(axes: Axes) -> None:
    """Bars from the top down, thin grey axes, small figures."""
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=8, color=GREY, labelcolor=INK)
