"""The tables that a command learns from: the task, the labels and train.csv, of a zoo or of a competition's folder."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.manifest.file import read_manifest
from inference.manifest.labels import Labels, read_group_prefixes, read_labels
from inference.manifest.task import Task
from inference.manifest.values import Mirror
from zoo.tables.out_of_fold import open_zoo
from zoo.tables.train_table import Table


@dataclass(frozen=True)
class Source:
    """The task, and where its tables lie."""

    task: Task
    labels: Labels
    labels_path: Path
    train: Path
    """train.csv."""
    exchanged: Mapping[Mirror, tuple[tuple[int, ...], ...]] = dataclasses.field(default_factory=dict)
    """`labels.exchanged` of the manifest."""


def find_source(manifest: Path, data: Path) -> Source:
    """Return the zoo's own tables if train.csv lies beside its manifest, as `build_kernel.py init` writes them.

    Otherwise those of the folder `data`, with the task of the manifest, or that of iMet 2019 without a manifest. Raises
    ManifestError or LabelsError.
    """
    train = manifest.parent / "train.csv"
    if manifest.exists() and train.exists():
        zoo = open_zoo(manifest)
        entry = zoo.manifest.labels
        return Source(zoo.manifest.task, zoo.labels, zoo.home / entry.file, train, entry.exchanged)
    path = data / "labels.csv"
    labels = read_labels(path, read_group_prefixes(path))
    if not manifest.exists():
        return Source(Task(), labels, path, data / "train.csv")
    known = read_manifest(manifest)
    return Source(known.task, labels, path, data / "train.csv", known.labels.exchanged)


def place_pictures(data: Path, table: Table) -> tuple[Path, Sequence[str] | None]:
    """Return the folder of the training images, and their files in it if the table names them; else they are ID.*."""
    return (data / "train", None) if table.images is None else (data, table.images)
