"""Fit the second stage of a zoo, export it, and declare it in the manifest."""

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import TrainingError
from inference.basics.files import make_folder, replace_file
from inference.images.geometry import read_draft
from inference.manifest.decision import Decision
from inference.manifest.file import write_manifest
from inference.manifest.labels import Labels
from inference.manifest.records import BLEND, Ensemble, Manifest, Stacker, list_members
from inference.manifest.task import Task
from training.scoring.rules import list_rules
from training.second_stage.findings import (
    Findings,
    Judged,
    find_confused,
    judge_all,
    judge_rules,
    measure_errors,
    measure_groups,
    measure_thresholds,
    slice_by_frequency,
)
from training.second_stage.fitted import RANKS, Layers, LayerSettings, Weights, fit_layers
from training.second_stage.judge import Nested, Rules, fit_all_rules, judge_methods, name_base, name_expected
from training.second_stage.member_scores import MemberScores, gather_scores, measure_evidence
from training.second_stage.member_values import divide_values, measure_members
from training.second_stage.methods import MIX, fit_mix, mix_parts
from training.second_stage.page.describe import describe_findings
from training.second_stage.page.render import write_ensemble_page
from training.second_stage.stackers.export_stackers import FOLDER, export_layers, name_parts
from training.second_stage.stackers.suited import choose_layers
from zoo.metrics.scoring import find_scoring, harden_truth
from zoo.tables.out_of_fold import Zoo, open_zoo
from zoo.tables.train_table import read_table
from zoo.text import NAMED

FIGURES, PAGE = "second_stage.json", "second_stage.html"
# In the mix of a group: a smaller weight is not worth the part's run time in the kernel.
SMALLEST_WEIGHT = 0.02


@dataclass(frozen=True)
class StageSettings:
    """Arguments of the command `ensemble`."""

    manifest: Path
    train: Path
    images: Path | None = None
    """Folder of the training images, from which the trees get the image traits."""
    folds: int = 3
    layers: LayerSettings = dataclasses.field(default_factory=LayerSettings)


def fit_second_stage(settings: StageSettings) -> Findings:
    """Judge every method out of fold, then fit the second stage to all images, export it and declare it.

    Prints the tables. Writes second_stage/ beside the manifest (the stackers, second_stage.json, second_stage.html),
    then `ensemble` and `decision` of the manifest, except the prior. Raises ManifestError, TableError or TrainingError;
    the manifest is then unchanged.
    """
    zoo = open_zoo(settings.manifest)
    labels, task = zoo.labels, zoo.manifest.task
    table = read_table(settings.train, labels, task)
    members = gather_scores(zoo, table)
    check_number(members, settings)
    print(describe_members(members, labels, task))
    chosen_layers, left_out = choose_layers(settings.layers, task, labels, len(members.rows), len(members.names))
    for part, reason in left_out.items():
        print(f"{part} is left out: {reason}")
    if settings.images and chosen_layers.trees:
        ids = [table.ids[row] for row in members.rows]
        places = [table.images[row] for row in members.rows] if table.images else None
        members = measure_evidence(members, ids, settings.images, read_draft(zoo.manifest), places)
    nested = judge_methods(members, labels, task, chosen_layers, settings.folds, print)
    layers = fit_layers(members, labels, task, chosen_layers, "all images")
    final = fit_final(nested, layers, members, labels, task)
    values = measure_members(members, labels, task, nested, final.method, final.rule)
    with replace_folder(zoo.home / FOLDER) as folder:
        stackers = export_layers(layers, final.mix, members, labels, folder)
        parity = {stacker.name: stacker.parity for stacker in stackers}
        found = gather_findings(final, nested, members, labels, task)
        findings = dataclasses.replace(found, left_out=left_out, values=values, parity=parity)
        write_figures(findings, folder / FIGURES)
        write_ensemble_page(findings, folder / PAGE)
    declare(zoo, stackers, final, values)
    print(f"\n{describe_findings(findings)}\n\n{zoo.home / FOLDER / PAGE}")
    return findings


@dataclass(frozen=True)
class Final:
    """The chosen method and rule, fitted to all images."""

    method: str
    rule: str
    methods: tuple[Judged, ...]
    """How they were chosen."""
    judged_rules: tuple[Judged, ...]
    weights: Weights
    """Of the members in the blend, of scores or of ranks."""
    scales: Mapping[str, tuple[float, ...]]
    """By member, its scores at equally spaced ranks; empty for a blend of scores."""
    mix: Weights
    """Of the parts; empty for a method that is no mix of scores."""
    scores: NDArray[np.float32]
    """Out of fold, (images, labels)."""
    rules: Mapping[str, Rules]
    """Of the blend and of `method`."""


def fit_final(nested: Nested, layers: Layers, members: MemberScores, labels: Labels, task: Task) -> Final:
    """Choose the method and the rule by the nested figures, and fit the mix and the rules to all images.

    The method is the mix, or the blend without stackers, or the mean of ranks if that is better. `layers`: fitted to
    all images.
    """
    judged = judge_all(nested, task)
    sign = 1 if find_scoring(task).higher_is_better else -1
    method = judged[-1].name
    if layers.ranks:
        figures = {one.name: sign * one.score for one in judged}
        method = RANKS if figures[RANKS] > figures[method] else method
    decided = judge_rules(nested, method, task)
    rule = max(decided, key=lambda one: sign * one.score).name
    weights, scales, mix = layers.weights, dict[str, tuple[float, ...]](), dict[str, dict[str, float]]()
    scores = {BLEND: nested.parts[BLEND]}
    if method == RANKS and layers.ranks:
        weights, scales, scores[method] = layers.ranks.weights, dict(layers.ranks.scales), nested.parts[RANKS]
    else:
        mix = drop_small(fit_mix(nested.parts, members, labels, task))
        scores[method] = mix_parts(nested.parts, mix, labels)
    rules = {name: fit_all_rules(part, members.truth, labels, task) for name, part in scores.items()}
    return Final(method, rule, judged, decided, weights, scales, mix, scores[method], rules)


def gather_findings(final: Final, nested: Nested, members: MemberScores, labels: Labels, task: Task) -> Findings:
    """Return the findings, without the stackers left out, the members' values and the parity."""
    scoring, richest = find_scoring(task), list_rules(task)[-1]
    truth, method = members.truth, final.method
    shown = {name: nested.selected[name] for name in (BLEND, method) if name in nested.selected}
    beta = task.metric.beta if task.metric.name == "f_beta" else 1.0
    exclusive = task.type == "multiclass" and method in shown
    return Findings(
        images=len(members.rows),
        folds=len(nested.outer),
        metric=scoring.title,
        higher_is_better=scoring.higher_is_better,
        is_mean=scoring.is_mean,
        method=method,
        rule=final.rule,
        richest=richest,
        base=name_base(task),
        expected=name_expected(task),
        methods=final.methods,
        rules=final.judged_rules,
        left_out={},
        weights=final.weights,
        mix=final.mix if method == MIX else {},
        values={},
        thresholds=measure_thresholds(final.scores, truth, labels, task, final.rules[method][richest]),
        reliability=measure_groups(nested.values, truth, labels, task),
        slices=slice_by_frequency(shown, harden_truth(truth, task), beta) if task.submission.holds_labels else None,
        slice_metric=f"F{beta:g}",
        confused=find_confused(shown[method], truth, labels) if exclusive else None,
        errors=measure_errors(nested.values, truth, task) if task.type == "regression" else None,
        parity={},
    )


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `folder` at the end, and is removed after a failure.

    So a failed fit keeps the files of the last fit, which the manifest still declares.
    """
    building = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(building, ignore_errors=True)
    make_folder(building)
    try:
        yield building
        shutil.rmtree(folder, ignore_errors=True)
        building.replace(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def check_number(members: MemberScores, settings: StageSettings) -> None:
    """Raise TrainingError for fewer than 2 folds, or fewer than 4 images per fold (2 per inner half)."""
    if settings.folds < 2:
        raise TrainingError(
            f"--folds: found {settings.folds}; wanted at least 2: one fold judges the fit to the others"
        )
    least = 4 * settings.folds
    if len(members.rows) < least:
        raise TrainingError(
            f"{settings.manifest}: found {len(members.rows)} images held out by all members; wanted thousands, and at "
            f"least {least} for {settings.folds} outer folds"
        )


def describe_members(members: MemberScores, labels: Labels, task: Task) -> str:
    """Describe the input, and name the labels without an image: stackers cannot learn them."""
    lines = [f"{len(members.names)} members, {len(members.rows)} images held out by all of them"]
    absent = [labels.names[column] for column in np.flatnonzero(~members.truth.any(axis=0))]
    if absent and task.has_probabilities:
        shown = ", ".join(absent[:NAMED]) + ", …" * (len(absent) > NAMED)
        lines.append(f"{len(absent)} labels have no image and keep the blend's score: {shown}")
    return "\n".join(lines)


def drop_small(mix: Weights) -> dict[str, dict[str, float]]:
    """Remove parts with a weight below SMALLEST_WEIGHT from the mix."""
    return {
        group: {name: weight for name, weight in weights.items() if weight >= SMALLEST_WEIGHT}
        for group, weights in mix.items()
    }


def write_figures(findings: Findings, path: Path) -> None:
    """Write the findings as JSON."""
    document = json.dumps(dataclasses.asdict(findings), indent=2, default=lambda array: array.tolist())
    with replace_file(path) as temporary:
        temporary.write_text(document + "\n", encoding="utf-8")


def declare(zoo: Zoo, stackers: tuple[Stacker, ...], final: Final, values: Mapping[str, float]) -> None:
    """Write `ensemble` and `decision` of the manifest."""
    manifest = zoo.manifest
    members = list_members(manifest.models)
    spread = {
        group: {model.name: weight / len(members[name]) for name, weight in given.items() for model in members[name]}
        for group, given in final.weights.items()
    }
    scales = {model.name: scale for name, scale in final.scales.items() for model in members[name]}
    mix = name_parts(final.mix) if stackers else {}
    ensemble = Ensemble(spread, stackers, mix, divide_values(values, manifest), scales)
    decision = declare_decision(manifest, final, has_stackers=bool(stackers))
    write_manifest(dataclasses.replace(manifest, ensemble=ensemble, decision=decision), zoo.path)


def declare_decision(manifest: Manifest, final: Final, *, has_stackers: bool) -> Decision:
    """Return the decision of the chosen rule, with the blend's numbers for a run in which a stacker fails.

    The prior is that of the manifest. Numbers and scores of which only the order counts have their mean instead, which
    is in the units of the chosen method.
    """
    task, kept = manifest.task, manifest.decision
    chosen = final.rules[final.method][final.rule]
    spare = final.rules[BLEND][list_rules(task)[-1] if task.selects_labels else final.rule]
    prior_scores = kept.prior_scores
    if chosen.rule == "number" or task.metric.name == "roc_auc":
        prior_scores = tuple(round(float(mean), 9) for mean in final.scores.mean(axis=0, dtype=np.float64))
    return dataclasses.replace(
        chosen,
        prior=kept.prior,
        prior_scores=prior_scores,
        fallback=spare.groups if has_stackers else {},
        fallback_fitted=spare.fitted if has_stackers and spare.fitted != chosen.fitted else None,
    )
