"""Out-of-fold predictions from a zoo's checkpoints, if they were not kept or the views have changed."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from inference.basics.errors import TrainingError
from inference.images.geometry import read_draft
from inference.manifest.file import read_manifest, write_manifest
from inference.manifest.model import FEATURES, Model, OutOfFold
from training.data.material import print_skipped
from training.data.pictures import Pictures, check_pictures, find_pictures
from training.data.source import find_source, place_pictures
from training.fit.predict_views import describe_showing, predict_views
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
    """Models, or members with all their folds; none: all models."""
    folds: Path | None = None
    limit: int | None = None
    """The limit that the zoo was trained with."""
    allow_missing: bool = False
    workers: int = 1


def predict_zoo(settings: OofSettings) -> None:
    """Predict the held-out images of each model by its views; write and declare NAME.oof.npy and NAME.oof.ids.txt.

    Models for 'features' without a fold were trained on other images, so all images are predicted. The files lie beside
    the manifest, as after `fit`. A model's predictions are declared as soon as they are written. Raises VitrineError:
    an unknown name, a model without a fold or weights that torch can run.
    """
    zoo = open_zoo(settings.manifest)
    home, labels, task = zoo.home, zoo.labels, zoo.manifest.task
    chosen = find_models(zoo, settings.names) if settings.names else zoo.manifest.models
    for model in chosen:
        check_model(model, zoo.path, settings.data)
    table = read_table(find_source(zoo.path, settings.data).train, labels, task, settings.limit)
    has_folds = any(model.fold is not None for model in chosen)
    owners = read_folds(settings.folds or home / FOLDS_NAME, table.ids) if has_folds else None
    folder, names = place_pictures(settings.data, table)
    paths = find_pictures(folder, table.ids, settings.allow_missing, names)
    readable, faults = check_pictures(paths)
    print_skipped(paths, faults)
    pictures = Pictures(paths, draft=read_draft(zoo.manifest))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for model in chosen:
        name = model.name
        rows = np.flatnonzero(readable if model.fold is None else readable & (owners == model.fold))
        if not len(rows):
            raise TrainingError(f"model {name}: no readable image of train.csv in its fold {model.fold}; check --folds")
        module = open_network(model, home, labels).module.to(device)
        showing = describe_showing(model, zoo.manifest.activation_of(model), labels, zoo.manifest.labels.exchanged)
        scores = predict_views(module, showing, pictures, rows, device, BATCH_SIZE, settings.workers, name)
        dtype = zoo.manifest.score_dtype(model)
        write_out_of_fold(scores.astype(dtype), [table.ids[row] for row in rows], home, name)
        outputs = labels.count_outputs(model)
        declare_scores(
            settings.manifest, name, declare_out_of_fold(home / f"{name}.oof.npy", home, outputs, task, dtype)
        )


def check_model(model: Model, manifest: Path, data: Path) -> None:
    """Raise TrainingError if the held-out images of a model are not known, or torch cannot run it."""
    if model.fold is None and model.group != FEATURES:
        raise TrainingError(f"{manifest}: model {model.name}: `fold`: missing; add the fold that it held out")
    if model.layout is not None or model.checkpoint is None:
        found = "`checkpoint`: missing" if model.checkpoint is None else "`layout`: its checkpoint is an ONNX graph"
        raise TrainingError(
            f"{manifest}: model {model.name}: {found}, which oof cannot run; export and pack the zoo, run "
            f"`inference.pyz --images {data / 'train'} --predictions DIR`, and declare its predictions of held-out "
            "images with `build_kernel.py add --oof`"
        )


def declare_scores(path: Path, name: str, entry: OutOfFold) -> None:
    """Declare a model's predictions in the manifest at `path`, which another command may have extended meanwhile."""
    manifest = read_manifest(path)
    models = [
        dataclasses.replace(model, out_of_fold=entry) if model.name == name else model for model in manifest.models
    ]
    write_manifest(dataclasses.replace(manifest, models=tuple(models)), path)
