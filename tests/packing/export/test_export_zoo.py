import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from PIL import Image

from inference.basics.errors import ExportError, ImagesError
from inference.basics.files import hash_file
from inference.images.geometry import read_geometry, resize_image
from inference.images.read import read_image
from inference.manifest.file import MANIFEST_NAME, read_manifest, write_manifest
from inference.manifest.labels import Labels, read_labels
from inference.manifest.model import FileEntry, Model, Resize
from inference.models.views import show_view
from packing.export import export_zoo as steps
from packing.export.example_images import read_examples
from packing.export.export_model import Entries, write_fp32
from packing.export.export_zoo import export_zoo
from packing.export.foreign import wrap_foreign
from packing.export.foreign_graph import read_foreign
from packing.export.graphs.network import finish_graph
from packing.export.originals import describe_network, open_original
from packing.export.parity import Judge
from tests.conftest import ROOT, ZOO, Workshop
from zoo.networks import open_network


def make_judge(workshop: Workshop, model: Model) -> Judge:
    manifest = read_manifest(workshop.manifest)
    labels = read_names(workshop)
    return Judge(manifest, model, labels, read_examples(workshop.images, 16, False, [model], labels, manifest.task))


def read_names(workshop: Workshop) -> Labels:
    entry = read_manifest(workshop.manifest).labels
    return read_labels(workshop.home / entry.file, entry.groups)


@pytest.mark.parametrize("name", ZOO)
def test_the_graph_maps_bytes_in_any_batch_to_probabilities(name: str, workshop: Workshop) -> None:
    path = workshop.onnx / f"{name}.onnx"
    graph = onnx.load(path)
    onnx.checker.check_model(graph)
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 18)]
    assert graph.ir_version <= 10
    session = onnxruntime.InferenceSession(path)
    image, views = session.get_inputs()
    size = ZOO[name][2]
    assert (image.name, image.type, image.shape[1:]) == ("image", "tensor(uint8)", [size, size, 3])
    assert (views.name, views.type, len(views.shape)) == ("views", "tensor(int64)", 1)
    assert isinstance(image.shape[0], str) and isinstance(views.shape[0], str), "their number must not be fixed"
    for batch, shown in ((1, [0]), (5, [0, 1])):
        feeds = {"image": np.zeros((batch, size, size, 3), np.uint8), "views": np.array(shown)}
        (answer,) = session.run(None, feeds)
        assert len(answer) == batch and 0 <= answer.min() <= answer.max() <= 1


@pytest.mark.parametrize("flips", [[False], [True], [False, True]])
@pytest.mark.parametrize("name", ZOO)
def test_the_exported_model_matches_torch_on_timms_transform(name: str, flips: list[bool], workshop: Workshop) -> None:
    _, _, size, resize = ZOO[name]
    model = next(model for model in read_manifest(workshop.onnx / MANIFEST_NAME).models if model.name == name)
    session = onnxruntime.InferenceSession(workshop.onnx / f"{name}.onnx")
    network = open_network(model, workshop.home, read_names(workshop)).module
    options = {"input_size": size, "interpolation": model.interpolation, "mean": model.mean, "std": model.std}
    options |= {"crop_pct": resize.percentage, "crop_mode": "squash" if resize.rule == "squash" else "center"}
    normalised = timm.data.create_transform(**options)
    plain = timm.data.create_transform(**options, normalize=False)
    images = [Image.open(path) for path in sorted(workshop.images.iterdir())]
    shown = torch.stack([normalised(image) for image in images])
    with torch.inference_mode():
        each = [torch.sigmoid(network(shown.flip(3) if flip else shown)).numpy() for flip in flips]
    wanted = np.mean(each, axis=0)
    squares = np.stack([plain(image).numpy().transpose(1, 2, 0) for image in images])
    views = np.array([int(flip) for flip in flips])
    (answer,) = session.run(None, {"image": squares, "views": views})
    assert np.abs(answer - wanted).max() < 1e-5
    assert wanted.std(axis=0).max() > 0.01, "the probabilities must differ between images"
    assert model.onnx["fp32"].parity < 1e-5


def test_an_export_contains_no_path_of_the_machine(workshop: Workshop) -> None:
    root = str(ROOT).encode()
    for name in ZOO:
        content = (workshop.onnx / f"{name}.onnx").read_bytes()
        assert root not in content and b"site-packages" not in content


def test_an_export_that_is_up_to_date_is_kept(own_workshop: Workshop) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in own_workshop.onnx.glob("*.onnx")}
    (own_workshop.onnx / "tag.onnx").write_bytes(b"damaged")
    export_zoo(own_workshop.manifest, own_workshop.onnx, own_workshop.images)
    after = {path.name: path.stat().st_mtime_ns for path in own_workshop.onnx.glob("*.onnx")}
    assert [name for name in before if before[name] != after[name]] == ["tag.onnx"]
    onnx.checker.check_model(onnx.load(own_workshop.onnx / "tag.onnx"))


def test_an_export_that_differs_from_torch_fails_and_leaves_no_file(workshop: Workshop, tmp_path: Path) -> None:
    model = read_manifest(workshop.manifest).models[2]

    class Different(torch.nn.Module):
        """A network whose output differs after the export."""

        def __init__(self) -> None:
            super().__init__()
            self.network = timm.create_model("test_efficientnet", num_classes=3).eval()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self.network(images)
            return answer + (0 if torch.compiler.is_exporting() else 0.01)

    judge = make_judge(workshop, model)
    with pytest.raises(
        ExportError,
        match=r"^model tag: its ONNX differs from the original by 2\.\de-03 on 16 images; wanted at most 1e-04$",
    ):
        write_fp32("tag", describe_network(Different(), judge.form), "0" * 64, tmp_path, judge)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", ["view", "exchange", "merge"])
def test_a_graph_whose_views_differ_is_refused(fault: str, workshop: Workshop, tmp_path: Path) -> None:
    model = dataclasses.replace(read_manifest(workshop.manifest).models[2], views=("identity", "hflip", "vflip"))
    judge = make_judge(workshop, model)
    make_foreign(tmp_path / "theirs.onnx", 3, (64, 64))
    theirs = dataclasses.replace(
        model, layout="nchw", checkpoint=FileEntry("theirs.onnx", hash_file(tmp_path / "theirs.onnx"))
    )
    original = open_original(theirs, tmp_path, read_names(workshop), judge.form)
    graph = finish_graph(
        wrap_foreign(read_foreign(tmp_path / "theirs.onnx", theirs), theirs, read_names(workshop), "sigmoid"),
        judge.form,
    )
    if fault == "view":
        node = next(node for node in graph.graph.node if node.output[0] == "vflip_view")
        node.input[:] = next(node for node in graph.graph.node if node.output[0] == "hflip_view").input
    elif fault == "exchange":
        judge.form = dataclasses.replace(judge.form, exchanged=((0, 1, 2), (1, 0, 2), (0, 1, 2)))
    else:
        node = next(node for node in graph.graph.node if node.output[0] == "probabilities")
        node.op_type = "ReduceMax"
    with pytest.raises(
        ExportError, match=r"^model tag: its ONNX differs from the original by \d\.\de-0[1-3] on 16 images"
    ):
        write_fp32("tag", dataclasses.replace(original, build=lambda: graph), "0" * 64, tmp_path, judge)
    assert not (tmp_path / "tag.onnx").exists()


def test_a_checkpoint_changed_after_it_was_added_fails(own_workshop: Workshop) -> None:
    path = own_workshop.home / "tag.safetensors"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ExportError, match=r"\n  tag: weights_manifest\.json: `models\[2\]\.checkpoint\.sha256`: "):
        export_zoo(own_workshop.manifest, own_workshop.onnx, own_workshop.images)


def test_a_model_that_fails_does_not_stop_the_others_and_costs_them_nothing_the_next_time(
    own_workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    home, onnx_folder = own_workshop.home, own_workshop.onnx
    manifest = read_manifest(own_workshop.manifest)
    (home / "culture.safetensors").write_bytes(b"no weights")
    checkpoint = FileEntry("culture.safetensors", hash_file(home / "culture.safetensors"))
    models = [
        dataclasses.replace(one, checkpoint=checkpoint) if one.name == "culture" else one for one in manifest.models
    ]
    write_manifest(dataclasses.replace(manifest, models=tuple(models)), own_workshop.manifest)
    (onnx_folder / "tag.onnx").write_bytes(b"damaged")
    times = []
    for _ in range(2):
        lines: list[str] = []
        with pytest.raises(ExportError) as error:
            export_zoo(own_workshop.manifest, onnx_folder, own_workshop.images, report=lines.append)
        first, *failed = str(error.value).splitlines()
        assert first == f"{own_workshop.manifest}: 1 of 3 models failed to export:"
        assert len(failed) == 1 and failed[0].startswith(f"  culture: {home / 'culture.safetensors'}: ")
        assert [line.split()[0] for line in lines] == [
            str(onnx_folder / f"{name}.onnx") for name in ("everything", "tag")
        ]
        declared = {model.name: set(model.onnx) for model in read_manifest(onnx_folder / MANIFEST_NAME).models}
        assert declared == {"everything": {"fp32"}, "culture": set(), "tag": {"fp32"}}
        times.append({path.name: path.stat().st_mtime_ns for path in onnx_folder.glob("*.onnx")})
    assert times[0] == times[1], "what has succeeded is kept"


def test_a_run_that_is_killed_loses_no_entry(own_workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(zoo: object, index: int, *given: object) -> Entries:
        if index == 1:
            raise KeyboardInterrupt
        return {}

    before = {model.name: model.onnx for model in read_manifest(own_workshop.onnx / MANIFEST_NAME).models}
    monkeypatch.setattr(steps, "_export", kill)
    with pytest.raises(KeyboardInterrupt):
        export_zoo(own_workshop.manifest, own_workshop.onnx, own_workshop.images)
    after = {model.name: model.onnx for model in read_manifest(own_workshop.onnx / MANIFEST_NAME).models}
    assert after == before | {"everything": {}}


def test_ready_made_files_of_a_bundle_are_linked_with_their_entries(own_workshop: Workshop, tmp_path: Path) -> None:
    home, out = own_workshop.dataset, tmp_path / "onnx"
    ready = read_manifest(home / MANIFEST_NAME)
    assert all(model.checkpoint is None for model in ready.models)
    exported = export_zoo(home / MANIFEST_NAME, out, own_workshop.images)
    assert exported.models == ready.models == read_manifest(out / MANIFEST_NAME).models
    for name in ZOO:
        assert (out / f"{name}.onnx").read_bytes() == (home / f"{name}.onnx").read_bytes()
    viewed = dataclasses.replace(ready.models[0], views=("hflip",))
    write_manifest(dataclasses.replace(ready, models=(viewed, *ready.models[1:])), home / MANIFEST_NAME)
    (home / "tag.onnx").write_bytes(b"other")
    with pytest.raises(ExportError) as error:
        export_zoo(home / MANIFEST_NAME, out, own_workshop.images)
    _, views, changed = str(error.value).splitlines()
    assert views == (
        '  everything: everything.onnx: found `cuts` ["identity", "hflip"] and `merge` mean; '
        'wanted `cuts` ["hflip"] and `merge` mean; export it again'
    )
    assert changed.startswith("  tag: weights_manifest.json: `models[2].onnx.fp32.sha256`: ")


def make_foreign(path: Path, outputs: int, size: tuple[int, int] = (24, 32)) -> None:
    """Write a graph of somebody else: nchw, the mean colour of the upper left quarter times weights."""
    random = np.random.default_rng(0)
    constants = {"weights": random.normal(size=(3, outputs)).astype(np.float32), "shape": np.array([-1, 3])}
    constants |= {"start": np.array([0, 0]), "end": np.array([12, 16]), "axes": np.array([2, 3])}
    nodes = [
        onnx.helper.make_node("Slice", ["x", "start", "end", "axes"], ["quarter"]),
        onnx.helper.make_node("GlobalAveragePool", ["quarter"], ["pooled"]),
        onnx.helper.make_node("Reshape", ["pooled", "shape"], ["colour"]),
        onnx.helper.make_node("MatMul", ["colour", "weights"], ["y"]),
    ]
    ends = [("x", ["n", 3, *size]), ("y", ["n", outputs])]
    given, made = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in ends)
    tensors = [onnx.numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = onnx.helper.make_graph(nodes, "theirs", [given], [made], tensors)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)


def test_graphs_made_elsewhere_get_views_frames_and_exchanged_labels(own_workshop: Workshop, tmp_path: Path) -> None:
    home, manifest = own_workshop.home, read_manifest(own_workshop.manifest)
    models = []
    for name, group, outputs in (("theirs", "all", 5), ("secret", "features", 7)):
        make_foreign(home / f"{name}.onnx", outputs)
        models.append(
            Model(
                **{"name": name, "architecture": "theirs", "group": group, "image_size": (24, 32), "layout": "nchw"},
                **{"mean": (0.5, 0.4, 0.3), "std": (0.3,) * 3, "interpolation": "bilinear"},
                **{"resize": Resize("squash", 0.8), "views": ("hflip", "top_left", "bottom_right+vflip", "scale_125")},
                activation="sigmoid" if group == "all" else "identity",
                outputs=outputs if group == "features" else 0,
                merge="geometric" if group == "all" else "mean",
                checkpoint=FileEntry(f"{name}.onnx", hash_file(home / f"{name}.onnx")),
            )
        )
    weights = {group: {"theirs": 1.0} for group in manifest.labels.groups}
    changed = dataclasses.replace(
        manifest,
        models=tuple(models),
        labels=dataclasses.replace(manifest.labels, exchanged={"hflip": ((2, 3),)}),
        ensemble=dataclasses.replace(manifest.ensemble, weights=weights, values={}),
    )
    write_manifest(changed, own_workshop.manifest)
    exported = export_zoo(own_workshop.manifest, tmp_path / "onnx", own_workshop.images, ("fp16",))
    labels = read_names(own_workshop)
    geometry = read_geometry(exported.models[0])
    assert geometry.shape == (30, 40)
    images = np.stack([resize_image(read_image(path), geometry) for path in sorted(own_workshop.images.iterdir())])
    for model in exported.models:
        assert set(model.onnx) == {"fp32", "fp16"} and model.onnx["fp32"].parity < 1e-5
        assert model.group == "all" or (model.onnx["fp16"].flips, model.onnx["fp16"].metric_loss) == (0, 0)
        own = onnxruntime.InferenceSession(home / f"{model.name}.onnx")
        parts = []
        for cut in model.cuts:
            shown = (show_view(images, cut, (24, 32)) / 255 - model.mean) / model.std
            (scores,) = own.run(None, {"x": shown.transpose(0, 3, 1, 2).astype(np.float32)})
            if model.group == "all":
                scores = 1 / (1 + np.exp(-scores))
                scores = scores[:, [0, 1, 3, 2, 4] if "hflip" in cut else slice(None)]
            parts.append(scores)
        wanted = np.exp(np.log(parts).mean(axis=0)) if model.group == "all" else np.mean(parts, axis=0)
        session = onnxruntime.InferenceSession(tmp_path / "onnx" / f"{model.name}.onnx")
        assert session.get_modelmeta().custom_metadata_map["cuts"] == json.dumps(model.cuts)
        feeds = {"image": images, "views": np.arange(len(model.cuts))}
        (answer,) = session.run(None, feeds)
        np.testing.assert_allclose(answer, wanted, rtol=0, atol=1e-5)
    assert labels.count_outputs(exported.models[1]) == 7


def test_parity_needs_sixteen_images(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(ImagesError) as error:
        export_zoo(workshop.manifest, tmp_path / "onnx", tmp_path)
    assert str(error.value) == f"{tmp_path}: found 0 images; wanted 16 for parity; add images"
