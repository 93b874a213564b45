"""JPEG files decoded at reduced size, compared with a full decoding by Pillow and timm's resize."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import sklearn.datasets
import timm.data
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from inference.basics.errors import ImageError
from inference.images.geometry import Draft, Geometry, choose_reduction, read_draft, read_geometry
from inference.images.read import ORIENTATION_TAG, decode_image, read_picture, read_squares
from inference.images.tiles import Decoded, cut_box, plan_tiles
from inference.images.traits import measure_traits
from inference.manifest.file import MANIFEST_NAME, read_manifest, write_manifest
from inference.manifest.model import Resize, Tiles
from inference.task.ids import read_ids
from tests.conftest import ROOT, ZOO, Workshop
from tests.roads.test_kernel import run_script

SHARED = ROOT.parent / "shared" / "images"
PHOTOS = Path(sklearn.datasets.__file__).parent / "images"  # two photographs of 640x427
# Factor -> mean and largest absolute difference of a square to that of a full decoding, of 255.
TOLERANCES = {1.0: (2.5, 36), 1.5: (1.4, 24), 2.0: (0.8, 12)}
SQUASH, CROP = Geometry((96, 96), Resize(), "bilinear"), Geometry((64, 64), Resize("crop", 0.875), "bicubic")
LONG = Geometry((64, 64), Resize(), "bilinear", Tiles(1.2, 4))


def take_photo(path: Path, name: str = "china", size: tuple[int, int] | None = None, **options: object) -> Path:
    """Save a photograph, or its upper left corner, as a JPEG."""
    with Image.open(PHOTOS / f"{name}.jpg") as photo:
        photo.crop((0, 0, *(size or photo.size))).save(path, quality=92, **options)
    return path


def decode_fully(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def resize_by_timm(image: Image.Image, geometry: Geometry) -> NDArray[np.float64]:
    transform = timm.data.create_transform(
        geometry.size,
        interpolation=geometry.interpolation,
        crop_pct=geometry.resize.percentage,
        crop_mode="squash" if geometry.resize.rule == "squash" else "center",
        normalize=False,
    )
    return np.asarray(transform(image).numpy().transpose(1, 2, 0), np.float64)


def show_by_timm(image: Image.Image, geometry: Geometry) -> NDArray[np.float64]:
    if geometry.tiles is None:
        return resize_by_timm(image, geometry)
    boxes = plan_tiles(image.size, geometry.tiles.aspect, geometry.tiles.most)
    return np.stack([resize_by_timm(image.crop(box), geometry) for box in boxes])


def draft(factor: float, *geometries: Geometry) -> Draft:
    return Draft(factor, frozenset(geometries))


def check_near(found: NDArray[np.uint8], wanted: NDArray[np.float64], factor: float) -> None:
    differences = np.abs(found.astype(np.float64) - wanted)
    mean, largest = TOLERANCES[factor]
    assert found.shape == wanted.shape
    assert 0 < differences.mean() <= mean and differences.max() <= largest, (differences.mean(), differences.max())


@pytest.mark.parametrize("factor", TOLERANCES)
@pytest.mark.parametrize("geometry", [SQUASH, CROP, LONG], ids=["squash", "crop", "tiles"])
@pytest.mark.parametrize("size", [(640, 427), (637, 426), (423, 427)], ids=str)
@pytest.mark.parametrize("name", ["china", "flower"])
def test_squares_of_a_reduced_photograph_are_within_the_tolerance(
    name: str, size: tuple[int, int], geometry: Geometry, factor: float, tmp_path: Path
) -> None:
    path = take_photo(tmp_path / "x.jpg", name, size)
    allowed = draft(factor, geometry)
    assert decode_image(path, draft=allowed).image.size != size, "must be reduced"
    check_near(
        read_squares(path, [geometry], draft=allowed)[geometry], show_by_timm(decode_fully(path), geometry), factor
    )


@pytest.mark.skipif(not SHARED.is_dir(), reason="requires the folder of shared test images beside this checkout")
@pytest.mark.parametrize("name", ["Landscape_6", "Portrait_3"])
def test_squares_of_larger_rotated_photographs_are_within_the_tolerance(name: str) -> None:
    path, geometry = SHARED / "exif-orientation" / f"{name}.jpg", Geometry((320, 320), Resize(), "bilinear")
    assert max(decode_image(path, draft=draft(1.5, geometry)).image.size) == 900
    found = read_squares(path, [geometry], draft=draft(1.5, geometry))[geometry]
    check_near(found, show_by_timm(decode_fully(path), geometry), 1.5)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "mpo"])
def test_a_reduced_image_with_odd_edges_is_rotated_upright(suffix: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    path = tmp_path / f"x.{suffix}"
    options = {"save_all": True, "append_images": [Image.new("RGB", (9, 9))]} if suffix == "mpo" else {}
    take_photo(path, size=(635, 421), exif=exif, **options)
    decoded = decode_image(path, draft=draft(2, SQUASH))
    upright = decode_fully(path)
    assert decoded.size == upright.size == ((421, 635) if orientation >= 5 else (635, 421))
    assert sorted(decoded.image.size) == [211, 318]
    # A shift by half a pixel would give a mean above 1.6.
    check_near(read_squares(path, [SQUASH], draft=draft(2, SQUASH))[SQUASH], show_by_timm(upright, SQUASH), 2.0)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_photographs_are_reduced_too(mode: str, tmp_path: Path) -> None:
    with Image.open(PHOTOS / "flower.jpg") as photo:
        photo.convert(mode).save(tmp_path / "x.jpg", quality=92)
    assert decode_image(tmp_path / "x.jpg", draft=draft(2, SQUASH)).image.size == (320, 214)
    found = read_squares(tmp_path / "x.jpg", [SQUASH], draft=draft(2, SQUASH))[SQUASH]
    check_near(found, show_by_timm(decode_fully(tmp_path / "x.jpg"), SQUASH), 2.0)


@pytest.mark.parametrize(
    ("size", "factor", "geometries", "reduction"),
    [
        ((3000, 2000), 1, [Geometry((320, 320), Resize(), "bilinear")], 4),
        ((3000, 2000), 1.5, [Geometry((320, 320), Resize(), "bilinear")], 4),
        ((3000, 2000), 1.6, [Geometry((320, 320), Resize(), "bilinear")], 2),
        ((3000, 2000), 4, [Geometry((320, 320), Resize(), "bilinear")], 1),
        ((20000, 20000), 1, [Geometry((320, 320), Resize(), "bilinear")], 8),
        ((640, 640), 1, [Geometry((320, 320), Resize(), "bilinear")], 2),
        ((640, 639), 1, [Geometry((320, 320), Resize(), "bilinear")], 1),
        ((9000, 639), 1, [Geometry((320, 320), Resize("crop"), "bilinear")], 1),
        ((9000, 640), 1, [Geometry((320, 320), Resize("crop"), "bilinear")], 2),
        ((640, 640), 1, [Geometry((320, 320), Resize("squash", 0.9), "bilinear")], 1),
        (
            (3000, 2000),
            1,
            [Geometry((320, 320), Resize(), "bilinear"), Geometry((1200, 1200), Resize(), "bilinear")],
            1,
        ),
        # Tiles are squares of the short side, which limits the reduction.
        ((2560, 640), 1, [Geometry((320, 320), Resize(), "bilinear", Tiles(3, 8))], 2),
        ((2560, 639), 1, [Geometry((320, 320), Resize(), "bilinear", Tiles(3, 8))], 1),
        ((640, 64000), 1, [Geometry((320, 320), Resize(), "bilinear", Tiles(3, 2))], 2),
        ((3000, 2000), 1, [], 1),
    ],
)
def test_the_reduction_equals_values_computed_by_hand(
    size: tuple[int, int], factor: float, geometries: list[Geometry], reduction: int
) -> None:
    assert choose_reduction(size, draft(factor, *geometries)) == reduction
    assert choose_reduction(size[::-1], draft(factor, *geometries)) == reduction, "for both orientations"


@given(st.integers(1, 9000), st.integers(1, 9000), st.integers(2, 16), st.sampled_from([64, 224, 331]), st.booleans())
def test_the_reduction_is_the_largest_that_keeps_the_requested_size(
    width: int, height: int, halves: int, side: int, crop: bool
) -> None:
    geometry = Geometry((side, side), Resize("crop" if crop else "squash"), "bilinear")
    found = choose_reduction((width, height), draft(halves / 2, geometry))
    # With `crop` both sides have the same ratio, except for rounding down by one pixel.
    left = Fraction(min(width, height), found) / side
    assert found == 1 or left >= Fraction(halves, 2)
    assert found == 8 or left / 2 < Fraction(halves, 2)


def test_without_a_draft_every_pixel_is_decoded(tmp_path: Path) -> None:
    path = take_photo(tmp_path / "x.jpg")
    decoded, upright = decode_image(path), decode_fully(path)
    assert np.array_equal(np.asarray(decoded.image), np.asarray(upright))
    assert np.array_equal(read_squares(path, [SQUASH])[SQUASH], show_by_timm(upright, SQUASH))
    assert read_picture(path, []).traits.tolist() == measure_traits(upright).tolist()


def test_small_images_and_other_formats_are_not_changed_by_a_draft(tmp_path: Path) -> None:
    small = take_photo(tmp_path / "x.jpg", size=(191, 300))
    with Image.open(PHOTOS / "china.jpg") as photo:
        for suffix in ("png", "webp", "tiff", "bmp"):
            photo.save(tmp_path / f"x.{suffix}", **({"compression": "jpeg"} if suffix == "tiff" else {}))
    for path in (small, *tmp_path.glob("x.[!j]*")):
        reduced, whole = (read_picture(path, [SQUASH], draft=allowed) for allowed in (draft(1, SQUASH), None))
        assert np.array_equal(reduced.squares[SQUASH], whole.squares[SQUASH])
        assert reduced.traits.tolist() == whole.traits.tolist()


def test_traits_are_those_of_the_full_size(tmp_path: Path) -> None:
    """801 and 804 px both become 101, so the reduced image alone would not count as upright."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    with Image.open(PHOTOS / "flower.jpg") as photo:
        photo.resize((804, 801)).save(tmp_path / "x.jpg", exif=exif)
    small = Geometry((64, 64), Resize(), "bilinear")
    assert decode_image(tmp_path / "x.jpg", draft=draft(1, small)).image.size == (101, 101)
    found = read_picture(tmp_path / "x.jpg", [], draft=draft(1, small)).traits
    wanted = measure_traits(decode_fully(tmp_path / "x.jpg"))
    assert found[2:].tolist() == wanted[2:].tolist() == [804, 1]
    assert found[:2].tolist() == pytest.approx(wanted[:2].tolist(), rel=0.01)


def test_a_tile_of_a_reduced_image_covers_the_same_region_as_in_the_full_image() -> None:
    """38 px become 4.75 of 5 px, and a tile starts inside the second pixel; each pixel's value is its index."""
    columns = np.repeat(np.arange(5, dtype=np.uint8)[None, :, None], 3, axis=2)
    tile = cut_box(Decoded(Image.fromarray(columns), (38, 8), (0.25, 0.0, 5.0, 1.0)), (10, 0, 26, 8))
    assert np.asarray(tile.image)[0, :, 0].tolist() == [1, 2, 3]
    assert (tile.size, tile.region) == ((16, 8), (0.5, 0.0, 2.5, 1.0))


def test_large_jpegs_are_refused_and_damaged_ones_noted_as_without_a_draft(tmp_path: Path) -> None:
    path = take_photo(tmp_path / "x.jpg")
    with pytest.raises(
        ImageError, match=r"^x\.jpg: found 640x427 = 273280 pixels; wanted at most 273279 \(`runtime\.max_pixels`\)$"
    ):
        read_squares(path, [SQUASH], max_pixels=273_279, draft=draft(1, SQUASH))
    path.write_bytes(path.read_bytes()[:30_000])
    full, reduced = (read_picture(path, [SQUASH], draft=allowed) for allowed in (None, draft(1, SQUASH)))
    assert full.note == reduced.note != ""
    assert np.array_equal(full.squares[SQUASH], reduced.squares[SQUASH]), "decoded at full size"


@pytest.mark.skipif(not SHARED.is_dir(), reason="requires the folder of shared test images beside this checkout")
def test_odd_jpegs_are_readable_if_they_are_without_a_draft() -> None:
    """They include lossless files, which libjpeg cannot reduce."""
    tiny, reduced = draft(1, Geometry((8, 8), Resize(), "bilinear")), 0
    for path in sorted(SHARED.rglob("*.jp*g")):
        try:
            whole = decode_image(path)
        except ImageError as error:
            with pytest.raises(type(error)):
                decode_image(path, draft=tiny)
            continue
        decoded = decode_image(path, draft=tiny)
        assert decoded.size == whole.size == whole.image.size and decoded.image.mode == "RGB"
        assert decoded.note == whole.note
        reduced += decoded.image.size != whole.size
    assert reduced > 50


def test_a_draft_in_the_manifest_applies_to_the_geometries_of_all_models(workshop: Workshop, tmp_path: Path) -> None:
    manifest = read_manifest(workshop.dataset / MANIFEST_NAME)
    assert manifest.runtime.draft is None and read_draft(manifest) is None
    document = json.loads((workshop.dataset / MANIFEST_NAME).read_text())
    document["runtime"]["draft"] = 2
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(document))
    allowed = read_draft(read_manifest(tmp_path / MANIFEST_NAME))
    assert allowed and allowed.factor == 2.0
    assert {geometry.size for geometry in allowed.geometries} == {(size, size) for _, _, size, _ in ZOO.values()}
    write_manifest(read_manifest(tmp_path / MANIFEST_NAME), tmp_path / "again.json")
    assert read_draft(read_manifest(tmp_path / "again.json")) == allowed


def test_the_kernel_decodes_at_reduced_size_if_the_manifest_has_a_draft(own_workshop: Workshop, tmp_path: Path) -> None:
    """Compares the packed script's scores with those of ONNX Runtime on squares of the reduced files."""
    ids = read_ids(own_workshop.sample)
    shutil.rmtree(own_workshop.images)
    own_workshop.images.mkdir()
    paths = [own_workshop.images / f"{image}.jpg" for image in ids]
    for place, photo in enumerate(paths):
        take_photo(photo, ("china", "flower")[place % 2], (500 + place, 400 - place))
    path = own_workshop.dataset / MANIFEST_NAME
    document = json.loads(path.read_text())
    found = {}
    for factor in (None, 1000, 1):  # no photograph is large enough for 1000
        document["runtime"]["draft"] = factor
        path.write_text(json.dumps(document))
        out = tmp_path / str(factor)
        finished = run_script(own_workshop, out / "submission.csv", "--predictions", str(out / "kept"))
        assert finished.returncode == 0, finished.stderr
        found[factor] = {name: np.load(out / "kept" / f"{name}.npy") for name in ZOO}
    manifest = read_manifest(path)
    geometries = {model.name: read_geometry(model) for model in manifest.models}
    allowed = draft(1, *geometries.values())
    for model in manifest.models:
        geometry = geometries[model.name]
        session = onnxruntime.InferenceSession(own_workshop.dataset / model.onnx["fp32"].file)
        squares = np.stack([read_squares(photo, [geometry], draft=allowed)[geometry] for photo in paths])
        (scores,) = session.run(None, {"image": squares, "views": np.array([0, 1])})
        np.testing.assert_allclose(found[1][model.name], scores, rtol=0, atol=3e-4)
        assert np.array_equal(found[None][model.name], found[1000][model.name])
    assert max(np.abs(found[None][name] - found[1][name]).max() for name in ZOO) > 1e-3, (
        "the draft must change the scores"
    )
