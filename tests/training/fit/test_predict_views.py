"""Scores of held-out images against a slow reference of Pillow and torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from inference.manifest.labels import Labels
from inference.manifest.model import Model, Resize, Tiles
from inference.manifest.values import Mirror, split_view
from tests.inference.models.test_views import PILLOWS
from training.data.pictures import Pictures
from training.fit.predict_views import describe_showing, predict_views
from zoo.networks import Design, create_network

CPU = torch.device("cpu")
LABELS = Labels((5, 3, 9, 2), ("tag::left", "tag::right", "tag::top", "tag::bottom"), {"tag": (0, 1, 2, 3)})
EXCHANGED: dict[Mirror, tuple[tuple[int, ...], ...]] = {"hflip": ((5, 3),), "vflip": ((2, 9),)}
SQUARE = ("identity", "hflip", "vflip", "rot180", "transpose", "rot90", "rot270", "transverse")
MERGES = {
    "mean": lambda parts: np.mean(parts, axis=0),
    "geometric": lambda parts: np.exp(np.mean(np.log(parts), axis=0)),
    "maximum": lambda parts: np.max(parts, axis=0),
}


def declare(views: Sequence[str], size: tuple[int, int] = (32, 32), channels: int = 3, **changes: Any) -> Model:
    settings: dict[str, Any] = {"image_size": size, "mean": (0.4,) * channels, "std": (0.3,) * channels, **changes}
    settings = {"group": "tag", **settings}
    return Model(name="one", architecture="test_resnet", interpolation="bilinear", views=tuple(views), **settings)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    paths: list[Path | None] = []
    for place, shape in enumerate([(50, 40), (33, 90), (64, 64), (20, 31), (41, 70)]):
        paths.append(folder / f"{place}.png")
        rough = Image.fromarray(noise.integers(0, 256, (6, 5, 3), np.uint8))
        rough.resize(shape, Image.Resampling.BICUBIC).save(folder / f"{place}.png")
    return Pictures(paths)


def make_module(model: Model) -> torch.nn.Module:
    torch.manual_seed(3)
    module = create_network(Design("test_resnet", model.size, 4, model.channels)).module
    module.fc.weight.data *= 20  # so that images differ
    return module


def score_slowly(module: torch.nn.Module, model: Model, picture: Image.Image, view: str) -> np.ndarray:
    """Return the scores of one view, by whole-image operations of Pillow."""
    parts, (height, width) = split_view(view), model.size
    factor = parts.scale / 100 / model.resize.percentage
    resized = picture.resize((int(width * factor + 1e-9), int(height * factor + 1e-9)), Image.Resampling.BILINEAR)
    across, down = resized.width - width, resized.height - height
    left, top = round(across / 2), round(down / 2)
    if parts.corner is not None:
        left, top = across * parts.corner.endswith("right"), down * parts.corner.startswith("bottom")
    shown = resized.crop((left, top, left + width, top + height))
    if parts.orientation != "identity":
        shown = shown.transpose(PILLOWS[parts.orientation])
    pixels = np.asarray(shown if model.channels == 3 else shown.convert("L"), np.float32)
    batch = torch.from_numpy((pixels.reshape(*model.size, model.channels) / 255 - 0.4) / np.float32(0.3))
    with torch.inference_mode():
        scores = module(batch.permute(2, 0, 1)[None].float()).sigmoid()[0].numpy()
    if parts.orientation in ("hflip", "rot180"):  # left is right
        scores = scores[[1, 0, 2, 3]]
    if parts.orientation in ("vflip", "rot180"):
        scores = scores[[0, 1, 3, 2]]
    return scores


@pytest.mark.parametrize(
    "model",
    [
        declare(["identity", "hflip"]),
        declare(["identity", "hflip", "vflip", "rot180"], (24, 48), merge="geometric"),
        declare(["hflip", "identity"], (48, 24), 1, merge="maximum"),
        declare(["identity", "scale_125", "scale_150+hflip"], resize=Resize("squash", 0.8)),
        declare(
            ["top_left", "bottom_right+hflip", "identity", "scale_130"], (30, 40), 1, resize=Resize("squash", 0.75)
        ),
    ],
    ids=lambda model: f"{model.views[-1]}, {model.merge}",
)
def test_scores_are_those_of_each_view_merged(model: Model, pictures: Pictures) -> None:
    module, rows = make_module(model), np.array([4, 0, 1, 3])
    showing = describe_showing(model, "sigmoid", LABELS, EXCHANGED)
    found = predict_views(module, showing, pictures, rows, CPU, 3, 0, "test")
    for place, row in enumerate(rows):
        views = [score_slowly(module, model, pictures.read(row), view) for view in model.views]
        np.testing.assert_allclose(found[place], MERGES[model.merge](views), rtol=0, atol=1e-5)
    assert found.dtype == np.float32 and np.ptp(found, axis=0).min() > 0.01


def test_the_eight_views_of_a_square_are_pillows(pictures: Pictures) -> None:
    model = declare(SQUARE, channels=1)
    module, rows = make_module(model), np.arange(5)
    found = predict_views(module, describe_showing(model, "sigmoid", LABELS, {}), pictures, rows, CPU, 5, 0, "test")
    plain = declare(SQUARE, channels=1, merge="maximum")
    highest = predict_views(module, describe_showing(plain, "sigmoid", LABELS, {}), pictures, rows, CPU, 2, 0, "test")
    for row in rows:
        shown = pictures.read(row).resize((32, 32), Image.Resampling.BILINEAR).convert("L")
        turned = [shown, *(shown.transpose(turn) for turn in PILLOWS.values())]
        batch = torch.from_numpy((np.stack(turned).astype(np.float32)[:, None] / 255 - 0.4) / np.float32(0.3))
        with torch.inference_mode():
            scores = module(batch.float()).sigmoid().numpy()
        np.testing.assert_allclose(found[row], scores.mean(axis=0), rtol=0, atol=1e-5)
        np.testing.assert_allclose(highest[row], scores.max(axis=0), rtol=0, atol=1e-5)


def test_tiles_are_merged_per_view_and_then_the_views(pictures: Pictures) -> None:
    model = declare(["identity", "hflip"], tiles=Tiles(1.4, 2, "maximum"))
    module = make_module(model)
    showing = describe_showing(model, "sigmoid", LABELS, {})
    found = predict_views(module, showing, pictures, np.array([1, 2]), CPU, 2, 0, "test")
    whole = declare(["identity", "hflip"])
    long = pictures.read(1)  # 33x90
    halves = [long.crop((0, top, 33, top + length)) for top, length in ((0, 52), (38, 52))]
    views = [
        np.max([score_slowly(module, whole, half, "identity") for half in halves], axis=0),
        np.max([score_slowly(module, whole, half, "hflip")[[1, 0, 2, 3]] for half in halves], axis=0),
    ]
    np.testing.assert_allclose(found[0], np.mean(views, axis=0), rtol=0, atol=1e-5)
    square = [score_slowly(module, whole, pictures.read(2), view) for view in whole.views]
    np.testing.assert_allclose(found[1], np.mean([square[0], square[1][[1, 0, 2, 3]]], axis=0), rtol=0, atol=1e-5)


def test_features_keep_their_places_in_mirrored_views(pictures: Pictures) -> None:
    model = declare(["identity", "hflip"], group="features", outputs=4)
    module = make_module(model)
    found = predict_views(
        module, describe_showing(model, "identity", LABELS, EXCHANGED), pictures, np.array([0]), CPU, 1, 0, "test"
    )
    shown = pictures.read(0).resize((32, 32), Image.Resampling.BILINEAR)
    batch = torch.from_numpy((np.asarray(shown, np.float32) / 255 - 0.4) / np.float32(0.3)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = (module(batch.float()) + module(batch.float().flip(3))) / 2
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)
