import dataclasses
from collections.abc import Callable

import pytest

from inference.manifest.decision import Decision
from inference.manifest.model import FileEntry, Model, OnnxEntry, OutOfFold, Resize
from inference.manifest.records import Ensemble, LabelsEntry, Manifest, Runtime
from inference.manifest.task import Metric, Task
from zoo.fitted_for import describe_changes, hash_fitted, is_stale

NETWORK = Model(
    "one",
    "test_resnet",
    "all",
    64,
    (0.5,),
    (0.5,),
    "bicubic",
    checkpoint=FileEntry("one.pth", "a" * 64),
    out_of_fold=OutOfFold(FileEntry("one.npy", "b" * 64), FileEntry("one.txt", "c" * 64)),
)
ZOO = Manifest(
    labels=LabelsEntry("labels.csv", "d" * 64, {"tag": "tag::"}),
    models=(NETWORK, dataclasses.replace(NETWORK, name="two")),
    ensemble=Ensemble({"tag": {"one": 1.0, "two": 1.0}}, values={"one": {"identity": 0.1}, "two": {"identity": 0.1}}),
    decision=Decision({}, {}),
)
FITTED = dataclasses.replace(ZOO, ensemble=dataclasses.replace(ZOO.ensemble, fitted_for=hash_fitted(ZOO)))


def change_model(**changes: object) -> Callable[[Manifest], Manifest]:
    def change(zoo: Manifest) -> Manifest:
        first, *others = zoo.models
        return dataclasses.replace(zoo, models=(dataclasses.replace(first, **changes), *others))

    return change


def change_labels(**changes: object) -> Callable[[Manifest], Manifest]:
    return lambda zoo: dataclasses.replace(zoo, labels=dataclasses.replace(zoo.labels, **changes))


def add_third(zoo: Manifest) -> Manifest:
    return dataclasses.replace(zoo, models=(*zoo.models, dataclasses.replace(NETWORK, name="three")))


OTHER = FileEntry("one.npy", "e" * 64)


@pytest.mark.parametrize(
    "change",
    [
        add_third,
        lambda zoo: dataclasses.replace(zoo, models=zoo.models[:1]),
        lambda zoo: dataclasses.replace(zoo, task=Task(metric=Metric(beta=1.0))),
        change_labels(sha256="f" * 64),
        change_labels(exchanged={"hflip": ((0, 1),)}),
        change_model(name="uno"),
        change_model(member="pair"),
        change_model(group="tag"),
        change_model(fold=1),
        change_model(views=("identity",)),
        change_model(merge="maximum"),
        change_model(activation="identity"),
        change_model(label_order=(1, 0)),
        change_model(checkpoint=FileEntry("one.pth", "e" * 64)),
        change_model(out_of_fold=OutOfFold(OTHER, FileEntry("one.txt", "c" * 64))),
        change_model(out_of_fold=OutOfFold(FileEntry("one.npy", "b" * 64), OTHER)),
        change_model(out_of_fold=None),
    ],
)
def test_a_second_stage_is_stale_after_a_change_of_what_it_was_fitted_for(
    change: Callable[[Manifest], Manifest],
) -> None:
    assert not is_stale(FITTED)
    assert is_stale(change(FITTED))


@pytest.mark.parametrize(
    "change",
    [
        change_model(onnx={"fp32": OnnxEntry("one.onnx", "e" * 64, 17, 0.0, "f" * 64)}),
        change_model(checkpoint=FileEntry("elsewhere/one.pth", "a" * 64)),
        change_model(resize=Resize()),
        change_labels(file="elsewhere/labels.csv"),
        lambda zoo: dataclasses.replace(zoo, runtime=Runtime(time_limit=3600)),
        lambda zoo: dataclasses.replace(
            zoo, ensemble=dataclasses.replace(zoo.ensemble, weights={"tag": {"one": 0.3, "two": 0.7}})
        ),
    ],
)
def test_files_that_move_exports_and_limits_do_not_make_it_stale(change: Callable[[Manifest], Manifest]) -> None:
    assert not is_stale(change(FITTED))


def test_a_zoo_without_a_fit_is_not_stale() -> None:
    assert not is_stale(ZOO) and not is_stale(add_third(ZOO))


def test_the_changes_are_named_as_far_as_they_are_known() -> None:
    assert describe_changes(add_third(FITTED)) == "added: three"
    assert describe_changes(change_model(fold=1)(FITTED)) == (
        "a model was removed, or its files, views or entries, the labels or the task changed"
    )
