"""Out-of-fold predictions from a zoo's checkpoints, if they were not kept or the views have changed."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from inference.basics.errors import TrainingError
from inference.images.geometry import read_draft, read_geometry
from inference.manifest.file import read_manifest, write_manifest
from training.data.material import print_skipped
from training.data.pictures import Pictures, check_pictures, find_pictures
from training.data.samples import SquareSamples
from training.data.source import find_source, place_pictures
from training.fit.predict_views import predict_views
from zoo.edit import declare_out_of_fold
from zoo.networks import open_network
from zoo.tables.folds import FOLDS_NAME, read_folds
from zoo.tables.out_of_fold import find_models, open_zoo, write_out_of_fold
from zoo.tables.train_table import read_table

BATCH_SIZE = 64


@dataclasses.dataclass(frozen=True)
class OofSettings:
    """Settings of a run of `python -m training oof`."""

    manifest: Path
    data: Path
    """Folder of the images, and of train.csv if none lies beside the manifest."""
    names: Sequence[str] = ()
    """Models; a name without _f0, _f1 means all folds; none: all models."""
    folds: Path | None = None
    limit: int | None = None
    """The limit that the zoo was trained with."""
    allow_missing: bool = False
    workers: int = 1


def predict_zoo(settings: OofSettings) -> None:
    """Predict the held-out images of each model by its views; write and declare NAME.oof.npy and NAME.oof.ids.txt.

    The files lie beside the manifest, as after `fit`. A model's predictions are declared as soon as they are written.
    Raises VitrineError: an unknown name, a model without a fold or a checkpoint.
    """
    zoo = open_zoo(settings.manifest)
    home, labels = zoo.home, zoo.labels
    chosen = find_models(zoo, settings.names) if settings.names else zoo.manifest.models
    for model in chosen:
        if model.fold is None:
            raise TrainingError(f"{zoo.path}: model {model.name}: `fold`: missing; add the fold that it held out")
    task = zoo.manifest.task
    table = read_table(find_source(zoo.path, settings.data).train, labels, task, settings.limit)
    owners = read_folds(settings.folds or home / FOLDS_NAME, table.ids)
    folder, names = place_pictures(settings.data, table)
    paths = find_pictures(folder, table.ids, settings.allow_missing, names)
    readable, faults = check_pictures(paths)
    print_skipped(paths, faults)
    pictures = Pictures(paths, draft=read_draft(zoo.manifest))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for model in chosen:
        name = model.name
        rows = np.flatnonzero(readable & (owners == model.fold))
        if not len(rows):
            raise TrainingError(f"model {name}: no readable image of train.csv in its fold {model.fold}; check --folds")
        outputs = len(labels.columns(model.group))
        network = open_network(model, home, outputs)
        network.module.to(device)
        samples = SquareSamples(pictures, rows, read_geometry(model))
        scores = predict_views(
            network, samples, task.activation, model.views, device, BATCH_SIZE, settings.workers, name
        )
        write_out_of_fold(scores, [table.ids[row] for row in rows], home, name, task)
        entry = declare_out_of_fold(home / f"{name}.oof.npy", home, outputs, task)
        manifest = read_manifest(settings.manifest)  # read again: another command may have added a model
        models = [
            dataclasses.replace(other, out_of_fold=entry) if other.name == name else other for other in manifest.models
        ]
        write_manifest(dataclasses.replace(manifest, models=tuple(models)), settings.manifest)
