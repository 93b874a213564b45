"""Bar chart of a plan: the whole and the reduced run against the time limit, and the time of each model."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inference.basics.files import make_folder, replace_file
from inference.run.plan import Plan
from packing.plan.run_plan import RunPlan
from zoo.plots import GREY, INK, style_axes

KEPT, DROPPED = "#3b6ea5", "#d9a441"
ROW = 0.3  # inches
UNITS = {"hours": 3600.0, "minutes": 60.0}
SHORT = 2 * 3600  # seconds; shorter times are shown in minutes


def draw_plan(plan: RunPlan, path: Path) -> None:
    """Write the chart as a PNG, atomically. Raises OutputError."""
    rows, bars = len(plan.models) + 1, 2 if plan.dropped else 1
    figure = Figure(figsize=(9, ROW * (rows + bars) + 1.9), dpi=120, layout="constrained")
    whole, each = figure.subplots(2, 1, height_ratios=[bars, rows])
    figure.suptitle(f"{plan.images:,} images on {plan.machine}", color=INK, fontsize=11)
    draw_whole(whole, plan)
    draw_models(each, plan)
    make_folder(path.parent)
    with replace_file(path) as temporary:
        figure.savefig(temporary, format="png")


def draw_whole(axes: Axes, plan: RunPlan) -> None:
    """Draw the run with all passes, and with the kept passes, against the time limit."""
    bars = {"all models": (plan.passes, DROPPED), "kept": (plan.kept, KEPT)}
    if not plan.dropped:
        bars = {"all models": (plan.passes, KEPT)}
    unit = choose_unit(max(plan.available, plan.add_up(plan.passes)))
    seconds = [plan.add_up(passes) for passes, _ in bars.values()]
    axes.barh(
        list(bars), [spent / UNITS[unit] for spent in seconds], 0.6, color=[colour for _, colour in bars.values()]
    )
    limit = plan.available / UNITS[unit]
    axes.axvline(limit, color=INK, linewidth=1.5)
    axes.annotate(" limit", (limit, 1), xycoords=("data", "axes fraction"), color=INK, fontsize=8, va="bottom")
    list_bars(axes, len(bars), unit)


def draw_models(axes: Axes, plan: RunPlan) -> None:
    """Draw the time of each model, kept views first and dropped views after them; below, the time of decoding."""
    names = [model.name for model in plan.models]
    kept, dropped = ([add_up_model(plan, passes, name) for name in names] for passes in (plan.kept, plan.dropped))
    decoding = plan.images * plan.decoding
    unit = choose_unit(max(decoding, *map(sum, zip(kept, dropped, strict=True))))
    axes.barh(names, [spent / UNITS[unit] for spent in kept], 0.6, color=KEPT, label="kept")
    if plan.dropped:
        start = [spent / UNITS[unit] for spent in kept]
        axes.barh(names, [spent / UNITS[unit] for spent in dropped], 0.6, start, color=DROPPED, label="dropped")
        axes.figure.legend(loc="outside lower right", ncols=2, fontsize=8, frameon=False)
    axes.barh([" decoding"], [decoding / UNITS[unit]], 0.6, color=GREY)  # no model's name has a space
    list_bars(axes, len(names) + 1, unit)


def add_up_model(plan: RunPlan, passes: Plan, name: str) -> float:
    """Return the seconds of the run for one model's passes."""
    return plan.images * sum(plan.seconds[name] for one in passes if one.model == name)


def choose_unit(longest: float) -> str:
    """Choose the unit for times of up to `longest` seconds."""
    return "hours" if longest >= SHORT else "minutes"


def list_bars(axes: Axes, bars: int, unit: str) -> None:
    """Order the bars from the top down; label the axis with `unit`."""
    axes.set_ylim(bars - 0.5, -0.5)
    axes.set_xlabel(unit, color=INK, fontsize=8)
    style_axes(axes)
