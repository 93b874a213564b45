"""Out-of-fold predictions made anew from a zoo's checkpoints: where they were not kept, or the views have changed."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from inference.basics.errors import TrainingError
from inference.images.geometry import read_draft, read_geometry
from inference.manifest.file import read_manifest, write_manifest
from training.data.folds import FOLDS_NAME, read_folds
from training.data.material import tell_left_out
from training.data.pictures import Pictures, check_pictures, find_pictures
from training.data.samples import SquareSamples
from training.fit.predict_views import predict_views
from zoo.edit import declare_out_of_fold
from zoo.networks import open_network
from zoo.out_of_fold import find_models, open_zoo, write_out_of_fold
from zoo.train_table import read_table

BATCH_SIZE = 64


@dataclasses.dataclass(frozen=True)
class OofSettings:
    """What `python -m training oof` was asked for.

    `names`: of models, of all folds where the fold is left out; without, all; `limit`: as the zoo was trained with.
    """

    manifest: Path
    data: Path
    names: Sequence[str] = ()
    folds: Path | None = None
    limit: int | None = None
    allow_missing: bool = False
    workers: int = 1


def predict_zoo(settings: OofSettings) -> None:
    """Predict with each model the images of its fold, by its views; write NAME.oof.npy and .ids.txt, declare them.

    Beside the manifest, as `fit` does. A model is declared as soon as its predictions are written. Raises VitrineError:
    an unknown name, a model without a fold or a checkpoint.
    """
    zoo = open_zoo(settings.manifest)
    home, labels = zoo.home, zoo.labels
    chosen = find_models(zoo, settings.names) if settings.names else zoo.manifest.models
    for model in chosen:
        if model.fold is None:
            raise TrainingError(f"model {model.name}: {zoo.path} does not say which fold it held out")
    table = read_table(settings.data / "train.csv", labels, settings.limit)
    owners = read_folds(settings.folds or home / FOLDS_NAME, table.ids)
    paths = find_pictures(settings.data / "train", table.ids, settings.allow_missing)
    readable, faults = check_pictures(paths)
    tell_left_out(paths, faults)
    pictures = Pictures(paths, draft=read_draft(zoo.manifest))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for model in chosen:
        name = model.name
        rows = np.flatnonzero(readable & (owners == model.fold))
        if not len(rows):
            raise TrainingError(f"model {name}: no readable image of train.csv is in its fold, {model.fold}")
        outputs = len(labels.columns(model.group))
        network = open_network(model, home, outputs)
        network.module.to(device)
        samples = SquareSamples(pictures, rows, read_geometry(model))
        scores = predict_views(network, samples, model.views, device, BATCH_SIZE, settings.workers, name)
        write_out_of_fold(scores, [table.ids[row] for row in rows], home, name)
        entry = declare_out_of_fold(home / f"{name}.oof.npy", home, outputs)
        manifest = read_manifest(settings.manifest)  # anew: another command may have added a model meanwhile
        models = [
            dataclasses.replace(other, out_of_fold=entry) if other.name == name else other for other in manifest.models
        ]
        write_manifest(dataclasses.replace(manifest, models=tuple(models)), settings.manifest)
