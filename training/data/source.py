"""The tables that a command learns from: the task, the labels and train.csv, of a zoo or of a competition's folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.manifest.file import read_manifest
from inference.manifest.labels import Labels, read_group_prefixes, read_labels
from inference.manifest.task import Task
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


def find_source(manifest: Path, data: Path) -> Source:
    """Return the zoo's own tables if train.csv lies beside its manifest, as `build_kernel.py init` writes them.

    Otherwise those of the folder `data`, with the task of the manifest, or that of iMet 2019 without a manifest. Raises
    ManifestError or LabelsError.
    """
    train = manifest.parent / "train.csv"
    if manifest.exists() and train.exists():
        zoo = open_zoo(manifest)
        return Source(zoo.manifest.task, zoo.labels, zoo.home / zoo.manifest.labels.file, train)
    task = read_manifest(manifest).task if manifest.exists() else Task()
    path = data / "labels.csv"
    return Source(task, read_labels(path, read_group_prefixes(path)), path, data / "train.csv")


def place_pictures(data: Path, table: Table) -> tuple[Path, Sequence[str] | None]:
    """Return the folder of the training images, and their files in it if the table names them; else they are ID.*."""
    return (data / "train", None) if table.images is None else (data, table.images)
