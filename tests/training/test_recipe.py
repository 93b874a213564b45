import re
from pathlib import Path

import pytest
import timm

from inference.basics.errors import TrainingError
from tests.conftest import ROOT
from training.recipe import OwnNetwork, Recipe, read_recipe
from zoo.networks import Design, create_network

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


OWN = 'image_size = 32\nepochs = 1\n[factory]\nfile = "nets/mine.py"\nfunction = "build"\n'


def test_a_factory_takes_the_place_of_the_architecture(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "mine.py").touch()
    recipe = read_recipe(write(tmp_path, OWN + 'arguments = {pool = "gem", widths = [8, 16]}\n'))
    assert recipe.architecture == "mine.py:build"
    arguments = {"pool": "gem", "widths": [8, 16]}
    assert recipe.factory == OwnNetwork(str(tmp_path / "nets" / "mine.py"), "build", arguments)


def test_size_channels_views_and_their_merge_have_defaults(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, SMALLEST))
    assert (recipe.size, recipe.channels, recipe.views, recipe.merge) == ((320, 320), 3, ("identity", "hflip"), "mean")
    changed = SMALLEST.replace("320", "[912, 1520]") + 'channels = 1\nviews = ["rot180"]\nmerge = "geometric"\n'
    recipe = read_recipe(write(tmp_path, changed + '[resize]\nrule = "letterbox"\n'))
    assert (recipe.size, recipe.channels, recipe.views, recipe.merge) == ((912, 1520), 1, ("rot180",), "geometric")
    assert recipe.resize.rule == "letterbox"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALLEST + "epoch = 3\n", "`epoch`: unknown key; did you mean `epochs`?"),
        (SMALLEST + "[loss]\ngama = 2\n", "`loss.gama`: unknown key; did you mean `loss.gamma`?"),
        (SMALLEST + 'name = "x"\n', "`name`: unknown key; a recipe is named after its file; remove the key"),
        ("image_size = 320\nepochs = 8\n", "`architecture` and `factory`: found neither; wanted timm's name of a network as `architecture`, or a table [factory] with the function that builds one"),
        ('architecture = "resnet34"\n' + OWN, "`architecture` and `factory`: found both; wanted timm's name of a network as `architecture`, or a table [factory] with the function that builds one"),
        (OWN, "`factory.file`: no such file: {home}/nets/mine.py"),
        (OWN.replace("mine.py", "mine.txt"), '`factory.file`: found "nets/mine.txt"; wanted the path of a Python file'),
        (OWN.replace('"build"', '"a b"'), '`factory.function`: found "a b"; wanted the name of a function'),
        (OWN + "[factory.arguments]\n'a b' = 1\n", '`factory.arguments.a b`: found "a b"; wanted the name of an argument'),
        (OWN + '[initial]\npretrained = "default"\n', "`initial.pretrained`: found 'default'; wanted none with `factory`: its function may load weights itself, or set `initial.checkpoint`"),
        (OWN + "sha256 = 'a'\n", "`factory.sha256`: unknown key; known keys: arguments, file, function"),
        (SMALLEST.replace("320", "7"), "`image_size`: found 7; wanted the side of a square or [height, width], whole numbers from 8 to 4096"),
        (SMALLEST.replace("320", "[320]"), "`image_size`: found [320]; wanted the side of a square or [height, width], whole numbers from 8 to 4096"),
        (SMALLEST.replace("320", "[320, 0.5]"), "`image_size[1]`: found 0.5; wanted a whole number"),
        (SMALLEST + 'cache = 40\n[resize]\nrule = "trim"\n', "`cache`: found 40; wanted 0 with the resize rule 'trim', which depends on the size of the whole image in px"),
        (SMALLEST + "channels = 2\n", "`channels`: found 2; wanted 1 or 3"),
        (SMALLEST + "views = []\n", "`views`: found []; wanted at least one view, each once"),
        (SMALLEST + 'views = ["hflip", "hflip"]\n', '`views`: found ["hflip", "hflip"]; wanted at least one view, each once'),
        (SMALLEST + 'views = ["flip"]\n', '`views[0]`: found "flip"; wanted one of identity, hflip, vflip, rot180, '),
        (SMALLEST + 'merge = "median"\n', "`merge`: found \"median\"; wanted 'mean' or 'geometric' or 'maximum'"),
        (SMALLEST + '[resize]\nrule = "pad"\n', "`resize.rule`: found \"pad\"; wanted 'squash' or 'crop' or 'trim' or 'letterbox'"),
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
    with pytest.raises(TrainingError, match=re.escape(f"{path}: {message.replace('{home}', str(tmp_path))}")):
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
    sizes = {read_recipe(path).size for path in SHIPPED if read_recipe(path).architecture == name}
    for size in sizes:
        assert create_network(Design(name, size, 5)).module.num_classes == 5
