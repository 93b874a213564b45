"""The models that a page on labels is about."""

from collections.abc import Sequence

from inference.basics.errors import TrainingError
from inference.manifest.model import FEATURES, Model
from zoo.tables.out_of_fold import Zoo, find_models


def find_labelled(zoo: Zoo, names: Sequence[str]) -> list[Model]:
    """Return the models and members of these names, in the manifest's order.

    Raises TrainingError: an unknown name, or a model whose outputs are no labels.
    """
    models = find_models(zoo, names)
    for model in models:
        if model.group == FEATURES:
            raise TrainingError(
                f"{zoo.path}: model {model.name}: its outputs are no labels (group '{FEATURES}'); choose other models"
            )
    return models
