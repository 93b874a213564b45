"""Which settings of a recipe suit one another, the task and its targets."""

import numpy as np

from inference.basics.errors import ManifestError, TrainingError
from inference.manifest.decision import Decision
from inference.manifest.model import Model
from inference.manifest.records import Ensemble, LabelsEntry, Manifest
from inference.manifest.references import check_model
from inference.manifest.task import Task
from training.data.source import Source
from training.fit.losses import HARD_ONLY, LOSSES
from training.recipe import Recipe
from zoo.tables.train_table import Table


def check_recipe(recipe: Recipe, task: Task, table: Table) -> None:
    """Raise TrainingError for a loss, an augmentation or a limit that does not suit the task; it names the key."""
    soft = table.targets.dtype != np.bool_
    for key, alpha in (("mixup", recipe.augmentation.mixup), ("cutmix", recipe.augmentation.cutmix)):
        if alpha and task.type == "regression":
            raise TrainingError(
                f"`augmentation.{key}`: found {alpha:g}; wanted 0 for regression: numbers are not mixed"
            )
    name, suited = recipe.loss.name, LOSSES[task.type]
    if name is not None and name not in suited:
        raise TrainingError(f"`loss.name`: found '{name}'; wanted {_join(suited)} for {task.type}")
    if name in HARD_ONLY and (soft or recipe.augmentation.mixup or recipe.augmentation.cutmix):
        reason = "train.csv has soft labels" if soft else "mixup and cutmix make soft labels"
        wanted = _join(tuple(other for other in suited if other not in HARD_ONLY))
        raise TrainingError(f"`loss.name`: found '{name}'; wanted {wanted}: {reason}")
    if recipe.smallest_count and (soft or task.type != "multilabel"):
        reason = "train.csv has soft labels" if soft and task.type == "multilabel" else f"the task is {task.type}"
        raise TrainingError(
            f"`smallest_count`: found {recipe.smallest_count}; wanted 0: labels cannot be hidden, because {reason}"
        )


def check_entry(model: Model, source: Source) -> None:
    """Raise TrainingError, naming the key of the recipe, if the manifest would refuse the entry of its networks."""
    labels = LabelsEntry(source.labels_path.name, "", dict.fromkeys(source.labels.groups, ""), source.exchanged)
    try:
        check_model(model, "recipe", Manifest(labels, (), Ensemble({}), Decision({}, {}), source.task))
    except ManifestError as error:
        raise TrainingError(str(error).replace("`recipe.", "`")) from error


def _join(names: tuple[str, ...]) -> str:
    return " or ".join(f"'{name}'" for name in names)
