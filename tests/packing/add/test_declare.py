"""What the user states about a model, and what is wrong with it, before a network is built."""

from typing import Any

import pytest

from inference.basics.errors import VitrineError
from inference.manifest.model import Resize
from tests.packing.add.conftest import Zoo

FACTORY = "import torch\n\ndef build(outputs):\n    return torch.nn.Linear(1, outputs)\n"


def test_each_statement_stands_in_the_manifest(zoo: Zoo) -> None:
    (zoo.home / "order.txt").write_text("tag::trees\ntag::birds\ntag::boats\n")
    model = zoo.add_declared(
        image_size=(32, 48),
        name="other",
        resize="letterbox",
        crop_percentage=0.8,
        views=("identity", "vflip", "top_left+hflip", "scale_125"),
        merge="geometric",
        mean=(0.5,),
        std=(0.1, 0.2, 0.3),
        interpolation="bicubic",
        activation="softmax",
        ema=False,
        label_order=zoo.home / "order.txt",
    )
    assert model.name == "other" and model.size == (32, 48)
    assert model.resize == Resize("letterbox", 0.8)
    assert (model.views, model.merge) == (("identity", "vflip", "top_left+hflip", "scale_125"), "geometric")
    assert (model.mean, model.std, model.interpolation) == ((0.5, 0.5, 0.5), (0.1, 0.2, 0.3), "bicubic")
    assert (model.activation, model.ema, model.label_order) == ("softmax", False, (4, 2, 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group": "style"}, "--group: found 'style'; wanted one of: all, culture, tag, features"),
        ({"group": None}, "--group: missing; wanted one of: all, culture, tag, features"),
        (
            {"architecture": None},
            "--architecture: missing; wanted timm's name of the network, or --factory FILE.py:FUNCTION for one of your "
            "own",
        ),
        ({"factory": "nets.py:build"}, "--factory: found beside --architecture; wanted one of them"),
        (
            {"architecture": None, "factory": "nets.build"},
            "--factory: found 'nets.build'; wanted FILE.py:FUNCTION, as in my_networks.py:build",
        ),
        ({"arguments": "{}"}, "--arguments: found without --factory; they are the arguments of its function"),
        ({"mean": (0.5, 0.5)}, "--mean: found 2 numbers; wanted 3 numbers, or 1 for all channels"),
        ({"std": (0.5,) * 3, "channels": 1}, "--std: found 3 numbers; wanted 1 number, as --channels is 1"),
        (
            {"image_size": 0},
            "model net: --image-size: found 0; wanted the side of a square or [height, width], whole numbers from 8 to "
            "4096",
        ),
        ({"crop_percentage": 0.0}, "model net: --crop-percentage: found 0.0; wanted a number above 0, at most 1"),
        ({"std": (0.0,)}, "model net: --std: found [0.0, 0.0, 0.0]; wanted numbers above 0, one per channel"),
        (
            {"views": ("top_left",)},
            "model net: --views: found top_left; wanted `resize.percentage` below 1, so that the resized image is "
            "larger than the network's input and has corners",
        ),
        (
            {"views": ("rot90",), "image_size": (32, 48)},
            "model net: --views: found rot90; wanted a square `image_size`, not 32x48",
        ),
        (
            {"group": "features"},
            "model net: --outputs: found 0; wanted the number of outputs",
        ),
        ({"outputs": 4}, "model net: --outputs: found 4; wanted 0: one output per label of the group"),
        ({"name": "a b"}, "model net: --name: found \"a b\"; wanted a file name of letters, digits, '.', '_' and '-'"),
    ],
)
def test_a_wrong_statement_is_refused(changes: dict[str, Any], message: str, zoo: Zoo) -> None:
    before = zoo.path.read_bytes()
    with pytest.raises(VitrineError) as error:
        zoo.add(**changes)
    assert str(error.value) == message.replace("model net", f"model {changes.get('name', 'net')}")
    assert zoo.path.read_bytes() == before


def test_a_wrong_view_names_the_possible_ones(zoo: Zoo) -> None:
    with pytest.raises(VitrineError, match=r'^model net: --views: found "hflop"; wanted one of identity, hflip, '):
        zoo.add(views=("hflop",))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{", "--arguments: not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[1]", "--arguments: found [1]"),
    ],
)
def test_arguments_are_a_json_object(arguments: str, message: str, zoo: Zoo) -> None:
    (zoo.home / "nets.py").write_text(FACTORY)
    with pytest.raises(VitrineError) as error:
        zoo.add(architecture=None, factory=f"{zoo.home}/nets.py:build", arguments=arguments)
    assert str(error.value).startswith(message)
    assert str(error.value).endswith("""an object, as in '{"pool": "gem"}'""") or "a JSON object" in str(error.value)


def test_a_factory_outside_of_the_folder_is_refused(zoo: Zoo) -> None:
    path = zoo.home.parent / "nets.py"
    path.write_text(FACTORY)
    with pytest.raises(VitrineError) as error:
        zoo.add(architecture=None, factory=f"{path}:build")
    assert str(error.value) == (
        f"{path}: lies outside the manifest's folder {zoo.home}; move it there or choose another --manifest"
    )


def test_features_have_no_label_order(zoo: Zoo) -> None:
    with pytest.raises(VitrineError) as error:
        zoo.add(group="features", outputs=3, label_order=zoo.home / "labels.csv")
    assert str(error.value) == (
        "--label-order: found a file; wanted none for --group features, whose outputs are no labels"
    )
