"""The command slices: the metric of each model and of the blend, by parts of the images and labels."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from inference.basics.files import replace_file
from inference.manifest.labels import Labels
from inference.manifest.model import ALL, FEATURES, list_members
from inference.manifest.references import check_coverage
from inference.manifest.task import Task
from training.pages.slices.figures import Judged, ModelFigures, Slices
from training.pages.slices.labels import measure_labels, slice_frequencies, slice_values
from training.pages.slices.mistakes import count_confusions, list_confusions, plot_confusions, plot_values
from training.pages.slices.shapes import measure_sizes, slice_shapes
from training.pages.slices.sheets import format_sheets, list_sheets
from training.scoring.rules import decide_crossed
from training.scoring.scores import find_rows, summarise_kind
from zoo.metrics.scoring import find_scoring, harden_truth
from zoo.tables.out_of_fold import PooledScores, Zoo, open_zoo, pool_blend, pool_models
from zoo.tables.train_table import Table, read_table
from zoo.text import render_template

TEMPLATE = Path(__file__).parent.with_name("slices.html.jinja")
BLEND = "blend"


def print_slices(
    train: Path, images: Path, manifest: Path, json_path: Path | None = None, page: Path | None = None
) -> None:
    """Print the metric of each model and of the blend, and the blend's by image shape, label frequency and group.

    From out-of-fold predictions; each half of the images is decided by rules fitted to the other half. `images`: folder
    of the images, the competition's if train.csv names their files. `json_path`: also write the figures there; `page`:
    also write an HTML page, with the confusion matrix of classes or the scatter of numbers. Raises ManifestError,
    TableError, TrainingError or OutputError.
    """
    zoo = open_zoo(manifest)
    check_coverage(zoo.manifest)
    task, labels = zoo.manifest.task, zoo.labels
    table = read_table(train, labels, task)
    blend = pool_blend(zoo, table)
    if blend.models.min() < blend.models.max():
        print(f"{manifest}: {blend.describe_models()}")
    ids = [table.ids[row] for row in blend.rows]
    files = None if table.images is None else [table.images[row] for row in blend.rows]
    sizes, faults = measure_sizes(images, ids, files)
    truth, scoring = table.targets[blend.rows], find_scoring(task)
    answers = decide_crossed(blend.scores, truth, labels, task)
    whole = Judged(scoring, np.arange(len(truth)), scoring.summarise(answers, truth))
    judged = {
        kind: whole if kind == ALL else judge_images(blend, table, labels, kind, task) for kind in blend.kinds(labels)
    }
    multiclass, several = task.type == "multiclass", len(labels.ids) > 1
    counts = count_confusions(answers, truth) if multiclass else np.zeros((0, 0), np.int64)
    slices = Slices(
        scoring.title,
        [
            *measure_models(zoo, table, blend),
            ModelFigures(BLEND, ALL, None, len(truth), True, {kind: part.score() for kind, part in judged.items()}),
        ],
        slice_shapes(sizes, judged),
        slice_frequencies(answers, truth, harden_truth(table.targets, task).sum(axis=0), task) if several else [],
        [
            measure_labels(group, list(columns), answers, truth, task)
            for group, columns in labels.groups.items()
            if len(labels.groups) > 1
        ],
        slice_values(answers, truth, task) if task.type == "regression" else [],
        list_confusions(counts, labels) if multiclass else [],
    )
    if json_path is not None:
        with replace_file(json_path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(slices), indent=2) + "\n", encoding="utf-8")
    sheets = list_sheets(slices, faults)
    if page is not None:
        plots = {"matrix": plot_confusions(counts, labels) if multiclass else None}
        plots["scatter"] = plot_values(answers, truth, task, labels.names[0]) if task.type == "regression" else None
        text = render_template(TEMPLATE, title=task.competition, metric=scoring.title, sheets=sheets, plots=plots)
        with replace_file(page) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    print(format_sheets(sheets))


def measure_models(zoo: Zoo, table: Table, blend: PooledScores) -> list[ModelFigures]:
    """Measure each member of the manifest, over all its folds; without out-of-fold predictions, it has no figure.

    Members for 'features' are left out: their outputs are no labels.
    """
    from tqdm import tqdm

    members = list_members(model for model in zoo.manifest.models if model.group != FEATURES)
    found = []
    for name, models in tqdm(members.items(), "fitting rules", mininterval=1):
        shown = (name, models[0].group, models[0].image_size)
        held_out = [model for model in models if model.out_of_fold is not None]
        if not held_out:
            found.append(ModelFigures(*shown, 0, False, {}))
            continue
        pool = pool_models(zoo, table, held_out)
        figures = {
            kind: judge_images(pool, table, zoo.labels, kind, zoo.manifest.task).score()
            for kind in pool.kinds(zoo.labels)
        }
        found.append(ModelFigures(*shown, len(pool.rows), np.array_equal(pool.rows, blend.rows), figures))
    return found


def judge_images(pool: PooledScores, table: Table, labels: Labels, kind: str, task: Task) -> Judged:
    """Summarise the images that count for one kind of labels, with cross-fitted rules."""
    truth = table.targets[pool.rows]
    rows = np.arange(len(truth)) if kind == ALL else find_rows(truth[:, labels.columns(kind)], task)
    return Judged(find_scoring(task), rows, summarise_kind(pool.scores, truth, labels, kind, task))
