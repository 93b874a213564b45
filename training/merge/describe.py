"""The tables that `merge` prints: the models of all zoos, their common images, the mean of their second stages."""

from collections.abc import Sequence

import numpy as np

from inference.basics.errors import TrainingError
from inference.basics.files import read_text
from inference.manifest.file import verify_files
from inference.manifest.model import FEATURES, Model, name_member
from inference.manifest.task import Task
from training.merge.fit_shares import FittedMean
from training.merge.join_models import load_array
from training.merge.sources import Source
from training.scoring.scores import score_network
from zoo.metrics.scoring import find_scoring
from zoo.tables.out_of_fold import split_lines
from zoo.tables.train_table import Table

HEADER = ("zoo", "model", "member", "group", "images held out")


def describe_models(sources: Sequence[Source], table: Table | None) -> str:
    """Return a table of all models; with `table` also the out-of-fold metric of each model alone.

    Every prediction is out of fold for its own network, whatever the folds of the other zoos. Raises TrainingError: an
    image is missing in train.csv. Raises ManifestError: a file differs from its hash.
    """
    title = find_scoring(sources[0].zoo.manifest.task).title
    rows: list[list[str]] = [[*HEADER, *([title] if table else [])]]
    for source in sources:
        for index, model in enumerate(source.zoo.manifest.models):
            ids = read_ids(source, model, f"models[{index}]")
            names = [source.tag, source.rename(model.name), source.rename(name_member(model)), model.group]
            figure = [score_alone(source, model, f"models[{index}]", ids, table)] if table else []
            rows.append([*names, str(len(ids) or "-"), *figure])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(map(str.rstrip, lines))


def describe_common(sources: Sequence[Source], table: Table | None) -> str:
    """Return how many images each zoo held out and how many all of them did.

    Raises TrainingError: with `table`, an image is not in train.csv.
    """
    held = {
        source.tag: {
            image
            for index, model in enumerate(source.zoo.manifest.models)
            for image in read_ids(source, model, f"models[{index}]")
        }
        for source in sources
    }
    if table:
        known = set(table.ids)
        for source in sources:
            strange = min(held[source.tag] - known, default=None)
            if strange is not None:
                raise TrainingError(f"{source.zoo.path}: image {strange} is missing in train.csv; check --train")
    filled = {tag: ids for tag, ids in held.items() if ids}
    common = set.intersection(*filled.values()) if filled else set()
    parts = ", ".join(f"{tag} {len(ids)}" for tag, ids in filled.items()) or "no zoo any"
    return f"images held out: {parts}; by all of these {len(common)}"


def describe_mean(found: FittedMean, images: int, task: Task) -> str:
    """Return the figures of each second stage alone and of their means, and the weights."""
    scoring = find_scoring(task)
    width = max(map(len, found.figures))
    lines = [f"second stages on the {images} images that all held out; {scoring.title}, cross-fitted in halves:"]
    lines += [f"  {name.ljust(width)}  {figure:.4f}" for name, figure in found.figures.items()]
    lines += [
        f"  weights of {group}: " + ", ".join(f"{tag} {share:.3g}" for tag, share in given.items())
        for group, given in found.shares.items()
    ]
    return "\n".join([*lines, f"  decision: {found.rule}"])


def read_ids(source: Source, model: Model, key: str) -> tuple[str, ...]:
    """Return the images that a model held out; none without out-of-fold predictions."""
    if model.out_of_fold is None:
        return ()
    verify_files([(f"{key}.out_of_fold.ids", model.out_of_fold.ids)], source.zoo.home)
    return split_lines(read_text(source.zoo.home / model.out_of_fold.ids.file))


def score_alone(source: Source, model: Model, key: str, ids: Sequence[str], table: Table) -> str:
    """Return the out-of-fold metric of one model over the labels of its group; - where there is none."""
    if model.out_of_fold is None or model.group == FEATURES:
        return "-"
    match, task = source.match, source.zoo.manifest.task
    places = {image: place for place, image in enumerate(table.ids)}
    strange = next((image for image in ids if image not in places), None)
    if strange is not None:
        raise TrainingError(f"{source.zoo.path}: image {strange} is missing in train.csv; check --train")
    verify_files([(f"{key}.out_of_fold.scores", model.out_of_fold.scores)], source.zoo.home)
    columns = match.team.columns(model.group)
    path = source.zoo.home / model.out_of_fold.scores.file
    scores = load_array(path, len(columns))[:, list(match.order(model.group))].astype(np.float32)
    truth = table.targets[np.ix_([places[image] for image in ids], columns)]
    figures = score_network(scores, truth, match.team, model.group, task)
    return f"{next(iter(figures.values())):.4f}"
