"""fp16 and int8 exports of a small zoo, compared with torch, scikit-learn and slow loops."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.metrics import fbeta_score

from inference.basics.errors import ImagesError, TableError
from inference.images.geometry import read_geometry, resize_image
from inference.images.read import read_image
from inference.manifest.decision import Decision, Fitted
from inference.manifest.file import MANIFEST_NAME, read_manifest
from inference.manifest.labels import Labels, read_labels
from inference.manifest.model import Model, OnnxEntry
from inference.manifest.records import Ensemble, Manifest
from inference.manifest.task import Task
from inference.manifest.values import DecisionRule
from packing.export import export_model as export
from packing.export.example_images import Examples, read_examples
from packing.export.export_zoo import export_zoo
from packing.export.graphs.int8 import widen_groups
from packing.export.losses import describe_entry
from packing.export.parity import Judge, Parity
from tests.conftest import LABELS, ZOO, Precise, Workshop, write_rows
from tests.packing.export.test_losses import make_task
from zoo.networks import open_network

LIMITS = {"fp16": 0.02, "int8": 0.5}  # difference in probability from torch; the heads have forty times the weights


def ask_torch(precise: Precise, model: Model, paths: list[Path]) -> np.ndarray:
    network = open_network(model, precise.home, read_names(precise)).module
    squares = np.stack([resize_image(read_image(path), read_geometry(model)) for path in paths])
    images = torch.from_numpy(squares).permute(0, 3, 1, 2).double() / 255
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (model.mean, model.std))
    with torch.inference_mode():
        answer: np.ndarray = torch.sigmoid(network.double()((images - mean) / std)).numpy()
    return answer


def ask_onnx(path: Path, model: Model, paths: list[Path]) -> np.ndarray:
    squares = np.stack([resize_image(read_image(image), read_geometry(model)) for image in paths])
    (answer,) = onnxruntime.InferenceSession(path).run(None, {"image": squares, "views": np.array([0])})
    assert answer.dtype == np.float32
    return answer


def decide_by_hand(scores: np.ndarray, model: Model, manifest: Manifest) -> np.ndarray:
    """Select the labels at or above each group's threshold, at most `maximum`; if there are none, the best."""
    names = [label for label in LABELS if model.group in ("all", label.partition("::")[0])]
    selected = np.zeros(scores.shape, bool)
    for row, own in enumerate(scores):
        for group, rule in manifest.decision.groups.items():
            ranked = sorted((c for c, name in enumerate(names) if name.startswith(group)), key=lambda c: -own[c])
            for rank, column in enumerate(ranked):
                selected[row, column] = (own[column] >= rule.threshold and rank < rule.maximum) or rank < rule.minimum
        if not selected[row].any():
            selected[row, own.argmax()] = True
    return selected


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("name", ZOO)
def test_the_manifests_figures_of_a_precision_are_correct(name: str, precision: str, precise: Precise) -> None:
    manifest = precise.manifest
    model = next(model for model in manifest.models if model.name == name)
    entry = model.onnx[precision]  # type: ignore[index]
    paths = sorted(precise.images.iterdir())[:24]  # the other twelve are for calibration
    wanted, answer = ask_torch(precise, model, paths), ask_onnx(precise.onnx / entry.file, model, paths)
    assert np.abs(answer - wanted).max() == pytest.approx(entry.parity, abs=1e-4)
    assert 0 < entry.parity < LIMITS[precision]
    fp32 = ask_onnx(precise.onnx / f"{name}.onnx", model, paths)
    decided, whole = (decide_by_hand(scores, model, manifest) for scores in (answer, fp32))
    assert entry.flips == pytest.approx((decided ^ whole).sum() / whole.sum())
    names = [label for label in LABELS if model.group in ("all", label.partition("::")[0])]
    true = np.array(
        [[LABELS.index(label) in (index % 2, 2 + index % 3) for label in names] for index in range(len(paths))]
    )
    scores = [fbeta_score(true, given, beta=2, average="samples", zero_division=0) for given in (whole, decided)]
    assert entry.metric_loss == pytest.approx(scores[0] - scores[1])


@pytest.mark.parametrize("name", ZOO)
def test_fp16_has_half_the_weights_and_normalises_and_ends_in_fp32(name: str, precise: Precise) -> None:
    whole, half = precise.onnx / f"{name}.onnx", precise.onnx / f"{name}.fp16.onnx"
    graph = onnx.load(half).graph
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    onnx.checker.check_model(onnx.load(half))
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert {kinds[node.input[1]] for node in layers} == {onnx.TensorProto.FLOAT16}
    assert {kinds["scale"], kinds["shift"]} == {onnx.TensorProto.FLOAT}
    casts = [node for node in graph.node if node.op_type == "Cast"]
    assert len(casts) == 3, "bytes to fp32, the normalised image to fp16, the logits to fp32"
    assert half.stat().st_size < 0.75 * whole.stat().st_size


def test_int8_convolves_in_integers(precise: Precise) -> None:
    path = precise.onnx / "everything.int8.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(precise.onnx.parent / "optimized.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    assert kinds.count("QLinearConv") > 5 > kinds.count("Conv") + kinds.count("FusedConv")


def make_grouped() -> onnx.ModelProto:
    """Make a convolution in 16 groups of 4, and a depthwise one."""
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(32, 4, 3, 3)), "d": random.normal(size=(32, 1, 3, 3))}
    tensors = [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["a"], "grouped", group=16),
        onnx.helper.make_node("Conv", ["a", "d"], ["y"], "depthwise", group=32),
    ]
    inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 64, 9, 9])]
    outputs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 32, 5, 5])]
    graph = onnx.helper.make_graph(nodes, "grouped", inputs, outputs, tensors)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def test_wide_groups_do_not_change_the_output() -> None:
    model = make_grouped()
    image = np.random.default_rng(1).normal(size=(2, 64, 9, 9)).astype(np.float32)
    wanted = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": image})[0]
    widen_groups(model.graph)
    answer = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": image})[0]
    np.testing.assert_allclose(answer, wanted, rtol=1e-4, atol=1e-5)
    groups = {node.name: [a.i for a in node.attribute if a.name == "group"] for node in model.graph.node}
    assert groups == {"grouped": [2], "depthwise": [32]}


def test_a_precision_is_kept_until_one_of_its_inputs_changes(precise: Precise, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(precise.onnx, tmp_path / "onnx"))
    before = {path.name: path.stat().st_mtime_ns for path in copy.glob("*.onnx")}
    manifest = precise.home / MANIFEST_NAME
    export_zoo(manifest, copy, precise.images, ("int8", "fp16"), precise.train)
    assert {path.name: path.stat().st_mtime_ns for path in copy.glob("*.onnx")} == before
    export_zoo(manifest, copy, precise.images, ("fp16",))
    after = {path.name: path.stat().st_mtime_ns for path in copy.glob("*.onnx")}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"{name}.fp16.onnx" for name in ZOO}, "without the truth, the loss must be measured again"
    assert {precision for model in read_manifest(copy / MANIFEST_NAME).models for precision in model.onnx} == {
        "fp32",
        "fp16",
    }


def test_a_precision_in_which_a_model_fails_is_skipped_with_a_note(
    precise: Precise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(precise.onnx, tmp_path / "onnx"))
    (copy / "tag.fp16.onnx").unlink()

    def overflow(graph: onnx.ModelProto) -> onnx.ModelProto:
        head = next(node for node in graph.graph.node if node.op_type == "Gemm")
        tensor = next(tensor for tensor in graph.graph.initializer if tensor.name == head.input[1])
        weights = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.full_like(weights, np.nan), tensor.name))
        return graph

    monkeypatch.setattr(export, "halve_graph", overflow)
    export_zoo(precise.home / MANIFEST_NAME, copy, precise.images, ("fp16", "int8"), precise.train)
    models = {model.name: set(model.onnx) for model in read_manifest(copy / MANIFEST_NAME).models}
    assert models["tag"] == {"fp32", "int8"} and models["culture"] == {"fp32", "fp16", "int8"}
    note = "note: tag: fp16 skipped: model tag: its output is not a probability: NaN or outside [0, 1]"
    assert note in capsys.readouterr().err
    assert not (copy / "tag.fp16.onnx").exists()


@pytest.mark.parametrize(
    ("broken", "error", "message"),
    [
        ("few", ImagesError, "{images}: found 20 images; wanted 24 for parity and int8 calibration; add images"),
        (
            "unknown",
            ImagesError,
            "{images}: found 1 images with a row in {train}; wanted 24 for parity and int8 calibration; add images",
        ),
        (
            "word",
            TableError,
            "{train}: image 000000000000: found attribute_ids '0 two'; wanted ids or names of labels; "
            "correct the cell, or leave it empty for no label",
        ),
        ("label", TableError, "{train}: image 000000000000: found attribute_ids '0 77'; label 77 is not in labels.csv"),
    ],
)
def test_invalid_images_or_labels_are_refused(
    broken: str, error: type[Exception], message: str, precise: Precise, workshop: Workshop, tmp_path: Path
) -> None:
    images = workshop.images if broken == "few" else precise.images
    train: Path | None = tmp_path / "train.csv"
    ids = [f"{index:012x}" for index in range(36)]
    first = {"unknown": "0", "word": "0 two", "label": "0 77"}.get(broken, "0")
    rows: list[tuple[object, ...]] = [(ids[0], first)]
    rows += [] if broken == "unknown" else [(name, "0") for name in ids[1:]]
    write_rows(tmp_path / "train.csv", ("id", "attribute_ids"), rows)
    train = None if broken == "few" else train
    with pytest.raises(error) as raised:
        export_zoo(workshop.manifest, tmp_path / "onnx", images, ("int8",), train)
    assert str(raised.value) == message.format(images=images, train=train)


def test_no_image_is_used_for_both_parity_and_calibration(precise: Precise) -> None:
    names = read_names(precise)
    models = precise.manifest.models
    examples = read_examples(precise.images, 30, True, models, names, Task())
    assert (len(examples.measured), len(examples.calibrated)) == (20, 10)
    assert not set(examples.measured) & set(examples.calibrated)
    assert read_examples(precise.images, 30, False, models, names, Task()).calibrated == ()


def test_int8_keeps_more_layers_in_fp32_until_the_loss_is_allowed(
    precise: Precise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def quantize(path: Path, out: Path, batches: object, kept: int, view: int) -> None:
        tried.append(kept)
        shutil.copyfile(path, out)

    losses = iter([0.5, 0.004, 0.003, 0.002])
    monkeypatch.setattr(export, "quantize_graph", quantize)
    monkeypatch.setattr(Judge, "measure", lambda *_: Parity(0.1, 0.2, next(losses)))
    model = next(model for model in precise.manifest.models if model.name == "tag")
    judge = make_judge(precise, model)
    judge.limit = 0.003
    fp32, whole = model.onnx["fp32"], precise.onnx / "tag.onnx"
    entry = export.reduce_model("int8", fp32, whole, tmp_path / "tag.int8.onnx", "0" * 64, judge)
    assert (tried, entry.parity, entry.flips, entry.metric_loss) == ([1, 3, 6], 0.1, 0.2, 0.003)


def make_judge(precise: Precise, model: Model) -> Judge:
    manifest = precise.manifest
    labels = read_names(precise)
    return Judge(manifest, model, labels, read_examples(precise.images, 36, True, [model], labels, Task()))


def read_names(precise: Precise) -> Labels:
    entry = precise.manifest.labels
    return read_labels(precise.home / entry.file, entry.groups)


@pytest.mark.parametrize("kind", ["accuracy", "rmse"])
def test_a_judge_measures_the_answers_of_the_task(kind: str, precise: Precise) -> None:
    task, model, labels = make_task(kind), precise.manifest.models[0], Labels((0, 1), ("a", "b"), {"labels": (0, 1)})
    if kind == "rmse":
        labels = Labels((0,), ("a",), {"labels": (0,)})
    rule: DecisionRule = "number" if kind == "rmse" else "ranked"
    fitted = Fitted(label_weights=() if kind == "rmse" else (1.0, 4.0))
    decision = Decision({}, {}, rule, fitted=fitted, prior_scores=(0.5,) * len(labels.ids))
    manifest = dataclasses.replace(precise.manifest, task=task, decision=decision, ensemble=Ensemble({"labels": {}}))
    judge = Judge(manifest, dataclasses.replace(model, group="all"), labels, Examples((), {}))
    reference = np.array([[0.9, 0.1], [0.79, 0.21], [0.3, 0.7], [0.5, 0.5]], np.float32)[:, : len(labels.ids)]
    scores = np.array([[0.9, 0.1], [0.81, 0.19], [0.2, 0.8], [0.5, 0.5]], np.float32)[:, : len(labels.ids)]
    found = judge.measure(scores, reference)
    assert found.parity == pytest.approx(0.1)
    if kind == "accuracy":
        assert found.flips == found.metric_loss == 0.25, "the second image passes from 4 * 0.21 to 0.81"
    else:
        error, spread = np.sqrt((0.02**2 + 0.1**2) / 4), np.std([0.9, 0.79, 0.3, 0.5])
        assert (found.flips, found.metric_loss) == (0, pytest.approx(error / spread, rel=1e-5))


def test_an_entry_is_described_by_the_tasks_metric() -> None:
    entry = OnnxEntry("x.onnx", "0" * 64, 18, 0.01, "0" * 64, 0.125, 0.02)
    texts = {kind: describe_entry("fp16", entry, 0.5, make_task(kind)) for kind in ("f2", "log_loss")}
    assert texts == {
        "f2": "opset 18  parity 1.0e-02  labels flipped 12.50%  F2 -0.0200",
        "log_loss": "opset 18  parity 1.0e-02  log loss +2.00%",
    }
    refused = describe_entry("fp16", entry, 0.003, make_task("f2"))
    assert refused == f"{texts['f2']}  not used: loses more than 0.003 (`runtime.metric_loss`)"
