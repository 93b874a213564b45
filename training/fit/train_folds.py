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

from inference.basics.errors import ManifestError, TrainingError
from inference.basics.files import make_folder
from inference.manifest.file import verify_files
from inference.manifest.model import Model
from inference.manifest.references import check_members
from inference.manifest.task import TaskType
from training.data.material import FitSettings, Material, prepare_material
from training.data.mixing import make_mixer
from training.data.pictures import Pictures
from training.data.samples import TrainingSamples
from training.fit.distil import AttentionTransfer, load_teacher
from training.fit.initial import start_network
from training.fit.loop import Course, Objective, train_network
from training.fit.losses import make_loss
from training.fit.predict_views import describe_showing, predict_views
from training.fit.progress import Report
from training.fit.weights import round_weights
from training.recipe import Recipe, name_fold, read_recipe
from training.scoring.scores import describe_figures, score_network
from zoo.checkpoints.write import write_checkpoint
from zoo.edit import append_model, declare_file, declare_out_of_fold, open_manifest
from zoo.metrics.scoring import find_scoring
from zoo.networks import Network, create_network
from zoo.tables.out_of_fold import write_out_of_fold


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
    wanted = [fold for fold in folds if not is_fitted(settings, recipe, material, fold)]
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


def is_fitted(settings: FitSettings, recipe: Recipe, material: Material, fold: int) -> bool:
    """Return whether the manifest has the network; fail now if it could not be declared after training.

    Raises ManifestError or TrainingError: also for files of the same name, unless `resume` is set.
    """
    name, path, labels = name_fold(recipe, fold), settings.find_manifest(), settings.out / "labels.csv"
    manifest = open_manifest(path, labels, material.source.train)
    if declare_file(labels, path.parent).sha256 != manifest.labels.sha256:
        raise TrainingError(f"{path}: its labels differ from {labels}; choose another --manifest")
    model = next((model for model in manifest.models if model.name == name), None)
    if settings.resume and model is not None:
        if model.checkpoint is not None:
            verify_files([(f"{name}.checkpoint", model.checkpoint)], path.parent)
        print(f"{name}: already in {path}; skipped")
        return True
    files = (find_state(settings, recipe, fold), settings.out / f"{name}.safetensors")
    existing = [str(file) for file in files if file.exists()] + ([f"{path}: {name}"] if model is not None else [])
    if existing and not settings.resume:
        raise TrainingError(
            f"{existing[0]}: already exists; continue with --resume, which skips finished folds, "
            "or choose another --out, or rename the recipe"
        )
    grown = dataclasses.replace(manifest, models=(*manifest.models, describe_fold(recipe, material, fold)))
    try:
        check_members(grown)
    except ManifestError as error:
        raise TrainingError(f"{path}: {error}; or rename the recipe") from error
    return False


def describe_fold(recipe: Recipe, material: Material, fold: int) -> Model:
    """Return the manifest's entry of the network that holds out `fold`, without its files."""
    return dataclasses.replace(material.entry, name=name_fold(recipe, fold), fold=fold)


def fit_fold(settings: FitSettings, recipe: Recipe, material: Material, fold: int, accelerator: Accelerator) -> None:
    """Train the network that holds out `fold`, predict its held-out images, and write and declare both."""
    name, source = name_fold(recipe, fold), material.source
    training = np.flatnonzero(material.readable & (material.owners != fold))
    held_out = np.flatnonzero(material.readable & (material.owners == fold))
    for part, rows in (("train on", training), ("hold out", held_out)):
        if len(rows) < 2:
            raise TrainingError(f"{settings.data}: fold {fold}: found {len(rows)} images to {part}; wanted 2 or more")
    targets = material.table.targets[:, material.columns]
    shown_targets, hidden = targets, 0
    if recipe.smallest_count:
        shown_targets, hidden = hide_rare_labels(targets, training, recipe.smallest_count)
    counts = f"{len(training)} images to train on, {len(held_out)} held out"
    accelerator.print(f"{name}: {counts}{describe_outputs(source.task.type, targets.shape[1], hidden)}")

    torch.manual_seed(recipe.seed)
    network = create_network(material.design)
    means = shown_targets[training].mean(axis=0, dtype=np.float64)
    start_network(network.module, material.design, recipe, means, source.task.activation)
    samples = TrainingSamples(material.shown, shown_targets, network, recipe)
    judged = choose_validation(held_out, recipe)
    report, scoring = Report(settings.out, name), find_scoring(source.task)

    showing = describe_showing(material.entry, source.task.activation, source.labels, source.exchanged)

    def predict(
        module: torch.nn.Module, pictures: Pictures, rows: NDArray[np.int64], title: str
    ) -> NDArray[np.float32]:
        device = accelerator.device
        return predict_views(module, showing, pictures, rows, device, recipe.batch_size, settings.workers, title)

    def validate(module: torch.nn.Module, history: list[dict[str, float]]) -> float:
        scores = predict(module, material.shown, judged, f"{name}: validating on {len(judged)} images")
        figures = score_network(scores, targets[judged], source.labels, recipe.group, source.task)
        history[-1].update(figures)
        report.write_epochs(history)
        return scoring.find_gain(next(iter(figures.values())), 0.0)

    course = Course(
        state=find_state(settings, recipe, fold),
        origin=describe_origin(recipe, material, fold, accelerator),
        resume=settings.resume,
        workers=settings.workers,
        save_seconds=60 * settings.save_minutes,
    )
    objective = make_objective(recipe, source.task.type, network, fold, accelerator)
    module = train_network(network, samples, training, recipe, course, accelerator, objective, validate)
    if accelerator.is_main_process:
        state = round_weights(module, recipe.precision)
        module.load_state_dict(state)
        scores = predict(module, material.files, held_out, f"{name}: predicting held-out images")
        keep_network(settings, recipe, material, fold, state, held_out, scores)
        course.state.unlink(missing_ok=True)


def make_objective(recipe: Recipe, task: TaskType, network: Network, fold: int, accelerator: Accelerator) -> Objective:
    """Return what the network of a fold minimises; a teacher of the fold is loaded."""
    transfer = None
    if recipe.teacher is not None:
        teacher = load_teacher(recipe.teacher, fold, recipe.channels)
        transfer = AttentionTransfer(network, teacher, recipe.teacher.weight, accelerator.device)
    return Objective(make_loss(recipe.loss, task), make_mixer(recipe.augmentation), transfer)


def keep_network(
    settings: FitSettings,
    recipe: Recipe,
    material: Material,
    fold: int,
    state: dict[str, torch.Tensor],
    held_out: NDArray[np.int64],
    scores: NDArray[np.float32],
) -> None:
    """Write and declare a fold's weights and its scores of the held-out images, and print its figures."""
    name, source = name_fold(recipe, fold), material.source
    kept = scores.astype(source.task.score_dtype)  # the figures are of what is written
    # The checkpoint first: an interrupted run must not leave predictions without the network that made them.
    write_checkpoint(state, settings.out / f"{name}.safetensors")
    write_out_of_fold(kept, [material.table.ids[row] for row in held_out], settings.out, name)
    declare_network(settings, recipe, material, fold)
    truth = material.table.targets[np.ix_(held_out, material.columns)]
    figures = score_network(kept.astype(np.float32), truth, source.labels, recipe.group, source.task)
    fitted = ", thresholds fitted to them" if source.task.selects_labels else ""
    print(f"{name}: {describe_figures(figures, source.task)} on {len(held_out)} held-out images{fitted}")


def describe_outputs(task: TaskType, labels: int, hidden: int) -> str:
    """Return the number of labels for the line that starts a fold; nothing for a single number."""
    if task == "multilabel":
        return f"; {labels} labels, {hidden} of them hidden"
    return f"; {labels} classes" if task == "multiclass" else ""


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


def declare_network(settings: FitSettings, recipe: Recipe, material: Material, fold: int) -> None:
    """Add the fold's network to the manifest."""
    name, path = name_fold(recipe, fold), settings.find_manifest()
    manifest = open_manifest(path, settings.out / "labels.csv", material.source.train)
    outputs = len(material.columns)
    model = dataclasses.replace(
        describe_fold(recipe, material, fold),
        checkpoint=declare_file(settings.out / f"{name}.safetensors", path.parent),
        out_of_fold=declare_out_of_fold(settings.out / f"{name}.oof.npy", path.parent, outputs, manifest.task),
    )
    append_model(manifest, model, path)


def find_state(settings: FitSettings, recipe: Recipe, fold: int) -> Path:
    """Return the path of a fold's saved state."""
    return settings.out / f"{name_fold(recipe, fold)}.state"


def describe_origin(recipe: Recipe, material: Material, fold: int, accelerator: Accelerator) -> dict[str, Any]:
    """Return what a resumed training must share with the saved one: recipe, fold, images, processes, precision."""
    rows = np.flatnonzero(material.readable & (material.owners != fold))
    shown = hashlib.sha256("\n".join(material.table.ids[row] for row in rows).encode())
    shown.update(material.table.targets[rows].tobytes())
    factory = material.entry.factory
    described: dict[str, Any] = {
        "fold": fold,
        "factory.sha256": factory and factory.sha256,
        "task": material.source.task.type,
        "images": f"{len(rows)} ({shown.hexdigest()[:12]})",
        "processes": accelerator.num_processes,
        "mixed precision": accelerator.mixed_precision,
    }
    for key, value in dataclasses.asdict(recipe).items():
        if isinstance(value, dict):
            described |= {f"{key}.{inner}": setting for inner, setting in value.items()}
        else:
            described[key] = value
    return described
