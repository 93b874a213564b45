import dataclasses
import hashlib
from pathlib import Path

import pytest
import timm

from inference.basics.errors import CheckpointError, ManifestError, TrainingError
from inference.manifest.labels import Labels
from inference.manifest.model import Factory
from training.recipe import OwnNetwork, Recipe
from training.recipe_model import describe_recipe, place_factory

LABELS = Labels((4, 2, 7), ("b::x", "a::y", "b::z"), {"b": (0, 2), "a": (1,)})
NETWORK = """
from torch import nn

def build(outputs, channels=3):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs))
"""


def make_recipe(folder: Path, **arguments: object) -> Recipe:
    (folder / "recipes").mkdir()
    file = folder / "recipes" / "nets.py"
    file.write_text(NETWORK)
    return Recipe("one", "nets.py:build", (8, 12), 1, factory=OwnNetwork(str(file), "build", arguments))


def test_the_entry_is_the_recipe_with_timms_input(tmp_path: Path) -> None:
    recipe = Recipe("one", "test_resnet", (32, 40), 1, views=("vflip",), merge="maximum", group="a")
    design, entry = describe_recipe(recipe, None, tmp_path, LABELS)
    timms = timm.get_pretrained_cfg("test_resnet")
    assert timms is not None
    assert (entry.mean, entry.std, entry.interpolation) == (timms.mean, timms.std, timms.interpolation)
    assert (entry.views, entry.merge, entry.member, entry.size) == (("vflip",), "maximum", "one", (32, 40))
    assert (design.outputs, design.heads) == (1, ())
    grey = describe_recipe(dataclasses.replace(recipe, channels=1), None, tmp_path, LABELS)[1]
    assert grey.channels == len(grey.std) == 1


def test_a_factory_elsewhere_is_copied_and_one_in_the_zoo_stays(tmp_path: Path) -> None:
    recipe, home = make_recipe(tmp_path, channels=3), tmp_path / "zoo"
    (home / "out").mkdir(parents=True)
    wanted = hashlib.sha256(NETWORK.encode()).hexdigest()
    for _ in range(2):
        placed = place_factory(recipe, home, home / "out")
        assert placed == Factory("out/nets.py", wanted, "build", {"channels": 3})
    assert place_factory(recipe, tmp_path, home) == Factory("recipes/nets.py", wanted, "build", {"channels": 3})
    assert not (home / "nets.py").exists()
    design, entry = describe_recipe(recipe, placed, home, LABELS)
    assert design.build is not None and design.build.file == home / "out" / "nets.py"
    assert (design.heads, design.head_names) == (((0, 2), (1,)), ("b", "a"))
    assert entry.architecture == "nets.py:build"
    (home / "out" / "nets.py").write_text("changed")
    with pytest.raises(TrainingError) as caught:
        place_factory(recipe, home, home / "out")
    assert str(caught.value) == (
        f"`factory.file`: {home}/out/nets.py differs from {tmp_path}/recipes/nets.py; rename the file, or choose "
        "another --out"
    )
    with pytest.raises(ManifestError, match=r"`one\.factory\.sha256`"):
        describe_recipe(recipe, placed, home, LABELS)


def test_a_factory_that_fails_is_refused_before_any_training(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, channels=5)
    with pytest.raises(CheckpointError, match=r"^`factory`: nets\.py:build fails at 8x12 px"):
        describe_recipe(recipe, place_factory(recipe, tmp_path, tmp_path), tmp_path, LABELS)


def test_without_a_factory_nothing_is_declared(tmp_path: Path) -> None:
    assert place_factory(Recipe("one", "test_resnet", 32, 1), tmp_path, tmp_path) is None
