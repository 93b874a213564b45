import dataclasses
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from sklearn.metrics import fbeta_score

from inference.basics.errors import CheckpointError, VitrineError
from inference.manifest.file import MANIFEST_NAME, read_manifest, write_manifest
from inference.manifest.labels import read_labels
from inference.manifest.model import Factory, FileEntry, Resize
from inference.manifest.task import Form, Metric, Task
from packing.add.add import add_model
from packing.add.declare import Addition
from tests.conftest import write_network, write_rows
from tests.packing.add.conftest import Zoo
from zoo.edit import choose_prior, create_manifest
from zoo.tables.train_table import read_table


def test_an_added_model_has_its_hash_and_timms_settings(zoo: Zoo) -> None:
    added = zoo.add(file="tag.safetensors", name="new", resize="crop", crop_percentage=0.9, fold=2)
    manifest = zoo.manifest
    model = manifest.models[-1]
    config = timm.get_pretrained_cfg("test_resnet")
    assert config is not None
    assert (model.mean, model.std, model.interpolation) == (config.mean, config.std, config.interpolation)
    digest = hashlib.sha256((zoo.home / "tag.safetensors").read_bytes()).hexdigest()
    assert model.checkpoint == FileEntry("tag.safetensors", digest)
    assert (model.name, model.group, model.image_size, model.fold) == ("new", "tag", 32, 2)
    assert model.resize == Resize("crop", 0.9)
    assert manifest.ensemble.weights == {"culture": {}, "tag": {"new": 1.0}}
    assert added.model == model and added.form and added.notes == ()


def test_a_name_made_from_the_file_is_said(zoo: Zoo) -> None:
    added = zoo.add(file="epoch=3-val_f2=0.61.safetensors")
    assert added.model.name == "epoch_3-val_f2_0.61"
    assert added.notes == ("it is named epoch_3-val_f2_0.61; choose another name with --name",)
    assert zoo.manifest.models[-1].checkpoint == added.model.checkpoint


FACTORY = """
import timm, torch

class Pair(torch.nn.Module):
    def __init__(self, outputs, culture):
        super().__init__()
        self.body = timm.create_model("test_resnet", num_classes=0)
        width = self.body.num_features
        self.culture, self.tag = torch.nn.Linear(width, culture), torch.nn.Linear(width, outputs - culture)

    def forward(self, image):
        seen = self.body(image)
        return {"culture": self.culture(seen), "tag": self.tag(seen)}

def build(outputs, culture=0):
    return Pair(outputs, culture)
"""


def test_a_factory_stands_in_the_manifest_with_its_hash(zoo: Zoo) -> None:
    file = zoo.home / "nets.py"
    file.write_text(FACTORY)
    names: dict[str, object] = {}
    exec(FACTORY, names)
    torch.save(names["Pair"](5, 2).state_dict(), zoo.home / "pair.pth")  # type: ignore[operator]
    settings = {"architecture": None, "factory": f"{file}:build", "arguments": '{"culture": 2}', "group": "all"}
    model = zoo.add_declared(file="pair.pth", **settings)
    assert model.architecture == "nets.py:build"
    assert model.factory == Factory("nets.py", hashlib.sha256(file.read_bytes()).hexdigest(), "build", {"culture": 2})
    config = timm.get_pretrained_cfg("test_resnet")
    assert config is not None and model.mean == config.mean


def test_a_grey_network_has_one_mean(zoo: Zoo) -> None:
    torch.save(timm.create_model("test_resnet", num_classes=3, in_chans=1).state_dict(), zoo.home / "grey.pth")
    model = zoo.add_declared(file="grey.pth", channels=1)
    assert model.channels == len(model.mean) == len(model.std) == 1
    model = zoo.add_declared(file="grey.pth", channels=1, mean=(0.3,), std=(0.2,), name="own")
    assert (model.mean, model.std) == ((0.3,), (0.2,))


def test_features_have_no_weight(zoo: Zoo) -> None:
    write_network(zoo.home / "imagenet.safetensors", "test_resnet", 7, seed=1)
    model = zoo.add_declared(file="imagenet.safetensors", group="features", outputs=7, activation="softmax")
    assert (model.group, model.outputs, model.activation) == ("features", 7, "softmax")
    assert zoo.manifest.ensemble.weights == {"culture": {}, "tag": {}}


def test_out_of_fold_features_without_bounds_are_float32(zoo: Zoo) -> None:
    write_network(zoo.home / "seen.safetensors", "test_resnet", 4, seed=1)
    scores = zoo.home / "seen.oof.npy"
    scores.with_suffix(".ids.txt").write_text("a\nb\n")
    np.save(scores, np.full((2, 4), 1e6, np.float32))
    settings = {"file": "seen.safetensors", "group": "features", "outputs": 4, "oof": scores}
    with pytest.raises(VitrineError) as error:
        zoo.add(**settings)  # type: ignore[arg-type]
    assert str(error.value) == f"{scores}: found float32 (2, 4); wanted float16 (2, 4) after seen.oof.ids.txt"
    assert zoo.add_declared(**settings, activation="identity").out_of_fold is not None


def test_a_fitted_second_stage_is_kept_and_said_to_be_old(zoo: Zoo) -> None:
    zoo.add(file="one.safetensors")
    fitted = dataclasses.replace(zoo.manifest.ensemble, fitted_for="0" * 64)
    write_manifest(dataclasses.replace(zoo.manifest, ensemble=fitted), zoo.path)
    assert zoo.add(file="two.safetensors").notes == (
        "the second stage was fitted without two: run `build_kernel.py ensemble` again; until then `pack` wants "
        "--without-stackers",
    )
    assert zoo.manifest.ensemble.fitted_for == "0" * 64


def test_out_of_fold_predictions_are_declared_with_their_ids(zoo: Zoo) -> None:
    scores = zoo.home / "new.oof.npy"
    np.save(scores, np.zeros((2, 3), np.float16))
    scores.with_suffix(".ids.txt").write_text("a\nb\n")
    zoo.add(oof=scores)
    entry = zoo.manifest.models[-1].out_of_fold
    assert entry is not None and (entry.scores.file, entry.ids.file) == ("new.oof.npy", "new.oof.ids.txt")


def test_out_of_fold_predictions_of_another_shape_are_refused(zoo: Zoo) -> None:
    scores = zoo.home / "new.oof.npy"
    np.save(scores, np.zeros((2, 5), np.float16))
    scores.with_suffix(".ids.txt").write_text("a\nb\n")
    before = zoo.path.read_bytes()
    with pytest.raises(VitrineError) as error:
        zoo.add(oof=scores)
    assert str(error.value) == f"{scores}: found float16 (2, 5); wanted float16 (2, 3) after new.oof.ids.txt"
    assert zoo.path.read_bytes() == before


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code of a checkpoint was run",)


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weights": Evil()}))


def write_other_head(path: Path) -> None:
    torch.save(timm.create_model("test_resnet", num_classes=7).state_dict(), path)


def write_nan(path: Path) -> None:
    state = timm.create_model("test_resnet", num_classes=3).state_dict()
    state["fc.weight"][0, 0] = np.nan
    torch.save(state, path)


@pytest.mark.parametrize("write", [write_pickle, write_other_head, write_nan])
def test_a_checkpoint_that_cannot_be_used_is_named_and_leaves_the_manifest_unchanged(
    write: Callable[[Path], None], zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    path = zoo.home / "x.pth"
    write(path)
    before = zoo.path.read_bytes()
    with pytest.raises(CheckpointError) as error:
        zoo.add(file="x.pth")
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert zoo.path.read_bytes() == before
    assert "code of a checkpoint" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architecture": "test_resnett"},
            f"model net: `architecture`: found 'test_resnett'; wanted a network of timm {timm.__version__}; did you "
            "mean test_resnet",
        ),
        ({"architecture": "test_vit", "image_size": 40}, "model net: `"),
    ],
)
def test_a_network_that_cannot_be_built_is_named(changes: dict[str, object], message: str, zoo: Zoo) -> None:
    before = zoo.path.read_bytes()
    with pytest.raises(CheckpointError) as error:
        zoo.add(**changes)  # type: ignore[arg-type]
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
    assert zoo.path.read_bytes() == before


def test_a_checkpoint_outside_the_manifests_folder_is_refused(zoo: Zoo, tmp_path: Path) -> None:
    path = write_network(tmp_path / "x.safetensors", "test_resnet", 3, seed=1)
    with pytest.raises(VitrineError) as error:
        zoo.add(file="../x.safetensors")
    assert str(error.value) == (
        f"{zoo.home}/../{path.name}: lies outside the manifest's folder {zoo.home}; move it there or choose another "
        "--manifest"
    )


@pytest.mark.parametrize("group", [None, "labels"])
def test_a_model_of_another_competition_has_all_labels_of_its_single_group(group: str | None, tmp_path: Path) -> None:
    labels = write_rows(tmp_path / "labels.csv", ("label_id", "label_name"), [(0, "red figure"), (1, "tile, blue")])
    train = write_rows(tmp_path / "train.csv", ("id", "labels"), [("a 1.jpg", 0), ("b.jpg", 1)])
    form = Form(layout="wide", content="probability", sum_to_one=True)
    task = Task(type="multiclass", submission=form, metric=Metric("log_loss"))
    path = tmp_path / MANIFEST_NAME
    write_manifest(create_manifest(path, labels, train, task), path)
    scores = tmp_path / "new.oof.npy"
    np.save(scores, np.full((2, 2), 0.5, np.float32))
    scores.with_suffix(".ids.txt").write_text("a 1.jpg\nb.jpg\n")
    checkpoint = write_network(tmp_path / "new.safetensors", "test_resnet", 2, seed=1)
    add_model(path, Addition(checkpoint, "test_resnet", 64, group, oof=scores))
    manifest = read_manifest(path)
    assert manifest.task == task and [model.group for model in manifest.models] == [group or "all"]
    assert manifest.ensemble.weights == {"labels": {"new": 1.0}}


def test_a_new_manifest_needs_labels_and_train(zoo: Zoo) -> None:
    zoo.path.unlink()
    with pytest.raises(VitrineError) as error:
        zoo.add()
    assert str(error.value) == (
        f"{zoo.path}: no such file; give --labels labels.csv and --train train.csv to start one"
    )


def test_the_prior_is_the_best_constant_answer(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    rows: list[tuple[object, ...]] = [(index, f"{'culture' if index % 3 else 'tag'}::{index}") for index in range(12)]
    labels = write_rows(tmp_path / "labels.csv", ("attribute_id", "attribute_name"), rows)
    truth = random.random((300, 12)) < np.linspace(0.7, 0.02, 12)
    truth[~truth.any(axis=1), 0] = True
    cells = [(row, " ".join(map(str, np.flatnonzero(given)))) for row, given in enumerate(truth)]
    train = write_rows(tmp_path / "train.csv", ("id", "attribute_ids"), cells)
    names = read_labels(labels, {"culture": "culture::", "tag": "tag::"})
    groups = choose_prior(read_table(train, names, Task()), names, 2.0)
    prior = sorted(groups["culture"] + groups["tag"])

    def score(ids: list[int]) -> float:
        given = np.zeros_like(truth)
        given[:, ids] = True
        return float(fbeta_score(truth, given, beta=2, average="samples"))

    frequent = np.argsort(-truth.sum(axis=0), kind="stable")
    best = max(score(frequent[:count].tolist()) for count in range(1, 13))
    assert score(prior) == pytest.approx(best)
    assert 1 < len(prior) < 12
    assert groups == {
        "culture": tuple(label for label in prior if label % 3),
        "tag": tuple(label for label in prior if not label % 3),
    }
    # A group alone, beside the other one predicted without an error: no label outside of its prior helps.
    for group in names.groups:
        ids = list(groups[group])
        own = [names.ids[column] for column in names.columns(group)]
        known = np.where([label in own for label in range(12)], False, truth)

        def score_beside(group_ids: list[int], known: NDArray[np.bool_] = known) -> float:
            given = known.copy()
            given[:, group_ids] = True
            return float(fbeta_score(truth, given, beta=2, average="samples"))

        assert all(score_beside([*ids, label]) < score_beside(ids) for label in own if label not in ids)


def test_no_temporary_file_stays_beside_the_manifest(zoo: Zoo) -> None:
    zoo.add()
    assert sorted(path.name for path in zoo.home.iterdir()) == [
        "labels.csv", "net.safetensors", "train.csv", "weights_manifest.json"
    ]  # fmt: skip
