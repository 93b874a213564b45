import re
from pathlib import Path

import pytest
import timm

from inference.basics.errors import TrainingError
from tests.conftest import ROOT
from training.recipe import Recipe, read_recipe
from zoo.networks import create_network

SHIPPED = sorted((ROOT / "training" / "recipes").rglob("*.toml"))
SMALLEST = 'architecture = "resnet34"\nimage_size = 320\nepochs = 8\n'


def write(folder: Path, text: str, name: str = "one.toml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_three_keys_are_enough_and_adam_is_the_default(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, SMALLEST))
    assert recipe == Recipe(name="one", architecture="resnet34", image_size=320, epochs=8)
    assert (recipe.optimizer.name, recipe.group, recipe.folds) == ("adam", "all", 5)


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    text = SMALLEST + '[initial]\ncheckpoint = "w/a.safetensors"\n[teacher]\nmanifest = "../m.json"\nmodel = "big"\n'
    (tmp_path / "recipes").mkdir()
    recipe = read_recipe(write(tmp_path / "recipes", text))
    assert recipe.initial.checkpoint == str(tmp_path / "recipes" / "w" / "a.safetensors")
    assert recipe.teacher is not None and recipe.teacher.manifest == str(tmp_path / "m.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALLEST + "epoch = 3\n", "`epoch`: unknown key; did you mean `epochs`?"),
        (SMALLEST + "[loss]\ngama = 2\n", "`loss.gama`: unknown key; did you mean `loss.gamma`?"),
        (SMALLEST + 'name = "x"\n', "`name`: unknown key; a recipe is named after its file; remove the key"),
        ("image_size = 320\nepochs = 8\n", "`architecture`: missing; wanted a string"),
        (SMALLEST + "folds = 1\n", "`folds`: found 1; wanted a whole number of at least 2"),
        (SMALLEST + "ema = 1.0\n", "`ema`: found 1.0; wanted a number from 0 to below 1"),
        (SMALLEST + '[loss]\nname = "hinge"\n', "`loss.name`: found \"hinge\"; wanted 'bce' or 'focal' or 'lovasz' or 'focal_lovasz'"),
        (SMALLEST + "[optimizer]\nlearning_rate = nan\n", "`optimizer.learning_rate`: found NaN; wanted a number above 0"),
        (SMALLEST + "[augmentation]\nsmallest_crop = 1.5\n", "`augmentation.smallest_crop`: found 1.5; wanted a number above 0, at most 1"),
        (SMALLEST + '[initial]\ncheckpoint = "a"\npretrained = "b"\n', "`initial`: found pretrained and checkpoint; wanted one of them"),
        (SMALLEST + "epochs = 3\n", "not a recipe: Cannot overwrite a value"),
        ("architecture =\n", "not a recipe: Invalid value"),
    ],
)  # fmt: skip
def test_an_invalid_recipe_is_refused_with_its_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(TrainingError, match=re.escape(f"{path}: {message}")):
        read_recipe(path)


def test_the_error_for_a_missing_recipe_names_the_examples(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"none\.toml: no such recipe; examples are in .*training/recipes$"):
        read_recipe(tmp_path / "none.toml")


def test_a_file_name_that_is_invalid_in_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="found the name 'my recipe'; wanted letters, digits"):
        read_recipe(write(tmp_path, SMALLEST, "my recipe.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_each_shipped_recipe_can_be_read_and_names_a_network_of_timm(path: Path) -> None:
    recipe = read_recipe(path)
    assert timm.is_model(recipe.architecture)
    assert recipe.group in ("all", "culture", "tag")


def test_shipped_recipes_have_different_names() -> None:
    assert len({path.stem for path in SHIPPED}) == len(SHIPPED)


@pytest.mark.parametrize("name", sorted({read_recipe(path).architecture for path in SHIPPED if "met96" in path.parts}))
def test_the_networks_of_the_met96_recipes_accept_their_image_size(name: str) -> None:
    sizes = {read_recipe(path).image_size for path in SHIPPED if read_recipe(path).architecture == name}
    for size in sizes:
        assert create_network(name, size, 5).module.num_classes == 5
