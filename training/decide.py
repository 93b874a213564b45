"""From a manifest's out-of-fold predictions to its `decision.groups`."""

import dataclasses
from pathlib import Path

from inference.manifest import check_coverage, write_manifest
from training.data import read_table
from training.decision import FittedDecision, cross_fit, fit_decision
from training.zoos import open_zoo, pool_blend


def decide_manifest(train: Path, manifest_path: Path) -> None:
    """Fit `decision.groups` of the manifest to the images that all models of its blend held out; print the F2.

    The F2 of each stage is fitted on the rows that it is reported on; the last figure is not. Nothing but
    `decision.groups` changes; models of weight 0 do not count. Raises ManifestError, TableError or TrainingError.
    """
    zoo = open_zoo(manifest_path)
    manifest, labels = zoo.manifest, zoo.labels
    check_coverage(manifest)
    table = read_table(train, labels)
    pool = pool_blend(zoo, table)
    scores, truth = pool.scores, table.targets[pool.rows]
    fitted = fit_decision(scores, truth, labels)
    decision = dataclasses.replace(manifest.decision, groups=fitted.groups)
    write_manifest(dataclasses.replace(manifest, decision=decision), manifest_path)
    print(describe_fit(fitted, cross_fit(scores, truth, labels), len(truth)))


def describe_fit(fitted: FittedDecision, crossed: float, images: int) -> str:
    """The F2 of each stage, the rules of the last, and the F2 of `cross_fit`, in lines."""
    stages = ("one threshold for all groups", "a threshold for each group", "and numbers of labels")
    lines = [f"F2 on {images} images, fitted to the same images:"]
    lines += [f"  {stage:<30}{f2:.4f}" for stage, f2 in zip(stages, fitted.f2, strict=True)]
    lines += [
        f"{group}: threshold {rule.threshold:g}, {rule.minimum} to {rule.maximum} labels"
        for group, rule in fitted.groups.items()
    ]
    lines.append(f"F2 of each half by rules fitted to the other: {crossed:.4f}")
    return "\n".join(lines)
