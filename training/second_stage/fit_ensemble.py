"""Fit the second stage of a zoo, export it, and declare it in the manifest."""

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from inference.basics.errors import TrainingError
from inference.basics.files import make_folder, replace_file
from inference.images.geometry import read_draft
from inference.manifest.file import write_manifest
from inference.manifest.labels import Labels
from inference.manifest.records import BLEND, Ensemble, Stacker, list_members
from training.second_stage.blend_weights import fit_weights
from training.second_stage.findings import Findings, describe_findings, judge_nested, measure_curves, slice_by_frequency
from training.second_stage.fitted import LayerSettings, fit_layers
from training.second_stage.judge import MIX, Rules, Weights, fit_rules, judge_methods, list_methods, mix_parts
from training.second_stage.member_scores import MemberScores, gather_scores, measure_evidence
from training.second_stage.member_values import divide_values, measure_members
from training.second_stage.page.render import write_ensemble_page
from training.second_stage.stackers.export_stackers import FOLDER, export_layers, name_parts
from zoo.out_of_fold import Zoo, open_zoo
from zoo.text import NAMED
from zoo.train_table import read_table

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
    labels = zoo.labels
    table = read_table(settings.train, labels)
    members = gather_scores(zoo, table)
    check_number(members, settings)
    print(describe_members(members, labels))
    if settings.images and settings.layers.trees:
        ids = [table.ids[row] for row in members.rows]
        members = measure_evidence(members, ids, settings.images, read_draft(zoo.manifest))
    nested = judge_methods(members, labels, settings.layers, settings.folds, print)
    methods = list_methods(settings.layers)
    mix = drop_small(
        fit_weights(nested.parts, {group: list(nested.parts) for group in labels.groups}, members.truth, labels)
    )
    scores = {BLEND: nested.parts[BLEND], methods[-1]: mix_parts(nested.parts, mix, labels)}
    rules = {name: fit_rules(part, members.truth, labels) for name, part in scores.items()}
    judged, decided = judge_nested(nested, methods)
    rule = max(decided, key=lambda one: one.f2).name
    layers = fit_layers(members, labels, settings.layers, "all images")
    values = measure_members(members, labels, nested, rule)
    found = partial(
        Findings,
        images=len(members.rows),
        folds=settings.folds,
        method=methods[-1],
        rule=rule,
        methods=judged,
        rules=decided,
        weights=layers.weights,
        mix=mix if methods[-1] == MIX else {},
        values=values,
        curves=measure_curves(scores[methods[-1]], nested.probabilities, members.truth, labels, rules[methods[-1]]),
        slices=slice_by_frequency({name: nested.predicted[name] for name in scores}, members.truth),
    )
    with replace_folder(zoo.home / FOLDER) as folder:
        stackers = export_layers(layers, mix, members, labels, folder)
        findings = found(parity={stacker.name: stacker.parity for stacker in stackers})
        write_figures(findings, folder / FIGURES)
        write_ensemble_page(findings, folder / PAGE)
    declare(zoo, layers.weights, stackers, mix, rules, rule, values)
    print(f"\n{describe_findings(findings)}\n\n{zoo.home / FOLDER / PAGE}")
    return findings


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


def describe_members(members: MemberScores, labels: Labels) -> str:
    """Describe the input, and name the labels without an image: stackers cannot learn them."""
    lines = [f"{len(members.names)} members, {len(members.rows)} images held out by all of them"]
    absent = [labels.names[column] for column in np.flatnonzero(~members.truth.any(axis=0))]
    if absent:
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


def declare(
    zoo: Zoo,
    weights: Weights,
    stackers: tuple[Stacker, ...],
    mix: Weights,
    rules: Mapping[str, Rules],
    rule: str,
    values: Mapping[str, float],
) -> None:
    """Write `ensemble` and `decision` of the manifest; `rules`: of the blend, then of the chosen method."""
    manifest = zoo.manifest
    members = list_members(manifest.models)
    spread = {
        group: {model.name: weight / len(members[name]) for name, weight in given.items() for model in members[name]}
        for group, given in weights.items()
    }
    named = name_parts(mix) if stackers else {}
    ensemble = Ensemble(spread, stackers, named, divide_values(values, manifest))
    decision = dataclasses.replace(
        list(rules.values())[-1].declare(rule),
        prior=manifest.decision.prior,
        fallback=rules[BLEND].stages[-1] if stackers else {},
    )
    write_manifest(dataclasses.replace(manifest, ensemble=ensemble, decision=decision), zoo.path)
