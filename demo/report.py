"""F2 of the demo: of each model, of the blend, and of the submission."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import ManifestError
from inference.ensemble.blend import Scores, blend
from inference.ensemble.decide import decide
from inference.manifest.labels import Labels
from inference.manifest.records import ALL, Decision, GroupDecision
from zoo.f2 import score_samples
from zoo.out_of_fold import Zoo, open_zoo, read_out_of_fold
from zoo.train_table import read_table

THRESHOLDS = np.arange(0.04, 0.8, 0.02)

Truth = NDArray[np.bool_]


def print_report(manifest_path: Path, museum: Path, out: Path) -> None:
    """Print one line per model and two for the blend: F2 over all labels and over each group.

    `museum`: the folder of write_museum; `out`: has submission.csv and predictions/. Each line's threshold is fitted to
    out-of-fold predictions of training images; the last line uses the thresholds of the manifest. F2 is of test images.
    """
    zoo = open_zoo(manifest_path)
    manifest, labels = zoo.manifest, zoo.labels
    ids = (out / "predictions" / "ids.txt").read_text(encoding="utf-8").split()
    truth = read_table(museum / "truth.csv", labels).order_targets(ids)
    selected = read_table(out / "submission.csv", labels).order_targets(ids)
    scores = {model.name: np.load(out / "predictions" / f"{model.name}.npy") for model in manifest.models}
    annotated, own_ids, own_scores = read_held_out(zoo, museum / "train.csv")

    rows = []
    for model in manifest.models:
        threshold = fit_threshold(own_scores[model.name], annotated, model.group, labels)
        rows.append(
            (
                f"{model.name}: {model.architecture}",
                score_groups(scores[model.name], truth, threshold, model.group, labels),
            )
        )
    threshold = fit_threshold(blend(own_scores, manifest, labels), annotated, ALL, labels)
    rows.append(("blend, one threshold", score_groups(blend(scores, manifest, labels), truth, threshold, ALL, labels)))
    rows.append(("blend, one threshold per group", score_selected(selected, truth, ALL, labels)))
    columns = (ALL, *labels.groups)
    log = json.loads((out / "run_log.json").read_text(encoding="utf-8"))
    views = "/".join(sorted({str(len(shown)) for shown in log["models"].values()}))
    print(f"{len(ids)} images, {len(log['models'])} models x {views} views, {log['images_per_second']} images/s")
    print(f"F2 of {len(ids)} test images; thresholds from out-of-fold predictions of {len(own_ids)} training images")
    print(f"{'':34}" + "".join(f"{column:>9}" for column in columns))
    for name, found in rows:
        cells = (f"{found[column]:9.4f}" if column in found else f"{'-':>9}" for column in columns)
        print(f"{name:34}" + "".join(cells))


def read_held_out(zoo: Zoo, train: Path) -> tuple[Truth, tuple[str, ...], Mapping[str, Scores]]:
    """Read targets, ids and each model's predictions of the images that no model was trained on."""
    parts = [
        read_out_of_fold(model, f"models[{index}]", zoo.home, zoo.labels)
        for index, model in enumerate(zoo.manifest.models)
    ]
    for model, part in zip(zoo.manifest.models, parts, strict=True):
        if part.ids != parts[0].ids:
            raise ManifestError(f"model {model.name}: its out-of-fold ids differ from those of the models before it")
    targets = read_table(train, zoo.labels).order_targets(parts[0].ids)
    scores = {model.name: part.scores for model, part in zip(zoo.manifest.models, parts, strict=True)}
    return targets, parts[0].ids, scores


def fit_threshold(scores: Scores, truth: Truth, group: str, labels: Labels) -> float:
    """Return the threshold of highest F2 over the labels of a model's group."""
    return float(max(THRESHOLDS, key=lambda one: score_groups(scores, truth, one, group, labels)[group]))


def score_groups(scores: Scores, truth: Truth, threshold: float, group: str, labels: Labels) -> dict[str, float]:
    """Return the F2 at one threshold, as `score_selected`; `scores`: (images, labels of the group)."""
    whole = np.zeros(truth.shape, np.float32)
    whole[:, labels.columns(group)] = scores
    rule = GroupDecision(threshold, 0, len(labels.ids))
    selected = decide(whole, labels, Decision(dict.fromkeys(labels.groups, rule), prior={}))
    return score_selected(selected, truth, group, labels)


def score_selected(selected: Truth, truth: Truth, group: str, labels: Labels) -> dict[str, float]:
    """Return the F2 over a group, for 'all' also over each group; ignores images without a true label of the group."""
    found = {}
    for part in (ALL, *labels.groups) if group == ALL else (group,):
        columns = list(labels.columns(part))
        rows = truth[:, columns].any(axis=1)
        found[part] = float(score_samples(selected[rows][:, columns], truth[rows][:, columns]).mean())
    return found
