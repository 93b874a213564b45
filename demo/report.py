"""Scores of the demo: of each model, of the blend, and of the submission."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo.report_groups import list_group_rows
from inference.basics.errors import ManifestError
from inference.basics.files import read_text
from inference.ensemble.blend import Scores, blend
from inference.ensemble.decide import decide
from inference.task.sample import read_sample
from zoo.edit import choose_decision
from zoo.metrics.scoring import find_scoring
from zoo.tables.out_of_fold import Zoo, open_zoo, read_out_of_fold, split_lines
from zoo.tables.submissions import read_matrix
from zoo.tables.train_table import Table, read_table

Row = tuple[str, Mapping[str, float]]
"""What was scored, and its figures by column."""


def print_report(manifest_path: Path, museum: Path, out: Path) -> None:
    """Print one line per model, and those of the blend and the submission: the metric of the test images.

    `museum`: the folder of write_museum; `out`: has submission.csv and predictions/. Of sets of labels, also each
    group's metric; each line's threshold is then fitted to out-of-fold predictions of training images, and the last
    line uses the thresholds of the manifest.
    """
    zoo = open_zoo(manifest_path)
    manifest, labels, task = zoo.manifest, zoo.labels, zoo.manifest.task
    ids = split_lines(read_text(out / "predictions" / "ids.txt"))
    truth = read_table(museum / "truth.csv", labels, task).order_targets(ids)
    sample = read_sample(museum / task.sample, task, labels)
    answers = read_matrix(out / "submission.csv", sample, labels, task)
    scores = {model.name: np.load(out / "predictions" / f"{model.name}.npy") for model in manifest.models}
    title, source = find_scoring(task).title, ""
    if task.selects_labels:
        held_out, own_scores = read_held_out(zoo, museum / "train.csv")
        rows = list_group_rows(zoo, truth, answers, scores, held_out.targets, own_scores)
        source = f"; thresholds from out-of-fold predictions of {len(held_out.ids)} training images"
    else:
        train = read_table(manifest_path.parent / "train.csv", labels, task)
        rows = list_rows(zoo, truth, answers, scores, train)
    log = json.loads((out / "run_log.json").read_text(encoding="utf-8"))
    views = "/".join(sorted({str(len(shown)) for shown in log["models"].values()}))
    print(f"{len(ids)} images, {len(log['models'])} models x {views} views, {log['images_per_second']} images/s")
    print(f"{title} of {len(ids)} test images{source}")
    print_rows(rows)


def print_rows(rows: list[Row]) -> None:
    """Print a table of figures; a single column has no head."""
    columns = tuple(dict.fromkeys(column for _, found in rows for column in found))
    if len(columns) > 1:
        print(f"{'':34}" + "".join(f"{column:>9}" for column in columns))
    for name, found in rows:
        cells = (f"{found[column]:9.4f}" if column in found else f"{'-':>9}" for column in columns)
        print(f"{name:34}" + "".join(cells))


def list_rows(
    zoo: Zoo, truth: NDArray[Any], answers: NDArray[Any], scores: Mapping[str, Scores], train: Table
) -> list[Row]:
    """Return the metric of each model and of the blend, decided by the plainest rule, and of the submission.

    `truth`, `answers`: (images, labels), of the test images and of the submission; `scores`: of each model.
    """
    scoring = find_scoring(zoo.manifest.task)
    plain = choose_decision(zoo.manifest.task, zoo.labels, train)
    alone = {f"{model.name}: {model.architecture}": scores[model.name] for model in zoo.manifest.models}
    figures = {
        name: scoring.score(decide(found, zoo.labels, plain), truth)
        for name, found in {**alone, "blend": blend(scores, zoo.manifest, zoo.labels)}.items()
    }
    figures["submission"] = scoring.score(answers, truth)
    return [(name, {scoring.title: figure}) for name, figure in figures.items()]


def read_held_out(zoo: Zoo, train: Path) -> tuple[Table, Mapping[str, Scores]]:
    """Read ids, targets and each model's predictions of the images that no model was trained on."""
    parts = [
        read_out_of_fold(model, f"models[{index}]", zoo.home, zoo.labels, zoo.manifest)
        for index, model in enumerate(zoo.manifest.models)
    ]
    for model, part in zip(zoo.manifest.models, parts, strict=True):
        if part.ids != parts[0].ids:
            raise ManifestError(f"model {model.name}: its out-of-fold ids differ from those of the models before it")
    targets = read_table(train, zoo.labels, zoo.manifest.task).order_targets(parts[0].ids)
    scores = {model.name: part.scores for model, part in zip(zoo.manifest.models, parts, strict=True)}
    return Table(parts[0].ids, targets), scores
