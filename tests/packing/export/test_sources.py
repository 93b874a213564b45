import dataclasses
from typing import Any

import pytest

from inference.manifest.decision import Decision
from inference.manifest.labels import Labels
from inference.manifest.model import Factory, FileEntry, Model, OnnxEntry, Resize
from inference.manifest.records import Ensemble, LabelsEntry, Manifest
from inference.manifest.task import Task
from packing.export.sources import hash_source

LABELS = Labels((3, 5, 8), ("left", "right", "other"), {"labels": (0, 1, 2)})
CHECKPOINT = FileEntry("net.pth", "a" * 64)
MODEL = Model("net", "resnet18", "all", 64, (0.5,) * 3, (0.5,) * 3, "bilinear", checkpoint=CHECKPOINT)


def make_manifest(**labels: Any) -> Manifest:
    entry = LabelsEntry("labels.csv", "b" * 64, {"labels": ""}, **labels)
    return Manifest(entry, (MODEL,), Ensemble({"labels": {"net": 1.0}}), Decision({}, {}))


def change(**changes: Any) -> Model:
    return dataclasses.replace(MODEL, **changes)


@pytest.mark.parametrize(
    "model",
    [
        change(checkpoint=FileEntry("net.pth", "c" * 64)),
        change(ema=False),
        change(architecture="resnet34"),
        change(factory=Factory("own.py", "d" * 64, "build")),
        change(factory=Factory("own.py", "d" * 64, "build", {"pool": "gem"})),
        change(factory=Factory("own.py", "e" * 64, "build")),
        change(layout="nchw"),
        change(image_size=96),
        change(image_size=(64, 96)),
        change(mean=(0.0,) * 3),
        change(std=(1.0,) * 3),
        change(mean=(0.5,), std=(0.5,)),
        change(group="features", outputs=3),
        change(group="features", outputs=4),
        change(views=("hflip", "identity")),
        change(views=("identity",)),
        change(views=("identity", "hflip", "top_left"), resize=Resize("squash", 0.5)),
        change(views=("identity", "hflip", "top_left"), resize=Resize("squash", 0.75)),
        change(merge="maximum"),
        change(activation="softmax"),
        change(label_order=(5, 3, 8)),
    ],
)
def test_a_change_of_an_input_of_the_graph_changes_the_hash(model: Model) -> None:
    manifest = make_manifest()
    assert hash_source(manifest, model, LABELS) != hash_source(manifest, MODEL, LABELS)
    assert hash_source(manifest, model, LABELS) == hash_source(manifest, dataclasses.replace(model), LABELS)


def test_the_task_the_labels_and_their_exchange_are_inputs_too() -> None:
    manifest = make_manifest()
    found = {
        hash_source(manifest, MODEL, LABELS),
        hash_source(dataclasses.replace(manifest, task=Task(type="multiclass")), MODEL, LABELS),
        hash_source(make_manifest(exchanged={"hflip": ((3, 5),)}), MODEL, LABELS),
        hash_source(manifest, MODEL, dataclasses.replace(LABELS, ids=(5, 3, 8))),
    }
    assert len(found) == 4


@pytest.mark.parametrize(
    "model",
    [
        change(name="other"),
        change(resize=Resize("crop", 0.5)),
        change(interpolation="bicubic"),
        change(fold=1, member="b"),
        change(views=("identity", "hflip", "scale_125")),
        change(checkpoint=FileEntry("moved.pth", "a" * 64)),
    ],
)
def test_what_the_graph_does_not_depend_on_does_not_change_the_hash(model: Model) -> None:
    manifest = make_manifest()
    assert hash_source(manifest, model, LABELS) == hash_source(manifest, MODEL, LABELS)


def test_an_exchange_that_concerns_no_view_does_not_change_the_hash() -> None:
    model = change(views=("identity", "vflip"))
    exchanged = make_manifest(exchanged={"hflip": ((3, 5),)})
    assert hash_source(exchanged, model, LABELS) == hash_source(make_manifest(), model, LABELS)


def test_a_ready_made_graph_is_what_its_entry_declares() -> None:
    entry = OnnxEntry("net.onnx", "f" * 64, 18, 0.0, "9" * 64)
    model = change(checkpoint=None, onnx={"fp32": entry})
    assert hash_source(make_manifest(), model, LABELS) == "9" * 64
    assert hash_source(make_manifest(), change(checkpoint=None), LABELS) == ""
