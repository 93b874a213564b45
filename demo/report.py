"""How well the museum's bundle did: F2 of each model, of the blend, and with the manifest's thresholds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import fbeta_score

from inference.blend import blend
from inference.decide import decide
from inference.decisions import Decision, GroupDecision
from inference.errors import ManifestError
from inference.labels import Labels, read_labels
from inference.manifest import ALL, Manifest, read_manifest
from inference.tables import parse_label_ids, read_columns

THRESHOLDS = np.arange(0.04, 0.8, 0.02)

Scores = NDArray[np.floating[Any]]
Truth = NDArray[np.bool_]


def print_report(manifest_path: Path, museum: Path, out: Path) -> None:
    """A line a model and two for the blend: F2 over all labels and over each group's.

    `museum`: the folder of write_museum; `out`: holds submission.csv and predictions/. One threshold each is chosen on
    the out-of-fold predictions of training exhibits; F2 is of test exhibits, against their truth.
    """
    manifest = read_manifest(manifest_path)
    labels = read_labels(manifest_path.parent / manifest.labels.file, manifest.labels.groups)
    ids = (out / "predictions" / "ids.txt").read_text(encoding="utf-8").split()
    truth = read_truth(museum / "truth.csv", ids, labels)
    taken = read_truth(out / "submission.csv", ids, labels)
    scores = {model.name: np.load(out / "predictions" / f"{model.name}.npy") for model in manifest.models}
    noted, own_ids, own_scores = read_out_of_fold(manifest, manifest_path.parent, museum / "train.csv", labels)

    rows = []
    for model in manifest.models:
        threshold = fit_threshold(own_scores[model.name], noted, model.group, labels)
        rows.append(
            (
                f"{model.name}: {model.architecture}",
                score_groups(scores[model.name], truth, threshold, model.group, labels),
            )
        )
    threshold = fit_threshold(blend(own_scores, manifest, labels), noted, ALL, labels)
    rows.append(("blend, one threshold", score_groups(blend(scores, manifest, labels), truth, threshold, ALL, labels)))
    rows.append(("blend, a threshold a group", score_taken(taken, truth, ALL, labels)))
    columns = (ALL, *labels.groups)
    log = json.loads((out / "run_log.json").read_text(encoding="utf-8"))
    views = "/".join(sorted({str(len(shown)) for shown in log["models"].values()}))
    print(f"{len(ids)} images, {len(log['models'])} models x {views} views, {log['images_per_second']} images/s")
    print(f"F2 of {len(ids)} test exhibits; thresholds from {len(own_ids)} training exhibits, out of fold")
    print(f"{'':34}" + "".join(f"{column:>9}" for column in columns))
    for name, found in rows:
        cells = (f"{found[column]:9.4f}" if column in found else f"{'-':>9}" for column in columns)
        print(f"{name:34}" + "".join(cells))


def read_truth(path: Path, ids: Sequence[str], labels: Labels) -> Truth:
    """The labels of a CSV as (images, labels), in the order of `ids`."""
    given = {image_id: parse_label_ids(cell) for image_id, cell in read_columns(path, ("id", "attribute_ids"))}
    columns = {label: column for column, label in enumerate(labels.ids)}
    truth = np.zeros((len(ids), len(labels.ids)), np.bool_)
    for row, image_id in enumerate(ids):
        truth[row, [columns[label] for label in given[image_id]]] = True
    return truth


def read_out_of_fold(
    manifest: Manifest, home: Path, train: Path, labels: Labels
) -> tuple[Truth, list[str], Mapping[str, Scores]]:
    """Labels, ids and each model's predictions of the exhibits that no model was trained on."""
    scores: dict[str, Scores] = {}
    ids: list[str] = []
    for model in manifest.models:
        if model.out_of_fold is None:
            raise ManifestError(f"model {model.name} has no out-of-fold predictions; add it again with --oof")
        own = (home / model.out_of_fold.ids.file).read_text(encoding="utf-8").split()
        if ids and own != ids:
            raise ManifestError(f"model {model.name} was held out of other exhibits than the models before it")
        ids = own
        scores[model.name] = np.load(home / model.out_of_fold.scores.file)
    return read_truth(train, ids, labels), ids, scores


def fit_threshold(scores: Scores, truth: Truth, group: str, labels: Labels) -> float:
    """The one threshold of highest F2 over the labels of a model's group."""
    return float(max(THRESHOLDS, key=lambda one: score_groups(scores, truth, one, group, labels)[group]))


def score_groups(scores: Scores, truth: Truth, threshold: float, group: str, labels: Labels) -> dict[str, float]:
    """F2 at one threshold; `scores`: (images, labels of the group)."""
    whole = np.zeros(truth.shape, np.float32)
    whole[:, labels.columns(group)] = scores
    rule = GroupDecision(threshold, 0, len(labels.ids))
    return score_taken(
        decide(whole, labels, Decision(dict.fromkeys(labels.groups, rule), labels.ids[:1])), truth, group, labels
    )


def score_taken(taken: Truth, truth: Truth, group: str, labels: Labels) -> dict[str, float]:
    """F2 over a model's group and, for 'all', over each; images without a true label of a group do not count in it."""
    found = {}
    for part in (ALL, *labels.groups) if group == ALL else (group,):
        columns = list(labels.columns(part))
        rows = truth[:, columns].any(axis=1)
        wanted, given = truth[rows][:, columns], taken[rows][:, columns]
        found[part] = float(fbeta_score(wanted, given, beta=2, average="samples", zero_division=0))
    return found
