import itertools
import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm.data
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.images.geometry import Geometry
from inference.images.read import decode_image, read_image, read_squares
from inference.images.tiles import cut_tiles, merge_tiles, plan_tiles
from inference.manifest.file import MANIFEST_NAME, read_manifest
from inference.manifest.labels import read_labels
from inference.manifest.model import Resize, Tiles
from inference.manifest.values import Merge
from inference.models.devices import try_batch
from inference.task.ids import read_ids
from tests.conftest import ZOO, Workshop, write_picture
from tests.roads.test_kernel import run_script
from zoo.networks import open_network

SIDES = st.integers(4, 9000)
ASPECTS = st.floats(1.01, 20)
MOST = st.integers(2, 32)


@given(SIDES, SIDES, ASPECTS, MOST)
def test_tiles_cover_an_image_evenly_from_end_to_end(width: int, height: int, aspect: float, most: int) -> None:
    boxes = plan_tiles((width, height), aspect, most)
    short, long = sorted((width, height))
    if long / short <= aspect:
        assert boxes == [(0, 0, width, height)]
        return
    wide = width > height
    across = {(box[1], box[3]) if wide else (box[0], box[2]) for box in boxes}
    assert across == {(0, short)}, "all of the short side"
    starts, ends = ([box[0 if wide else 1], box[2 if wide else 3]] for box in (boxes[0], boxes[-1]))
    assert starts[0] == 0 and ends[1] == long
    spans = [(box[0], box[2]) if wide else (box[1], box[3]) for box in boxes]
    (length,) = {end - start for start, end in spans}
    assert 2 <= len(boxes) <= most
    squares = 1 + math.ceil((long - short) / (0.75 * short))
    assert length == short if squares <= most else length > short, "longer than squares only if squares are too many"
    steps = {after[0] - before[0] for before, after in itertools.pairwise(spans)}
    assert max(steps) - min(steps) <= 1 and min(steps) > 0
    assert max(steps) <= 0.75 * length + 1, "neighbours overlap by a quarter, up to one pixel"
    mirrored = [(long - end, long - start) for start, end in reversed(spans)]
    assert max(abs(one[0] - other[0]) for one, other in zip(spans, mirrored, strict=True)) <= 1


@given(st.integers(1, 12), st.integers(1, 60), ASPECTS, MOST)
def test_tiles_of_tiny_images_lie_inside_and_cover_every_pixel(short: int, long: int, aspect: float, most: int) -> None:
    seen = np.zeros((short, long), bool)
    for left, top, right, bottom in plan_tiles((long, short), aspect, most):
        assert 0 <= left < right <= long and 0 <= top < bottom <= short
        seen[top:bottom, left:right] = True
    assert seen.all()


@pytest.mark.parametrize(
    ("size", "boxes"),
    [
        ((300, 100), [(0, 0, 300, 100)]),
        ((301, 100), [(0, 0, 100, 100), (67, 0, 167, 100), (134, 0, 234, 100), (201, 0, 301, 100)]),
        ((100, 400), [(0, 0, 100, 100), (0, 75, 100, 175), (0, 150, 100, 250), (0, 225, 100, 325), (0, 300, 100, 400)]),
    ],
)
def test_tiles_equal_those_computed_by_hand(size: tuple[int, int], boxes: list[tuple[int, int, int, int]]) -> None:
    assert plan_tiles(size, 3.0, 8) == boxes


def test_tiles_of_the_longest_image_of_imet_cover_every_pixel_in_the_allowed_number() -> None:
    boxes = plan_tiles((7531, 300), 3.0, 8)
    assert len(boxes) == 8 and {box[2] - box[0] for box in boxes} == {1205}
    assert set().union(*(range(box[0], box[2]) for box in boxes)) == set(range(7531))


def test_a_tile_has_the_pixels_of_its_box(tmp_path: Path) -> None:
    decoded = decode_image(write_picture(tmp_path / "x.png", (40, 200), seed=1))
    pixels, tiles = np.asarray(decoded.image), Tiles(3.0, 8)
    cut = cut_tiles(decoded, tiles)
    assert len(cut) == 7
    for tile, (left, top, right, bottom) in zip(cut, plan_tiles(decoded.size, 3.0, 8), strict=True):
        assert np.array_equal(np.asarray(tile.image), pixels[top:bottom, left:right])
        assert tile.region == (0, 0, *tile.size) == (0, 0, right - left, bottom - top)


MERGES: dict[Merge, Callable[[list[float]], float]] = {
    "mean": statistics.fmean,
    "maximum": max,
    "geometric": statistics.geometric_mean,
}


@pytest.mark.parametrize("merge", MERGES)
def test_merging_equals_a_loop_over_the_images(merge: Merge) -> None:
    random = np.random.default_rng(0)
    for counts in ([1], [3], [1, 1, 1], [2, 1, 5, 1, 8], random.integers(1, 9, 50).tolist()):
        scores = random.random((sum(counts), 7), np.float32)
        left, wanted = list(scores), []
        for count in counts:
            own = [left.pop(0) for _ in range(count)]
            wanted.append([MERGES[merge]([float(tile[label]) for tile in own]) for label in range(7)])
        merged = merge_tiles(scores, counts, merge)
        assert merged.dtype == np.float32
        np.testing.assert_allclose(merged, wanted, rtol=1e-6 if merge != "geometric" else 1e-5)


def test_a_geometric_mean_of_tiles_takes_a_score_of_0_as_tiny_and_does_not_underflow() -> None:
    scores = np.array([[0.0, 1e-4], [1.0, 1e-4], *[[1.0, 1e-4]] * 30], np.float32)
    merged = merge_tiles(scores, [2, 30], "geometric")
    np.testing.assert_allclose(merged, [[1e-5**0.5, 1e-4], [1, 1e-4]], rtol=1e-4)


def test_one_tile_keeps_its_scores_to_the_bit() -> None:
    scores = np.random.default_rng(0).random((9, 5), np.float32)
    for merge in ("mean", "maximum"):
        assert np.array_equal(merge_tiles(scores, [1] * 9, merge), scores)


def test_models_that_differ_only_in_tiles_share_the_decoding(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "x.png", (300, 60), seed=2)
    whole, cut = Geometry((32, 32), Resize(), "bilinear"), Geometry((32, 32), Resize(), "bilinear", Tiles())
    squares = read_squares(path, {whole, cut, Geometry((32, 32), Resize(), "bilinear", Tiles())})
    assert {key: value.shape for key, value in squares.items()} == {whole: (32, 32, 3), cut: (7, 32, 32, 3)}


def give_tiles(workshop: Workshop, **tiles: dict[str, Any] | None) -> None:
    path = workshop.dataset / MANIFEST_NAME
    document = json.loads(path.read_text())
    for model in document["models"]:
        model["tiles"] = tiles.get(model["name"])
    path.write_text(json.dumps(document))


def predict(workshop: Workshop, out: Path) -> dict[str, np.ndarray]:
    finished = run_script(workshop, out / "submission.csv", "--predictions", str(out / "kept"))
    assert finished.returncode == 0, finished.stderr
    return {name: np.load(out / "kept" / f"{name}.npy") for name in ZOO}


def test_models_see_tiles_of_long_images_and_other_images_unchanged(own_workshop: Workshop, tmp_path: Path) -> None:
    """In the packed script; the wanted scores are those of torch for each tile."""
    before = predict(own_workshop, tmp_path / "before")
    # No image of the workshop has a ratio of sides of 4.
    give_tiles(own_workshop, everything={"aspect": 4}, tag={"aspect": 4, "merge": "maximum"})
    same = predict(own_workshop, tmp_path / "same")
    assert all(np.array_equal(same[name], before[name]) for name in ZOO)
    assert (tmp_path / "same" / "submission.csv").read_bytes() == (tmp_path / "before" / "submission.csv").read_bytes()

    ids = read_ids(own_workshop.sample)
    for row, size in ((3, (1506, 60)), (11, (50, 260))):
        write_picture(own_workshop.images / f"{ids[row]}.png", size, seed=row)
    found = predict(own_workshop, tmp_path / "found")
    others = [row for row in range(len(ids)) if row not in (3, 11)]
    labels = read_labels(own_workshop.dataset / "labels.csv", {"culture": "culture::", "tag": "tag::"})
    origins = {model.name: model for model in read_manifest(own_workshop.manifest).models}
    for model in read_manifest(own_workshop.dataset / MANIFEST_NAME).models:
        scores = found[model.name]
        np.testing.assert_allclose(scores[others], before[model.name][others], rtol=0, atol=1e-3)
        if not model.tiles:
            continue
        _, _, size, _ = ZOO[model.name]
        network = open_network(origins[model.name], own_workshop.home, labels).module
        timms = timm.data.create_transform(
            size, interpolation=model.interpolation, mean=model.mean, std=model.std, crop_pct=1.0, crop_mode="squash"
        )
        for row, count in ((3, 8), (11, 7)):
            image = read_image(own_workshop.images / f"{ids[row]}.png")
            boxes = plan_tiles(image.size, 4.0, 8)
            assert len(boxes) == count
            merged = []
            for axes in ((), (3,)):
                with torch.inference_mode():
                    each = [network(timms(image.crop(box))[None].flip(axes)).sigmoid()[0].numpy() for box in boxes]
                assert np.ptp(each, axis=0).max() > 0.01, "the tiles must make a difference"
                merged.append(np.mean(each, axis=0) if model.tiles.merge == "mean" else np.max(each, axis=0))
            assert np.abs(scores[row] - np.mean(merged, axis=0)).max() < 1e-3, (model.name, row)


def test_the_trial_batch_of_a_device_runs_a_model_with_tiles(own_workshop: Workshop) -> None:
    give_tiles(own_workshop, everything={"aspect": 1.1}, culture={"aspect": 1.1}, tag={"aspect": 1.1})
    assert try_batch(own_workshop.dataset, own_workshop.images).images == 20
