# ruff: noqa: E501 (a table of changes and messages, with one row per line)
"""set on manifests: values by their keys, all or nothing."""

import json
from pathlib import Path

import pytest

import build_kernel
from inference.manifest.decision import Decision, GroupDecision
from inference.manifest.file import read_manifest, write_manifest
from inference.manifest.model import Model
from inference.manifest.records import Ensemble, LabelsEntry, Manifest

MODEL = Model("res.net_f0", "test_resnet", "labels", 64, (0.5,) * 3, (0.5,) * 3, "bilinear", fold=0)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "weights_manifest.json"
    labels = LabelsEntry("labels.csv", "0" * 64, {"labels": ""})
    weights = Ensemble({"labels": {MODEL.name: 1.0}})
    decision = Decision({"labels": GroupDecision(0.2, 0, 8)}, {"labels": (0,)})
    write_manifest(Manifest(labels, (MODEL,), weights, decision), path)
    return path


def read_value(path: Path, *keys: str | int) -> object:
    value = json.loads(path.read_text())
    for key in keys:
        value = value[key]
    return value


@pytest.mark.parametrize(
    ("change", "keys", "value", "line"),
    [
        ("runtime.time_limit=4h", ("runtime", "time_limit"), 14400, "32400 -> 14400"),
        ("runtime.time_limit=90m", ("runtime", "time_limit"), 5400, "32400 -> 5400"),
        ("runtime.notebook_reserve=60", ("runtime", "notebook_reserve"), 60, "300 -> 60"),
        ("runtime.draft=4", ("runtime", "draft"), 4.0, "null -> 4"),
        ("task.metric.beta=0.5", ("task", "metric", "beta"), 0.5, "2.0 -> 0.5"),
        ("task.competition=paddy", ("task", "competition"), "paddy", '"imet-2019-fgvc6" -> "paddy"'),
        ("task.competition=2020", ("task", "competition"), "2020", '"imet-2019-fgvc6" -> "2020"'),
        ("task.submission.separator=, ", ("task", "submission", "separator"), ", ", '" " -> ", "'),
        ('task.submission.separator="; "', ("task", "submission", "separator"), "; ", '" " -> "; "'),
        ("task.images.path=a=b/{id}", ("task", "images", "path"), "a=b/{id}", '"test/{id}" -> "a=b/{id}"'),
        ("task.images.table=test.csv", ("task", "images", "table"), "test.csv", 'null -> "test.csv"'),
        ("models[0].image_size=96", ("models", 0, "image_size"), 96, "64 -> 96"),
        ("models.0.fold=3", ("models", 0, "fold"), 3, "0 -> 3"),
        ("models.0.fold=null", ("models", 0, "fold"), None, "0 -> null"),
        ("models[0].mean[1]=0.25", ("models", 0, "mean", 1), 0.25, "0.5 -> 0.25"),
        ('models[0].views=["identity"]', ("models", 0, "views"), ["identity"], '["identity", "hflip"] -> ["identity"]'),
        ("ensemble.weights.labels.res.net_f0=0.5", ("ensemble", "weights", "labels", "res.net_f0"), 0.5, "1.0 -> 0.5"),
    ],
)
def test_a_value_is_changed_and_printed(
    change: str,
    keys: tuple[str | int, ...],
    value: object,
    line: str,
    manifest: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = json.loads(manifest.read_text())
    assert build_kernel.main(["set", change, "--manifest", str(manifest)]) == 0
    assert capsys.readouterr().out == f"{manifest}: {change.partition('=')[0]}: {line}\n"
    assert read_value(manifest, *keys) == value
    place = before
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    assert json.loads(manifest.read_text()) == before and read_manifest(manifest)


LIMIT = "runtime.time_limit=4h"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("time",), "set: found 'time'; wanted KEY=VALUE, as in runtime.time_limit=4h"),
        (("=4",), "set: found '=4'; wanted KEY=VALUE, as in runtime.time_limit=4h"),
        ((LIMIT, LIMIT), "set: found runtime.time_limit twice; wanted each key once"),
        ((LIMIT, "runtime.time_limits=4"), "weights_manifest.json: `runtime.time_limits`: unknown key; did you mean `runtime.time_limit`?"),
        ((LIMIT, "runtimes.draft=4"), "`runtimes`: unknown key; did you mean `runtime`?"),
        ((LIMIT, "xyz.a=4"), "`xyz`: unknown key; known keys: decision, ensemble, labels, models, runtime, schema_version, task"),
        ((LIMIT, "models[1].fold=4"), "`models[1]`: no such entry; `models` has 1, counted from 0"),
        ((LIMIT, "models.x.fold=4"), "`models[x]`: no such entry; `models` has 1, counted from 0"),
        ((LIMIT, "task.competition.name=x"), "`task.competition.name`: `task.competition` is \"imet-2019-fgvc6\", which has no parts; set `task.competition` itself"),
        (("runtime.time_limit=soon",), "runtime.time_limit: found 'soon'; wanted a time such as 9h, 90m or 32400"),
        ((LIMIT, "runtime.batch_size=0"), "weights_manifest.json: `runtime.batch_size`: found 0; wanted a whole number from 1 to 4096"),
        ((LIMIT, "runtime.batch_size=many"), 'weights_manifest.json: `runtime.batch_size`: found "many"; wanted a whole number'),
        ((LIMIT, "task.images.path=../{id}"), "weights_manifest.json: `task.images.path`: found \"../{id}\"; wanted a path below the competition's folder, with / and without .."),
        ((LIMIT, "models[0].group=tags"), "weights_manifest.json: `models[0].group`: found \"tags\"; wanted 'all', 'features' or a group of `labels.groups`: labels"),
    ],
)  # fmt: skip
def test_nothing_is_written_if_one_change_is_wrong(
    changes: tuple[str, ...], message: str, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = manifest.read_bytes()
    assert build_kernel.main(["set", *changes, "--manifest", str(manifest)]) == 1
    said = capsys.readouterr()
    assert (said.err, said.out) == (f"error: {message}\n", "")
    assert manifest.read_bytes() == before and [path.name for path in manifest.parent.iterdir()] == [manifest.name]


def test_several_values_are_changed_together(manifest: Path) -> None:
    changes = ["task.type=binary", "task.submission.layout=wide", "task.submission.content=probability"]
    changes += ["task.metric.name=roc_auc", "task.submission.column=target", "decision.rule=probabilities"]
    changes += ["decision.groups={}", "decision.prior={}", "decision.prior_scores=[0.1]"]
    assert build_kernel.main(["set", *changes, "--manifest", str(manifest)]) == 0
    assert read_manifest(manifest).task.type == "binary"
