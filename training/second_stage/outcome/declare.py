"""The fitted second stage in the manifest, and its out-of-fold scores beside it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.basics.files import hash_file
from inference.manifest.decision import Decision
from inference.manifest.file import write_manifest
from inference.manifest.model import FileEntry, OutOfFold, list_members
from inference.manifest.records import BLEND, Ensemble, Manifest, Stacker
from inference.manifest.task import Task
from training.scoring.rules import list_rules
from training.second_stage.judge import Rules
from training.second_stage.member_values import divide_values
from training.second_stage.outcome.final import Final
from training.second_stage.stackers.export_stackers import FOLDER, name_parts
from zoo.fitted_for import hash_fitted
from zoo.tables.out_of_fold import Zoo, write_out_of_fold
from zoo.tables.train_table import Table

SCORES = "scores"


def write_scores(
    scores: NDArray[np.float32], rows: NDArray[np.int64], table: Table, folder: Path, task: Task
) -> OutOfFold:
    """Write the out-of-fold scores of a second stage to `folder`; return their entry, with files in FOLDER.

    `scores`: (images, labels); `rows`: the images, as indices in train.csv.
    """
    write_out_of_fold(scores.astype(task.score_dtype), [table.ids[row] for row in rows], folder, SCORES)
    entries = [
        FileEntry(f"{FOLDER}/{name}", hash_file(folder / name))
        for name in (f"{SCORES}.oof.npy", f"{SCORES}.oof.ids.txt")
    ]
    return OutOfFold(*entries)


def declare(
    zoo: Zoo, stackers: tuple[Stacker, ...], final: Final, values: Mapping[str, float], out_of_fold: OutOfFold
) -> None:
    """Write `ensemble` and `decision` of the manifest, with the hash of the models that they were fitted for.

    `values`: by member; `out_of_fold`: the scores of the second stage.
    """
    manifest = zoo.manifest
    members = list_members(manifest.models)
    spread = {
        group: {model.name: weight / len(members[name]) for name, weight in given.items() for model in members[name]}
        for group, given in final.weights.items()
    }
    scales = {model.name: scale for name, scale in final.scales.items() for model in members[name]}
    mix = name_parts(final.mix) if stackers else {}
    ensemble = Ensemble(
        weights=spread,
        stackers=stackers,
        mix=mix,
        values=divide_values(values, manifest),
        ranks=scales,
        fitted_for=hash_fitted(manifest),
        out_of_fold=out_of_fold,
    )
    chosen, spares = final.rules[final.method][final.rule], final.rules[BLEND] if stackers else None
    decision = declare_decision(manifest, chosen, spares, final.rule, final.scores)
    write_manifest(dataclasses.replace(manifest, ensemble=ensemble, decision=decision), zoo.path)


def declare_decision(
    manifest: Manifest, chosen: Decision, spares: Rules | None, rule: str, scores: NDArray[np.float32]
) -> Decision:
    """Return the decision `chosen`, of the name `rule`, with the blend's numbers for a run in which a stacker fails.

    `spares`: the rules of the blend, None if there is no stacker; `scores`: of the chosen method, (images, labels). The
    prior is that of the manifest. Numbers and scores of which only the order counts have their mean instead, which is
    in the units of the chosen method.
    """
    task, kept = manifest.task, manifest.decision
    prior_scores = kept.prior_scores
    if chosen.rule == "number" or task.metric.name == "roc_auc":
        prior_scores = tuple(round(float(mean), 9) for mean in scores.mean(axis=0, dtype=np.float64))
    spare = spares[list_rules(task)[-1] if task.selects_labels else rule] if spares else None
    return dataclasses.replace(
        chosen,
        prior=kept.prior,
        prior_scores=prior_scores,
        fallback=spare.groups if spare else {},
        fallback_fitted=spare.fitted if spare and spare.fitted != chosen.fitted else None,
    )
