from pathlib import Path

import pytest

from inference.basics.errors import ManifestError
from inference.manifest.decision import Decision
from inference.manifest.model import Factory, Model
from inference.manifest.records import Ensemble, LabelsEntry, Manifest
from packing.add.names import choose_member, make_name
from tests.packing.add.conftest import Zoo


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("resnet50_f0.safetensors", "resnet50_f0"),
        ("epoch=3-val_f2=0.61.ckpt", "epoch_3-val_f2_0.61"),
        ("model (1).pth", "model_1"),
        ("best model.v2.pt", "best_model.v2"),
        ("modèle.pth", "mod_le"),
    ],
)
def test_a_file_name_becomes_a_name(file: str, name: str) -> None:
    assert make_name(Path(file)) == name


def test_a_file_name_without_usable_characters_is_refused() -> None:
    with pytest.raises(ManifestError) as error:
        make_name(Path("模型.pth"))
    assert str(error.value) == "模型.pth: no letter, digit, '.' or '-' for the model's name; give one with --name"


def test_folds_of_one_network_share_a_member(zoo: Zoo) -> None:
    first = zoo.add_declared(file="net_f0.safetensors", fold=0)
    second = zoo.add_declared(file="net_f1.safetensors", fold=1)
    assert (first.name, first.member, first.fold) == ("net_f0", "net", 0)
    assert (second.name, second.member, second.fold) == ("net_f1", "net", 1)


def make_model(name: str, **more: object) -> Model:
    given = {
        "architecture": "resnet18",
        "group": "tag",
        "image_size": 32,
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
        **more,
    }
    return Model(name=name, interpolation="bilinear", **given)  # type: ignore[arg-type]


def choose(model: Model, other: Model, given: str | None = None) -> str | None:
    manifest = Manifest(
        LabelsEntry("labels.csv", "0" * 64, {"tag": ""}), (other,), Ensemble({"tag": {}}), Decision({}, {})
    )
    return choose_member(given, model, manifest)


FACTORY = Factory("nets.py", "0" * 64, "build", {"pool": "gem"})


@pytest.mark.parametrize(
    ("changes", "member"),
    [
        ({"fold": 1}, "net"),
        ({"fold": 1, "image_size": (32, 48)}, None),
        ({"fold": 1, "architecture": "resnet34"}, None),
        ({"fold": 1, "group": "all"}, None),
        ({"fold": 1, "mean": (0.5,), "std": (0.5,)}, None),  # of grey images
        ({"fold": 1, "factory": FACTORY}, None),
        ({}, None),  # of no fold
        ({"fold": 2}, None),  # of another fold than its name says
        ({"fold": 0, "name": "net_f0"}, None),  # the member has this fold
        ({"fold": 0, "name": "_f0"}, None),
    ],
)
def test_another_network_is_another_member(changes: dict[str, object], member: str | None) -> None:
    model = make_model(**{"name": "net_f1", **changes})  # type: ignore[arg-type]
    assert choose(model, make_model("net_f0", fold=0, member="net")) == member
    assert choose(model, make_model("net_f0", fold=0, member="net"), "own") == "own"


def test_a_fold_is_not_joined_with_a_model_that_only_has_the_members_name() -> None:
    assert choose(make_model("net_f1", fold=1), make_model("net")) is None
    assert choose(make_model("net_f1", fold=1), make_model("other")) == "net"


def test_a_declared_member_of_another_network_is_refused(zoo: Zoo) -> None:
    zoo.add(file="net_f0.safetensors", fold=0)
    with pytest.raises(ManifestError) as error:
        zoo.add(file="other.safetensors", fold=1, member="net", image_size=64)
    assert str(error.value) == (
        "model other: `models`: net_f0, other are folds of the member net but see 32x32 and 64x64; wanted the same; "
        "give one another `member`"
    )


def test_a_name_that_is_taken_is_refused_before_the_network_is_built(zoo: Zoo) -> None:
    zoo.add(file="net.safetensors")
    with pytest.raises(ManifestError) as error:
        zoo.add(file="net.safetensors", architecture="no_such_network")
    assert str(error.value) == (
        f"{zoo.home / 'net.safetensors'}: the manifest already has a model net; give this one another name with "
        "--name, or remove the other from `models`"
    )
