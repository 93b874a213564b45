import dataclasses
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from numpy.typing import NDArray
from sklearn.metrics import fbeta_score

from inference.basics.errors import VitrineError
from inference.manifest.file import MANIFEST_NAME, read_manifest, write_manifest
from inference.manifest.labels import read_labels
from inference.manifest.records import FileEntry, Resize
from inference.manifest.task import Form, Metric, Task
from packing.add.add import Addition, add_model
from tests.conftest import Workshop, write_network, write_rows
from zoo.edit import choose_prior, create_manifest
from zoo.tables.train_table import read_table

ADDITION = Addition(Path(), "test_resnet", 64, "tag", "new", "crop", 0.9, fold=2)


def add_tag_model(workshop: Workshop, **changes: object) -> None:
    checkpoint = workshop.home / "tag_resnet.safetensors"
    if not checkpoint.exists():
        write_network(checkpoint, "test_resnet", 3, seed=9)
    add_model(workshop.manifest, dataclasses.replace(ADDITION, **{"checkpoint": checkpoint, **changes}))  # type: ignore[arg-type]


def test_an_added_model_has_its_hash_and_timms_settings(own_workshop: Workshop) -> None:
    add_tag_model(own_workshop)
    manifest = read_manifest(own_workshop.manifest)
    model = manifest.models[-1]
    config = timm.get_pretrained_cfg("test_resnet")
    assert config is not None
    assert (model.mean, model.std, model.interpolation) == (config.mean, config.std, config.interpolation)
    digest = hashlib.sha256((own_workshop.home / "tag_resnet.safetensors").read_bytes()).hexdigest()
    assert model.checkpoint == FileEntry("tag_resnet.safetensors", digest)
    assert (model.name, model.group, model.image_size, model.fold) == ("new", "tag", 64, 2)
    assert model.resize == Resize("crop", 0.9)
    assert manifest.ensemble.weights["tag"] == {"everything": 1.0, "tag": 1.0, "new": 1.0}
    assert "new" not in manifest.ensemble.weights["culture"]


def test_out_of_fold_predictions_are_declared_with_their_ids(own_workshop: Workshop) -> None:
    scores = own_workshop.home / "new.oof.npy"
    np.save(scores, np.zeros((2, 3), np.float16))
    scores.with_suffix(".ids.txt").write_text("a\nb\n")
    add_tag_model(own_workshop, oof=scores)
    entry = read_manifest(own_workshop.manifest).models[-1].out_of_fold
    assert entry is not None and (entry.scores.file, entry.ids.file) == ("new.oof.npy", "new.oof.ids.txt")


def test_out_of_fold_predictions_of_another_shape_are_refused(own_workshop: Workshop) -> None:
    scores = own_workshop.home / "new.oof.npy"
    np.save(scores, np.zeros((2, 5), np.float16))
    scores.with_suffix(".ids.txt").write_text("a\nb\n")
    before = own_workshop.manifest.read_bytes()
    with pytest.raises(VitrineError) as error:
        add_tag_model(own_workshop, oof=scores)
    assert str(error.value) == f"{scores}: found float16 (2, 5); wanted float16 (2, 3) after new.oof.ids.txt"
    assert own_workshop.manifest.read_bytes() == before


@pytest.mark.parametrize("wrapping", ["plain", "module", "state_dict", "model", "state_dict with module"])
def test_a_pth_file_is_read_in_any_common_wrapping(wrapping: str, own_workshop: Workshop) -> None:
    network = timm.create_model("test_resnet", num_classes=3)
    state: dict[str, object] = dict(network.state_dict())
    if "module" in wrapping:
        state = {f"module.{key}": tensor for key, tensor in state.items()}
    if wrapping.startswith("state_dict"):
        state = {"state_dict": state, "epoch": 3}
    if wrapping == "model":
        state = {"model": state}
    torch.save(state, own_workshop.home / "x.pth")
    add_tag_model(own_workshop, checkpoint=own_workshop.home / "x.pth")
    assert read_manifest(own_workshop.manifest).models[-1].name == "new"


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code of a checkpoint was run",)


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weights": Evil()}))


def write_wrapped_pickle(path: Path) -> None:
    torch.save({"state_dict": Evil()}, path)


def write_garbage(path: Path) -> None:
    path.write_bytes(b"garbage")


def write_numbers(path: Path) -> None:
    torch.save({"epoch": 3, "score": 0.5}, path)


def write_state(outputs: int = 3, drop: int = 0, add: int = 0, reshape: str = "") -> object:
    def write(path: Path) -> None:
        state = timm.create_model("test_resnet", num_classes=outputs).state_dict()
        for key in sorted(state)[:drop]:
            del state[key]
        state |= {f"extra.{index}": torch.zeros(1) for index in range(add)}
        if reshape:
            state[reshape] = torch.zeros(1)
        torch.save(state, path)

    return write


MORE_THAN_WEIGHTS = "a pickle that holds more than weights, which may run code; save model.state_dict() instead"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_pickle, MORE_THAN_WEIGHTS),
        (write_wrapped_pickle, MORE_THAN_WEIGHTS),
        (write_garbage, MORE_THAN_WEIGHTS),
        (write_numbers, "found no table of tensors; wanted what model.state_dict() returns"),
        (write_state(outputs=7), "the head `fc.weight` has 7 outputs; wanted 3, one per label of the group"),
        (
            write_state(drop=7),
            "missing `bn1.bias`, `bn1.num_batches_tracked`, `bn1.running_mean`, `bn1.running_var`, `bn1.weight` "
            "and 2 more; is it a checkpoint of test_resnet?",
        ),
        (write_state(add=1), "surplus `extra.0`; is it a checkpoint of test_resnet?"),
        (write_state(reshape="bn1.bias"), "`bn1.bias` is (1,); wanted (32,)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    write: object, message: str, own_workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    path = own_workshop.home / "x.pth"
    write(path)  # type: ignore[operator]
    before = own_workshop.manifest.read_bytes()
    with pytest.raises(VitrineError) as error:
        add_tag_model(own_workshop, checkpoint=path)
    assert str(error.value) == f"{path}: {message}"
    assert own_workshop.manifest.read_bytes() == before
    assert "code of a checkpoint" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "test_resnett"}, "`architecture`: found 'test_resnett'; wanted a network of timm "),
        ({"group": "style"}, "--group: found 'style'; wanted one of: all, culture, tag"),
        ({"group": None}, "--group: missing; wanted one of: all, culture, tag"),
        ({"name": "culture"}, "`models[3].name`: 'culture' is also the name of models[1]; rename one"),
        ({"image_size": 0}, "`image_size`: test_resnet does not take 0 px: "),
    ],
)
def test_an_invalid_model_leaves_the_manifest_unchanged(
    changes: dict[str, object], message: str, own_workshop: Workshop
) -> None:
    before = own_workshop.manifest.read_bytes()
    with pytest.raises(VitrineError) as error:
        add_tag_model(own_workshop, **changes)
    assert message in str(error.value)
    assert own_workshop.manifest.read_bytes() == before


def test_a_checkpoint_outside_the_manifests_folder_is_refused(own_workshop: Workshop, tmp_path: Path) -> None:
    path = write_network(tmp_path / "x.safetensors", "test_resnet", 3, seed=1)
    with pytest.raises(VitrineError) as error:
        add_tag_model(own_workshop, checkpoint=path)
    assert str(error.value) == (
        f"{path}: lies outside the manifest's folder {own_workshop.home}; move it there or choose another --manifest"
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


def test_a_new_manifest_needs_labels_and_train(own_workshop: Workshop) -> None:
    own_workshop.manifest.unlink()
    with pytest.raises(VitrineError) as error:
        add_tag_model(own_workshop)
    assert str(error.value) == (
        f"{own_workshop.manifest}: no such file; give --labels labels.csv and --train train.csv to start one"
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


def test_no_temporary_file_stays_beside_the_manifest(own_workshop: Workshop) -> None:
    add_tag_model(own_workshop)
    assert [path.name for path in own_workshop.home.iterdir() if path.name.startswith(".")] == []
    assert (own_workshop.home / MANIFEST_NAME).exists()


def test_an_invalid_safetensors_file_is_refused(own_workshop: Workshop) -> None:
    path = own_workshop.home / "x.safetensors"
    path.write_bytes(b"garbage")
    with pytest.raises(VitrineError, match=rf"^{path}: not a checkpoint: "):
        add_tag_model(own_workshop, checkpoint=path)
    safetensors.torch.save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(VitrineError, match=rf"^{path}: missing `bn1.bias`, "):
        add_tag_model(own_workshop, checkpoint=path)
