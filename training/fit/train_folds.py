"""The training of a recipe, fold by fold: checkpoints, out-of-fold predictions and manifest entries."""

import dataclasses
import hashlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from numpy.typing import NDArray

from inference.basics.errors import TrainingError
from inference.basics.files import make_folder
from inference.images.geometry import Geometry
from inference.manifest.file import MANIFEST_NAME, verify_files
from inference.manifest.labels import read_labels
from inference.manifest.records import Model
from training.data.material import FitSettings, Material, prepare_material
from training.data.pictures import Pictures
from training.data.samples import SquareSamples, TrainingSamples
from training.fit.distil import AttentionTransfer, load_teacher
from training.fit.initial import start_network
from training.fit.loop import Course, train_network
from training.fit.predict_views import predict_views
from training.fit.progress import Report
from training.fit.weights import round_weights
from training.recipe import Recipe, name_fold, read_recipe
from training.scoring.scores import describe_f2, score_network
from zoo.checkpoints import write_checkpoint
from zoo.edit import append_model, declare_file, declare_out_of_fold, open_manifest
from zoo.networks import Network, create_network
from zoo.out_of_fold import write_out_of_fold


def fit(settings: FitSettings) -> None:
    """Train one network per fold of the recipe, and declare each with its out-of-fold predictions in the manifest.

    Writes into `settings.out`: NAME_fK.safetensors, .oof.npy, .oof.ids.txt and .metrics.csv per fold, labels.csv,
    folds.csv, weights_manifest.json, cache/ and tensorboard/. Out-of-fold predictions use the weights of the
    checkpoint, as rounded. An interrupted training leaves NAME_fK.state for `resume`. Raises VitrineError.
    """
    recipe = read_recipe(settings.recipe)
    # Other processes wait while one predicts; torch's default limit is ten minutes.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        gradient_accumulation_steps=recipe.accumulate,
        kwargs_handlers=[patience],
    )
    make_folder(settings.out)
    with accelerator.main_process_first():  # it makes the cache and folds for the others
        material = prepare_material(settings, recipe)
    folds = choose_folds(settings, recipe, material.owners)
    wanted = [fold for fold in folds if not is_fitted(settings, recipe, fold)]
    for fold in wanted:
        fit_fold(settings, recipe, material, fold, accelerator)
        accelerator.free_memory()
        accelerator.wait_for_everyone()


def choose_folds(settings: FitSettings, recipe: Recipe, owners: NDArray[np.int64]) -> list[int]:
    """Return the folds to train; raises TrainingError: no such fold."""
    if settings.fold is None:
        return list(range(recipe.folds))
    if not 0 <= settings.fold < recipe.folds:
        raise TrainingError(f"--fold: found {settings.fold}; wanted 0 to {recipe.folds - 1}, the folds of the recipe")
    return [settings.fold]


def is_fitted(settings: FitSettings, recipe: Recipe, fold: int) -> bool:
    """Return whether the manifest has the network; fail now if it could not be declared after training.

    Raises ManifestError or TrainingError: also for files of the same name, unless `resume` is set.
    """
    name, path, labels = name_fold(recipe, fold), find_manifest(settings), settings.out / "labels.csv"
    manifest = open_manifest(path, labels, settings.data / "train.csv")
    if declare_file(labels, path.parent).sha256 != manifest.labels.sha256:
        raise TrainingError(f"{path}: its labels differ from {labels}; choose another --manifest")
    model = next((model for model in manifest.models if model.name == name), None)
    if settings.resume:
        if model is None:
            return False
        if model.checkpoint is not None:
            verify_files([(f"{name}.checkpoint", model.checkpoint)], path.parent)
        print(f"{name}: already in {path}; skipped")
        return True
    files = (find_state(settings, recipe, fold), settings.out / f"{name}.safetensors")
    existing = [str(file) for file in files if file.exists()] + ([f"{path}: {name}"] if model is not None else [])
    if existing:
        raise TrainingError(
            f"{existing[0]}: already exists; continue with --resume, which skips finished folds, "
            "or choose another --out, or rename the recipe"
        )
    return False


def fit_fold(settings: FitSettings, recipe: Recipe, material: Material, fold: int, accelerator: Accelerator) -> None:
    """Train the network that holds out `fold`, predict its held-out images, and write and declare both."""
    name = name_fold(recipe, fold)
    training = np.flatnonzero(material.readable & (material.owners != fold))
    held_out = np.flatnonzero(material.readable & (material.owners == fold))
    for part, rows in (("train on", training), ("hold out", held_out)):
        if len(rows) < 2:
            raise TrainingError(f"{settings.data}: fold {fold}: found {len(rows)} images to {part}; wanted 2 or more")
    targets = material.table.targets[:, material.columns]
    shown_targets, hidden = hide_rare_labels(targets, training, recipe.smallest_count)
    counts = f"{len(training)} images to train on, {len(held_out)} held out"
    accelerator.print(f"{name}: {counts}; {targets.shape[1]} labels, {hidden} of them hidden")

    torch.manual_seed(recipe.seed)
    network = create_network(recipe.architecture, recipe.image_size, targets.shape[1])
    start_network(network, recipe, shown_targets[training].mean(axis=0))
    transfer = None
    if recipe.teacher is not None:
        teacher = load_teacher(recipe.teacher, fold)
        transfer = AttentionTransfer(network, teacher, recipe.teacher.weight, accelerator.device)
    samples = TrainingSamples(material.shown, shown_targets, network, recipe)
    judged = choose_validation(held_out, recipe)
    report = Report(settings.out, name)

    def predict(
        module: torch.nn.Module, pictures: Pictures, rows: NDArray[np.int64], title: str
    ) -> NDArray[np.float32]:
        geometry = Geometry(recipe.image_size, recipe.resize, network.interpolation)
        squares, trained = SquareSamples(pictures, rows, geometry), dataclasses.replace(network, module=module)
        views, device, batch = Model.views, accelerator.device, recipe.batch_size
        return predict_views(trained, squares, views, device, batch, settings.workers, title)

    def validate(module: torch.nn.Module, history: list[dict[str, float]]) -> None:
        scores = predict(module, material.shown, judged, f"{name}: validating on {len(judged)} images")
        history[-1].update(score_network(scores, targets[judged], material.labels, recipe.group))
        report.write_epochs(history)

    course = Course(
        state=find_state(settings, recipe, fold),
        origin=describe_origin(recipe, material, fold, accelerator),
        resume=settings.resume,
        workers=settings.workers,
        save_seconds=60 * settings.save_minutes,
    )
    module = train_network(network, samples, training, recipe, course, accelerator, transfer, validate)
    if accelerator.is_main_process:
        state = round_weights(module, recipe.precision)
        module.load_state_dict(state)
        scores = predict(module, material.files, held_out, f"{name}: predicting held-out images").astype(np.float16)
        # The checkpoint first: an interrupted run must not leave predictions without the network that made them.
        write_checkpoint(state, settings.out / f"{name}.safetensors")
        write_out_of_fold(scores, [material.table.ids[row] for row in held_out], settings.out, name)
        declare_network(settings, recipe, network, fold)
        course.state.unlink(missing_ok=True)
        figures = score_network(scores.astype(np.float32), targets[held_out], material.labels, recipe.group)
        print(f"{name}: {describe_f2(figures)} on {len(held_out)} held-out images, thresholds fitted to them")


def hide_rare_labels(
    targets: NDArray[np.bool_], training: NDArray[np.int64], smallest_count: int
) -> tuple[NDArray[np.bool_], int]:
    """Return the targets without labels of fewer than `smallest_count` training images, and the number of these labels.

    The network keeps an output for each of them and learns a low probability.
    """
    rare = targets[training].sum(axis=0) < smallest_count
    return targets & ~rare, int(rare.sum())


def choose_validation(held_out: NDArray[np.int64], recipe: Recipe) -> NDArray[np.int64]:
    """Return the held-out images that are predicted after each epoch."""
    if not 0 < recipe.validation < len(held_out):
        return held_out
    drawn: NDArray[np.int64] = np.random.default_rng(recipe.seed).permutation(held_out)[: recipe.validation]
    return np.sort(drawn)


def declare_network(settings: FitSettings, recipe: Recipe, network: Network, fold: int) -> None:
    """Add the fold's network to the manifest."""
    name, path = name_fold(recipe, fold), find_manifest(settings)
    manifest = open_manifest(path, settings.out / "labels.csv", settings.data / "train.csv")
    labels = read_labels(path.parent / manifest.labels.file, manifest.labels.groups)
    model = Model(
        name=name,
        architecture=recipe.architecture,
        group=recipe.group,
        image_size=recipe.image_size,
        mean=network.mean,
        std=network.std,
        interpolation=network.interpolation,
        resize=recipe.resize,
        fold=fold,
        checkpoint=declare_file(settings.out / f"{name}.safetensors", path.parent),
        out_of_fold=declare_out_of_fold(
            settings.out / f"{name}.oof.npy", path.parent, len(labels.columns(recipe.group))
        ),
    )
    append_model(manifest, model, path)


def find_manifest(settings: FitSettings) -> Path:
    """Return the path of the manifest that declares the models."""
    return settings.manifest or settings.out / MANIFEST_NAME


def find_state(settings: FitSettings, recipe: Recipe, fold: int) -> Path:
    """Return the path of a fold's saved state."""
    return settings.out / f"{name_fold(recipe, fold)}.state"


def describe_origin(recipe: Recipe, material: Material, fold: int, accelerator: Accelerator) -> dict[str, Any]:
    """Return what a resumed training must share with the saved one: recipe, fold, images, processes, precision."""
    rows = np.flatnonzero(material.readable & (material.owners != fold))
    shown = "".join(f"{material.table.ids[row]} {material.table.targets[row].nonzero()[0]}\n" for row in rows)
    described: dict[str, Any] = {
        "fold": fold,
        "images": f"{len(rows)} ({hashlib.sha256(shown.encode()).hexdigest()[:12]})",
        "processes": accelerator.num_processes,
        "mixed precision": accelerator.mixed_precision,
    }
    for key, value in dataclasses.asdict(recipe).items():
        if isinstance(value, dict):
            described |= {f"{key}.{inner}": setting for inner, setting in value.items()}
        else:
            described[key] = value
    return described
