import dataclasses

import numpy as np
import pytest

from inference.basics.errors import TrainingError
from inference.manifest.task import Task, TaskType
from training.recipe import Augmentation, LossSettings, Recipe
from training.recipe_check import check_recipe
from zoo.tables.train_table import Table

HARD = Table(("a", "b"), np.eye(2, dtype=np.bool_))
SOFT = Table(("a", "b"), np.full((2, 2), 0.5, np.float32))
RECIPE = Recipe("one", "test_resnet", 32, 1)


@pytest.mark.parametrize(
    ("task", "table", "changes", "message"),
    [
        ("multiclass", HARD, {"loss": LossSettings("bce")},
         "`loss.name`: found 'bce'; wanted 'cross_entropy' or 'focal' for multiclass"),
        ("multilabel", HARD, {"loss": LossSettings("mse")},
         "`loss.name`: found 'mse'; wanted 'bce' or 'focal' or 'lovasz' or 'focal_lovasz' for multilabel"),
        ("binary", HARD, {"loss": LossSettings("lovasz")},
         "`loss.name`: found 'lovasz'; wanted 'bce' or 'focal' for binary"),
        ("regression", SOFT, {"loss": LossSettings("bce")},
         "`loss.name`: found 'bce'; wanted 'mse' or 'huber' for regression"),
        ("multilabel", SOFT, {"loss": LossSettings("lovasz")},
         "`loss.name`: found 'lovasz'; wanted 'bce' or 'focal': train.csv has soft labels"),
        ("multilabel", HARD, {"loss": LossSettings("focal_lovasz"), "augmentation": Augmentation(cutmix=1.0)},
         "`loss.name`: found 'focal_lovasz'; wanted 'bce' or 'focal': mixup and cutmix make soft labels"),
        ("regression", SOFT, {"augmentation": Augmentation(mixup=0.2)},
         "`augmentation.mixup`: found 0.2; wanted 0 for regression: numbers are not mixed"),
        ("regression", SOFT, {"augmentation": Augmentation(cutmix=1.0)},
         "`augmentation.cutmix`: found 1; wanted 0 for regression: numbers are not mixed"),
        ("multiclass", HARD, {"smallest_count": 20},
         "`smallest_count`: found 20; wanted 0: labels cannot be hidden, because the task is multiclass"),
        ("multilabel", SOFT, {"smallest_count": 20},
         "`smallest_count`: found 20; wanted 0: labels cannot be hidden, because train.csv has soft labels"),
    ],
)  # fmt: skip
def test_a_setting_that_does_not_suit_the_task_is_refused(
    task: TaskType, table: Table, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(TrainingError) as caught:
        check_recipe(dataclasses.replace(RECIPE, **changes), Task(type=task), table)
    assert str(caught.value) == message


def test_defaults_suit_every_task() -> None:
    for task in ("multilabel", "multiclass", "binary", "regression"):
        check_recipe(RECIPE, Task(type=task), SOFT)
    check_recipe(dataclasses.replace(RECIPE, smallest_count=5, loss=LossSettings("lovasz")), Task(), HARD)
    mixed = Augmentation(mixup=0.2, cutmix=1.0)
    check_recipe(dataclasses.replace(RECIPE, augmentation=mixed), Task(type="multiclass"), HARD)
