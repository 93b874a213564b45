"""Estimated run time on an accelerator, per model, and the passes to drop if it exceeds the time limit."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inference.basics.errors import PackError
from inference.basics.run_log import format_seconds
from inference.images.geometry import read_geometry
from inference.manifest.file import read_manifest
from inference.manifest.labels import read_labels
from inference.manifest.records import Manifest
from inference.models.sessions import CPU, CUDA
from inference.run.budget import PLAN_MARGIN
from inference.run.plan import Pass, Plan, add_seconds, choose_passes, list_passes
from packing.accelerators import Accelerator, find_accelerator, find_rates
from packing.plan.count_models import count_models
from packing.plan.estimate import LOAD_SECONDS, estimate_decoding, estimate_seconds
from packing.plan.measured import Measured, read_measured
from packing.plan.memory import estimate_memory
from packing.plan.work import Work
from zoo.metrics.scoring import find_scoring


@dataclass(frozen=True)
class ModelPlan:
    """Estimate for one model."""

    name: str
    work: Work
    views: int
    seconds: float
    """Per view and image, on all devices together."""
    measured: bool
    """From a log instead of estimated."""
    value: float | None
    """Sum over its views; None if the manifest has no values."""


@dataclass(frozen=True)
class RunPlan:
    """Estimate for a run."""

    machine: str
    metric: str
    """Title of the metric of the task."""
    source: str
    """Where the rates come from."""
    images: int
    time_limit: float
    """Of the whole notebook, seconds."""
    reserve: float
    """Seconds of it kept for the notebook outside of the script."""
    models: tuple[ModelPlan, ...]
    decoding: float
    """Seconds per image outside its passes."""
    overlaps: bool
    """Decoding runs while a GPU works, so only the longer of both counts."""
    start: float
    """Seconds outside the images."""
    passes: Plan
    """Of all models."""
    kept: Plan
    """The passes that fit."""
    left_out: Mapping[str, str]
    """Models that are not in the estimate, with the reason."""
    memory: float
    """Bytes at the peak of a run of all models on the CPU."""

    @property
    def available(self) -> float:
        """Seconds that the script may take."""
        return self.time_limit - self.reserve

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds per view and image, by model."""
        return {model.name: model.seconds for model in self.models}

    @property
    def dropped(self) -> Plan:
        """The passes that do not fit, in the order to drop them: views first, then the lowest value per second."""
        out = [one for one in self.passes if one not in self.kept]
        return tuple(sorted(out, key=lambda one: (not one.spare, one.value / self.seconds[one.model])))

    def add_up(self, passes: Plan) -> float:
        """Return the seconds of the whole run with these passes."""
        working = add_seconds(passes, self.seconds)
        image = max(working, self.decoding) if self.overlaps else working + self.decoding
        return self.start + self.images * image

    def fits(self, passes: Plan) -> bool:
        """Return whether the run with these passes ends within the time limit less the reserve."""
        return self.add_up(passes) <= self.available


def make_plan(
    path: Path,
    accelerator: Accelerator,
    images: int | None = None,
    time_limit: float | None = None,
    precision: str | None = None,
    log: Path | None = None,
) -> RunPlan:
    """Plan a run of the models of the manifest at `path`.

    `images`: number of test images (default: the manifest's); `time_limit`: seconds (default: the manifest's);
    `precision`: default: the accelerator's fastest; `log`: a run_log.json, whose measured seconds replace the estimates
    of its models. Raises VitrineError.
    """
    precision, rates = find_rates(accelerator, precision)
    manifest = read_manifest(path)
    images = manifest.runtime.images if images is None else images
    if images is None:
        raise PackError(f"--images: missing; give the number of test images, or set `runtime.images` of {path}")
    if images < 1:
        raise PackError(f"--images: found {images}; wanted at least 1")
    if not manifest.models:
        raise PackError(f"{path}: `models`: found none; wanted at least one; add one with `build_kernel.py add`")
    measured = read_measured(log, CUDA if accelerator.devices else CPU) if log else None
    if measured:
        _check_models(manifest, measured, log)
    labels = read_labels(path.parent / manifest.labels.file, manifest.labels.groups)
    works, left_out = count_models(manifest, path.parent, labels)
    manifest = dataclasses.replace(manifest, models=tuple(one for one in manifest.models if one.name in works))
    passes, values = list_passes(manifest), manifest.ensemble.values
    models = []
    for model in manifest.models:
        work = works[model.name]
        estimated = estimate_seconds(work, rates, precision) / max(accelerator.devices, 1)
        seconds = measured.seconds.get(model.name) if measured else None
        value = sum(one.value for one in passes if one.model == model.name) if values else None
        models.append(ModelPlan(model.name, work, len(model.views), seconds or estimated, seconds is not None, value))
    decoding = estimate_decoding(map(read_geometry, manifest.models))
    decoding, start = (measured.overhead, measured.start) if measured else (decoding, LOAD_SECONDS * len(models))
    limit = manifest.runtime.choose_time_limit(time_limit)
    reserve = manifest.runtime.choose_reserve(limit)
    overlaps = accelerator.devices > 0 and measured is None
    seconds_of = {model.name: model.seconds for model in models}
    allowed = (limit - reserve - start) / images / PLAN_MARGIN - (0 if overlaps else decoding)
    return RunPlan(
        machine=f"{accelerator.name} in {precision}",
        source=f"from {log}; for models missing there, {rates.source}" if log else rates.source,
        metric=find_scoring(manifest.task).title,
        images=images,
        time_limit=limit,
        reserve=reserve,
        models=tuple(models),
        decoding=decoding,
        overlaps=overlaps,
        start=start,
        passes=passes,
        kept=choose_passes(passes, seconds_of, allowed),
        left_out=left_out,
        memory=estimate_memory(manifest, labels, [model.work for model in models], images),
    )


def describe_plan(plan: RunPlan) -> str:
    """Return the table, whether the run fits, and what to drop, as text."""
    width = max(len(model.name) for model in plan.models) + 2
    header = (
        f"{'model':{width}}{'G madds':>8}{'MB weights':>12}{'MB moved':>10}{'images/s':>10} {'views':>6}{'time':>10}"
    )
    lines = [f"{plan.images:,} images on {plan.machine}; rates {plan.source}", f"{header}{'value/hour':>12}"]
    for model in plan.models:
        seconds = model.seconds * model.views * plan.images
        value = "-" if model.value is None else f"{model.value / seconds * 3600:.5f}"
        lines.append(
            f"{model.name:{width}}{model.work.multiply_adds / 1e9:8.3f}{model.work.weights / 1e6:12.1f}"
            f"{model.work.moved / 1e6:10.1f}{1 / model.seconds:10.1f}{'*' if model.measured else ' '}{model.views:6}"
            f"{format_seconds(seconds):>10}{value:>12}"
        )
    decoding = "decoding, while the GPU works" if plan.overlaps else "decoding and overhead"
    rest = width + 8 + 12 + 10 + 10 + 7
    lines += [
        f"{decoding:{rest}}{format_seconds(plan.decoding * plan.images):>10}",
        f"{'start and end':{rest}}{format_seconds(plan.start):>10}",
        f"{'total':{rest}}{format_seconds(plan.add_up(plan.passes)):>10}",
    ]
    if any(model.measured for model in plan.models):
        lines.append("* measured, from the log")
    lines += [f"{name} is NOT in this estimate: {reason}" for name, reason in plan.left_out.items()]
    return "\n".join([*lines, _judge_memory(plan), *_judge(plan)])


def _judge_memory(plan: RunPlan) -> str:
    needed, most = plan.memory / 1e9, find_accelerator("CPU").memory
    if needed > most:
        return (
            f"peak memory about {needed:.1f} GB on the CPU, MORE THAN Kaggle's {most} GB; "
            "reduce `runtime.batch_size` or the models"
        )
    return f"peak memory about {needed:.1f} GB of Kaggle's {most} GB, on the CPU"


def _judge(plan: RunPlan) -> list[str]:
    needed = plan.add_up(plan.passes)
    limit = format_seconds(plan.time_limit)
    if plan.reserve:
        limit += f" less the notebook reserve of {format_seconds(plan.reserve)}"
    if plan.fits(plan.passes) and not plan.dropped:
        return [f"fits the time limit of {limit}, with {format_seconds(plan.available - needed)} to spare"]
    if plan.fits(plan.passes):
        lines = [f"fits the time limit of {limit} without the margin of {PLAN_MARGIN - 1:.0%} that the kernel keeps"]
    else:
        lines = [f"DOES NOT FIT the time limit of {limit}, by {format_seconds(needed - plan.available)}"]
    if plan.dropped:
        lines.append("drop, in this order:")
    lines += [
        f"  {one}  saves {format_seconds(plan.seconds[one.model] * plan.images)}{_describe_loss(plan, one)}"
        for one in plan.dropped
    ]
    rest = format_seconds(plan.add_up(plan.kept))
    if not plan.fits(plan.kept):
        seen = max(0, int(plan.images * (plan.available - plan.start) / (plan.add_up(plan.kept) - plan.start)))
        return [
            *lines,
            f"the run then takes {rest}: about {seen:,} images are predicted; the others get the prior labels",
        ]
    lost = sum(one.value for one in plan.dropped)
    known = any(model.value is not None for model in plan.models)
    expected = f" and loses about {lost:.4f} of the out-of-fold {plan.metric}, the sum of their values" if known else ""
    return [*lines, f"the run then takes {rest}{expected}"]


def _describe_loss(plan: RunPlan, one: Pass) -> str:
    known = any(model.value is not None for model in plan.models)
    return f", costs {one.value:.4f}" if known else ""


def _check_models(manifest: Manifest, measured: Measured, log: Path | None) -> None:
    names = [model.name for model in manifest.models]
    if not measured.seconds.keys() & set(names):
        raise PackError(
            f"{log}: `passes_per_second`: found {', '.join(measured.seconds) or 'no model'}; "
            f"wanted models of the manifest: {', '.join(names)}"
        )
