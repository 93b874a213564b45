import functools
from pathlib import Path

import numpy as np
import pytest
import timm.data
import torchvision
from PIL import Image
from torchvision.transforms import InterpolationMode

from inference.basics.errors import ImageError
from inference.images.geometry import Geometry, list_geometries, resize_image
from inference.images.read import read_image, read_squares
from inference.manifest.model import Model, Resize
from inference.manifest.values import CORNERS, Interpolation, ResizeRule, Size
from inference.models.views import show_view
from tests.conftest import ROOT, write_picture

SHARED = ROOT.parent / "shared" / "images"


SIZES = ((300, 400), (401, 299), (64, 64), (33, 500), (1200, 90), (63, 65), (20, 24))  # width, height
MEAN = (0.2, 0.5, 0.7)
MODES = {"squash": "squash", "crop": "center", "letterbox": "border"}


def draw_by_timm(image: Image.Image, shape: Size, resize: Resize, interpolation: str) -> np.ndarray:
    timms = timm.data.create_transform(
        input_size=shape,
        is_training=False,
        interpolation=interpolation,
        crop_pct=resize.percentage,
        crop_mode=MODES[resize.rule],
        mean=MEAN,
        normalize=False,
    )
    return np.asarray(timms(image).numpy().transpose(1, 2, 0))


@functools.cache
def draw(size: tuple[int, int], seed: int) -> Image.Image:
    """Draw random colours, (width, height)."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def make_model(image_size: int | tuple[int, int], resize: Resize, views: tuple[str, ...] = ("identity",)) -> Model:
    return Model("m", "x", "all", image_size, MEAN, (0.2,) * 3, "bicubic", resize, views=views)


@pytest.mark.parametrize("shape", [(64, 64), (48, 96), (120, 40)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("percentage", [1.0, 0.95, 0.875])
@pytest.mark.parametrize("rule", MODES)
def test_arrays_equal_timms_bit_for_bit(
    rule: ResizeRule, percentage: float, interpolation: Interpolation, shape: Size
) -> None:
    resize, fill = Resize(rule, percentage), (51, 128, 178)
    for size in SIZES:
        image = draw(size, 1)
        found = resize_image(image, Geometry(shape, resize, interpolation, fill=fill))
        assert np.array_equal(found, draw_by_timm(image, shape, resize, interpolation)), size


@pytest.mark.parametrize("shape", [(64, 64), (48, 96)])
@pytest.mark.parametrize("size", SIZES)
def test_trim_cuts_off_what_is_beyond_twice_the_size_and_squashes_the_rest(size: tuple[int, int], shape: Size) -> None:
    image = draw(size, 2)
    left, top = max(size[0] - 2 * shape[1], 0) // 2, max(size[1] - 2 * shape[0], 0) // 2
    trimmed = image.crop((left, top, left + min(size[0], 2 * shape[1]), top + min(size[1], 2 * shape[0])))
    wanted = trimmed.resize(shape[::-1], Image.Resampling.BILINEAR)
    found = resize_image(image, Geometry(shape, Resize("trim"), "bilinear"))
    assert np.array_equal(found, np.asarray(wanted))


@pytest.mark.parametrize("rule", MODES)
@pytest.mark.parametrize("image_size", [64, (48, 96)])
def test_a_view_of_a_scale_is_timms_centre_crop_of_a_larger_image(
    image_size: int | tuple[int, int], rule: ResizeRule
) -> None:
    model = make_model(image_size, Resize(rule, 0.9), ("scale_150", "hflip", "scale_125+hflip", "identity"))
    geometries = list_geometries(model)
    assert [geometry.resize.percentage for geometry in geometries] == pytest.approx([0.6, 0.9, 0.72])
    assert {geometry.shape for geometry in geometries} == {model.size}, "a view of any scale fits the graph"
    image = draw((401, 299), 3)
    for geometry in geometries:
        wanted = draw_by_timm(image, model.size, geometry.resize, "bicubic")
        assert np.array_equal(resize_image(image, geometry), wanted)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("image_size", [64, (48, 96)])
def test_the_arrays_of_a_model_with_corners_hold_torchvisions_five_crops(
    image_size: int | tuple[int, int], size: tuple[int, int]
) -> None:
    model = make_model(image_size, Resize("squash", 0.8), ("identity", *CORNERS, "top_left+hflip"))
    (geometry,) = list_geometries(model)
    image = draw(size, 4)
    array = resize_image(image, geometry)
    resized = geometry.resized
    assert array.shape == (*geometry.shape, 3) == (*resized, 3) and resized[0] == int(model.size[0] / 0.8)
    whole = torchvision.transforms.functional.resize(image, list(resized), InterpolationMode.BICUBIC)
    crops = torchvision.transforms.functional.five_crop(whole, list(model.size))
    for view, crop in zip((*CORNERS, "identity"), crops, strict=True):
        assert np.array_equal(show_view(array[None], view, model.size)[0], np.asarray(crop)), view


@pytest.mark.parametrize("rule", ["crop", "letterbox"])
@pytest.mark.parametrize("size", SIZES)
def test_the_centre_of_a_larger_array_is_the_usual_one(size: tuple[int, int], rule: ResizeRule) -> None:
    for image_size in (64, (48, 96), (45, 45)):
        model = make_model(image_size, Resize(rule, 0.8), ("identity", "top_left"))
        image = draw(size, 5)
        (geometry,) = list_geometries(model)
        found = show_view(resize_image(image, geometry)[None], "identity", model.size)[0]
        assert np.array_equal(found, draw_by_timm(image, model.size, model.resize, "bicubic")), (size, image_size)


def test_one_decoding_serves_every_geometry(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "x.png", (80, 60), seed=2)
    geometries = [Geometry((32, 32), Resize(), "bilinear"), Geometry((48, 96), Resize("crop"), "bicubic")]
    squares = read_squares(path, geometries)
    assert {key: square.shape for key, square in squares.items()} == {
        geometries[0]: (32, 32, 3),
        geometries[1]: (48, 96, 3),
    }


def test_sixteen_bits_keep_their_high_byte(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255, 256, 0x8000, 0xFFFF]], np.uint16)).save(tmp_path / "x.png")
    assert np.asarray(read_image(tmp_path / "x.png"))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_transparent_pixels_become_white_whatever_their_colour(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(tmp_path / "x.png")
    assert np.asarray(read_image(tmp_path / "x.png")).tolist() == [[[255] * 3] * 2] * 2


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared image zoo is not beside this checkout")
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", ["Landscape", "Portrait"])
def test_exif_orientation_is_undone(shape: str, orientation: int) -> None:
    upright = read_image(SHARED / "exif-orientation" / f"{shape}_1.jpg")
    turned = read_image(SHARED / "exif-orientation" / f"{shape}_{orientation}.jpg")
    assert turned.size == upright.size
    near = [np.asarray(image.resize((32, 32))).astype(float) for image in (turned, upright)]
    assert np.abs(near[0] - near[1]).mean() < 12


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared image zoo is not beside this checkout")
def test_every_file_of_a_zoo_of_broken_images_gives_rgb_or_an_image_error() -> None:
    read, refused = 0, 0
    for path in sorted(SHARED.rglob("*.*")):
        try:
            assert read_image(path).mode == "RGB"
            read += 1
        except ImageError as error:
            assert path.name in str(error) and str(path.parent) not in str(error)
            refused += 1
    assert read > 100 and refused > 10


def test_a_truncated_file_and_a_folder_are_image_errors(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "x.png", (50, 50), seed=3)
    path.write_bytes(path.read_bytes()[:60])
    (tmp_path / "folder.png").mkdir()
    for broken in (path, tmp_path / "folder.png"):
        with pytest.raises(ImageError, match=broken.name):
            read_image(broken)


def test_a_strip_too_thin_to_crop_is_refused_before_it_is_resized(tmp_path: Path) -> None:
    Image.new("RGB", (1, 9000)).save(tmp_path / "x.png")
    with pytest.raises(ImageError, match=r"^x\.png: found 1x9000; `crop` needs 320x2880000; wanted a thicker image$"):
        read_squares(tmp_path / "x.png", [Geometry((320, 320), Resize("crop"), "bilinear")])
