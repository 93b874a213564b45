"""Fit the second stage of a zoo, export it, and declare it in the manifest."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inference.basics.errors import TrainingError
from inference.basics.files import make_folder, replace_file
from inference.images.geometry import read_draft
from inference.manifest.labels import Labels
from inference.manifest.records import BLEND
from inference.manifest.task import Task
from training.scoring.rules import list_rules
from training.second_stage.findings import (
    Findings,
    find_confused,
    measure_errors,
    measure_groups,
    measure_thresholds,
    slice_by_frequency,
)
from training.second_stage.fitted import LayerSettings, fit_layers
from training.second_stage.inputs.coverage import describe_members, list_inputs, list_split_members, list_unread_groups
from training.second_stage.judge import Nested, judge_methods, name_base, name_expected
from training.second_stage.member_scores import MemberScores, gather_scores, measure_evidence
from training.second_stage.member_values import measure_features, measure_members
from training.second_stage.methods import MIX
from training.second_stage.outcome.declare import declare, write_scores
from training.second_stage.outcome.final import Final, fit_final
from training.second_stage.page.describe import describe_findings
from training.second_stage.page.render import write_ensemble_page
from training.second_stage.stackers.export_stackers import FOLDER, export_layers
from training.second_stage.stackers.suited import choose_layers
from zoo.metrics.scoring import find_scoring, harden_truth
from zoo.tables.out_of_fold import open_zoo
from zoo.tables.train_table import read_table

FIGURES, PAGE = "second_stage.json", "second_stage.html"


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

    Prints the tables. Writes second_stage/ beside the manifest (the stackers, second_stage.json, second_stage.html, the
    out-of-fold scores), then `ensemble` and `decision` of the manifest, except the prior. An earlier second stage, that
    of a merged zoo too, is replaced and may be outdated. Raises ManifestError, TableError or TrainingError;
    the manifest is then unchanged.
    """
    zoo = open_zoo(settings.manifest)
    labels, task = zoo.labels, zoo.manifest.task
    table = read_table(settings.train, labels, task)
    members = gather_scores(zoo, table)
    check_number(members, settings)
    unread = list_unread_groups(members, labels)
    chosen_layers, left_out = choose_layers(
        settings.layers, task, labels, len(members.rows), len(members.stacked), unread
    )
    inputs = list_inputs(members, chosen_layers)
    print(describe_members(members, inputs, labels, task))
    for names in list_split_members(zoo.manifest.models):
        print(
            f"note: {', '.join(names)} look like folds of one network, but each is a member of its own; declare the "
            "same `member` in their entries to join them"
        )
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
    lost = measure_features(members, nested, final.mix, final.method, final.rule, task)
    values |= {name: lost if name in members.stacked_features else 0.0 for name in members.features}
    with replace_folder(zoo.home / FOLDER) as folder:
        stackers = export_layers(layers, final.mix, members, labels, folder)
        parity = {stacker.name: stacker.parity for stacker in stackers}
        found = gather_findings(final, nested, members, labels, task)
        findings = dataclasses.replace(found, members=inputs, left_out=left_out, values=values, parity=parity)
        write_figures(findings, folder / FIGURES)
        write_ensemble_page(findings, folder / PAGE)
        out_of_fold = write_scores(final.scores, members.rows, table, folder, task)
    declare(zoo, stackers, final, values, out_of_fold)
    print(f"\n{describe_findings(findings)}\n\n{zoo.home / FOLDER / PAGE}")
    return findings


def gather_findings(final: Final, nested: Nested, members: MemberScores, labels: Labels, task: Task) -> Findings:
    """Return the findings, without the table of members, the stackers left out, the members' values and the parity."""
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
        members=(),
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
            f"{settings.manifest}: found {len(members.rows)} images with out-of-fold scores for every group; wanted "
            f"thousands, and at least {least} for {settings.folds} outer folds"
        )


def write_figures(findings: Findings, path: Path) -> None:
    """Write the findings as JSON."""
    document = json.dumps(dataclasses.asdict(findings), indent=2, default=lambda array: array.tolist())
    with replace_file(path) as temporary:
        temporary.write_text(document + "\n", encoding="utf-8")
