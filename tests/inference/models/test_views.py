"""Views of a batch, and the merge of their scores, against Pillow, numbers merged one by one, and torch."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm.data
import torch
import torchvision
from PIL import Image
from torchvision.transforms import InterpolationMode

from inference.basics.logarithms import SMALLEST
from inference.manifest.file import read_manifest
from inference.manifest.labels import Labels, read_labels
from inference.manifest.model import Model
from inference.manifest.values import CORNERS, ORIENTATIONS, Merge
from inference.models.views import exchange_columns, merge_views, show_view
from inference.task.ids import read_ids
from packing.export.export_zoo import export_zoo
from packing.pack.write_bundle import pack
from tests.conftest import NAMES, Workshop
from tests.roads.test_kernel import run_script
from zoo.networks import open_network

BATCH = np.random.default_rng(1).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
PILLOWS = {
    "hflip": Image.Transpose.FLIP_LEFT_RIGHT,
    "vflip": Image.Transpose.FLIP_TOP_BOTTOM,
    "rot180": Image.Transpose.ROTATE_180,
    "transpose": Image.Transpose.TRANSPOSE,
    "rot90": Image.Transpose.ROTATE_90,
    "rot270": Image.Transpose.ROTATE_270,
    "transverse": Image.Transpose.TRANSVERSE,
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("place", ["", "scale_150", *CORNERS])
def test_a_view_is_pillows_crop_and_transpose(orientation: str, place: str) -> None:
    view = "+".join(part for part in (place, orientation) if part and part != "identity") or "identity"
    shown = show_view(BATCH, view, (4, 4))
    assert shown.flags.c_contiguous and shown.dtype == np.uint8
    left, top = (2 * place.endswith("right"), 2 * place.startswith("bottom")) if place in CORNERS else (1, 1)
    for picture, found in zip(BATCH, shown, strict=True):
        image = Image.fromarray(picture).crop((left, top, left + 4, top + 4))
        wanted = image if orientation == "identity" else image.transpose(PILLOWS[orientation])
        np.testing.assert_array_equal(found, np.asarray(wanted))


def test_a_view_need_not_be_square() -> None:
    batch = np.random.default_rng(2).integers(0, 256, (1, 5, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(show_view(batch, "bottom_right+hflip", (3, 7)), batch[:, 2:, :1:-1])
    np.testing.assert_array_equal(show_view(batch, "vflip", (5, 9)), np.flip(batch, axis=1))


def merge_slowly(values: list[float], merge: Merge) -> float:
    if merge == "maximum":
        return max(values)
    if merge == "mean":
        return sum(values) / len(values)
    return math.exp(sum(math.log(max(value, float(SMALLEST))) for value in values) / len(values))


@pytest.mark.parametrize("merge", ["mean", "geometric", "maximum"])
@pytest.mark.parametrize("split", [(5,), (2, 3), (1, 1, 3), (1, 1, 1, 1, 1)])
def test_scores_of_several_views_are_merged_in_any_grouping(split: tuple[int, ...], merge: Merge) -> None:
    scores = np.random.default_rng(3).random((5, 4, 3)).astype(np.float32)
    scores[0, 0] = 0  # whose logarithm is infinite
    parts, left = [], list(scores)
    for count in split:
        own = [left.pop(0) for _ in range(count)]
        mean = [[merge_slowly([float(one[r, c]) for one in own], merge) for c in range(3)] for r in range(4)]
        parts.append((count, np.array(mean, np.float32)))
    merged = merge_views(parts, merge)
    wanted = [[merge_slowly([float(one[r, c]) for one in scores], merge) for c in range(3)] for r in range(4)]
    assert merged.dtype == np.float32
    np.testing.assert_allclose(merged, wanted, rtol=1e-5)


def test_a_geometric_mean_of_many_tiny_scores_does_not_underflow() -> None:
    tiny = np.full((1, 2), 1e-4, np.float32)
    np.testing.assert_allclose(merge_views([(1, tiny)] * 40, "geometric"), tiny, rtol=1e-4)


def test_labels_of_the_sides_are_exchanged_in_mirrored_views() -> None:
    labels = Labels((5, 6, 7, 8), ("c::l", "t::up", "c::r", "t::down"), {"c": (0, 2), "t": (1, 3)})
    exchanged = {"hflip": ((5, 7),), "vflip": ((6, 8),)}
    wanted = {"identity": [0, 1, 2, 3], "hflip": [2, 1, 0, 3], "vflip": [0, 3, 2, 1], "rot180": [2, 3, 0, 1]}
    for view, places in wanted.items():
        for name in (view, f"scale_125+{view}" if view != "identity" else "scale_125"):
            assert exchange_columns(name, "all", labels, exchanged).tolist() == places  # type: ignore[arg-type]
    assert exchange_columns("top_left+hflip", "c", labels, exchanged).tolist() == [1, 0]  # type: ignore[arg-type]
    assert exchange_columns("hflip", "t", labels, exchanged).tolist() == [0, 1]  # type: ignore[arg-type]
    assert exchange_columns("hflip", "features", labels, exchanged).tolist() == []  # type: ignore[arg-type]


CHANGES = {
    "everything": {
        "resize": {"rule": "squash", "percentage": 0.8},
        "views": ["identity", "hflip", "top_left", "bottom_right+vflip", "scale_150", "scale_150+rot90"],
        "merge": "geometric",
    },
    "culture": {
        "image_size": [48, 80],
        "resize": {"rule": "letterbox", "percentage": 0.9},
        "views": ["scale_125+hflip", "rot180"],
        "merge": "maximum",
    },
}
TURNED = {"identity": (), "hflip": (2,), "vflip": (1,), "rot180": (1, 2)}
GROUPS = {"culture": "culture::", "tag": "tag::"}


@pytest.fixture(scope="module")
def viewed(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The workshop's first two models with the views of CHANGES, and their bundle."""
    root = tmp_path_factory.mktemp("viewed")
    made = Workshop(root / "home", root / "onnx", root / "bundle", workshop.competition)
    shutil.copytree(workshop.home, made.home)
    document = json.loads(workshop.manifest.read_text())
    document["models"] = [{**model, **CHANGES[model["name"]]} for model in document["models"][:2]]
    document["ensemble"]["weights"] = {"culture": {"everything": 1, "culture": 1}, "tag": {"everything": 1}}
    made.manifest.write_text(json.dumps(document))
    export_zoo(made.manifest, made.onnx, made.images)
    pack(made.manifest, made.onnx, made.bundle, NAMES)
    return made


def show_by_timm(image: Image.Image, model: Model, view: str) -> torch.Tensor:
    """Return a view of an image, normalised, (3, height, width), by timm's and torchvision's transforms."""
    place, _, turned = view.rpartition("+") if "+" in view else (view, "", "identity")
    if place in (*TURNED, "rot90"):
        place, turned = "", place
    scale = int(place[-3:]) if place.startswith("scale") else 100
    resize = model.resize
    mode = {"squash": "squash", "letterbox": "border"}[resize.rule]
    if place and scale == 100:
        resized = [int(side / resize.percentage) for side in model.size]
        whole = torchvision.transforms.functional.resize(image, resized, InterpolationMode(model.interpolation))
        crops = torchvision.transforms.functional.five_crop(whole, list(model.size))
        pixels = torchvision.transforms.functional.to_tensor(crops[0 if place == "top_left" else 3])
        shown = torchvision.transforms.functional.normalize(pixels, model.mean, model.std)
    else:
        shown = timm.data.create_transform(
            model.size,
            interpolation=model.interpolation,
            mean=model.mean,
            std=model.std,
            crop_pct=resize.percentage * 100 / scale,
            crop_mode=mode,
        )(image)
    return shown.rot90(1, (1, 2)) if turned == "rot90" else shown.flip(TURNED[turned])


def test_views_of_all_kinds_and_their_merge_equal_torchs(viewed: Workshop, tmp_path: Path) -> None:
    finished = run_script(viewed, tmp_path / "submission.csv", "--predictions", str(tmp_path / "kept"))
    assert finished.returncode == 0, finished.stderr
    labels = read_labels(viewed.home / "labels.csv", GROUPS)
    images = [Image.open(viewed.images / f"{name}.png") for name in read_ids(viewed.sample)]
    for model in read_manifest(viewed.manifest).models:
        network = open_network(model, viewed.home, labels).module
        apart = {}
        for view in model.views:
            with torch.inference_mode():
                logits = network(torch.stack([show_by_timm(image, model, view) for image in images]))
            apart[view] = logits.double().sigmoid().numpy()
        scores = np.stack(list(apart.values()))
        assert np.ptp(scores, axis=0).max() > 0.05, "the views must make a difference"
        wanted = scores.max(axis=0) if model.merge == "maximum" else np.exp(np.log(scores).mean(axis=0))
        kept = np.load(tmp_path / "kept" / f"{model.name}.npy")
        assert np.abs(kept - wanted).max() < 1e-3, model.name
        assert np.abs(scores.mean(axis=0) - wanted).max() > 2e-3, "the merge must make a difference"
