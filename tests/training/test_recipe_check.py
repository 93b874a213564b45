import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.basics.errors import TrainingError
from inference.manifest.labels import Labels
from inference.manifest.model import Model
from inference.manifest.task import Task, TaskType
from training.data.source import Source
from training.recipe import Augmentation, LossSettings, Recipe
from training.recipe_check import check_entry, check_recipe
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


SOURCE = Source(Task(), Labels((0, 1), ("left", "right"), {"labels": (0, 1)}), Path("labels.csv"), Path("train.csv"))


@pytest.mark.parametrize(
    ("changes", "source", "message"),
    [
        ({"views": ("rot90",), "image_size": (32, 48)}, {},
         "`views`: found rot90; wanted a square `image_size`, not 32x48"),
        ({"views": ("top_left",)}, {},
         "`views`: found top_left; wanted `resize.percentage` below 1, so that the resized image is larger than the "
         "network's input and has corners"),
        ({"views": ("identity", "transpose")}, {"exchanged": {"hflip": ((0, 1),)}},
         "`views`: found transpose; wanted a view that does not turn left into top, because `labels.exchanged` has "
         "labels that depend on the side"),
        ({"merge": "geometric"}, {"task": Task(type="regression")},
         "`merge`: found \"geometric\"; wanted 'mean' or 'maximum': the scores are numbers, not probabilities"),
        ({"views": ("scale_400",), "image_size": 4096}, {},
         "`views`: scale_400 resizes images to 16384x16384; wanted at most 64 megapixels; raise `resize.percentage` or "
         "lower the scale"),
    ],
)  # fmt: skip
def test_keys_that_do_not_suit_one_another_are_refused(
    changes: dict[str, Any], source: dict[str, Any], message: str
) -> None:
    plain = Model("one", "net", "all", 32, (0.5,), (0.5,), "bilinear")
    check_entry(plain, SOURCE)
    with pytest.raises(TrainingError) as caught:
        check_entry(dataclasses.replace(plain, **changes), dataclasses.replace(SOURCE, **source))
    assert str(caught.value) == message
