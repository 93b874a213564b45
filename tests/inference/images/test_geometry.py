from pathlib import Path

import numpy as np
import pytest
import timm.data
from PIL import Image

from inference.basics.errors import ImageError
from inference.images.geometry import Geometry, resize_image
from inference.images.read import read_image, read_squares
from inference.manifest.records import Resize
from inference.manifest.values import Interpolation
from tests.conftest import ROOT, write_picture

SHARED = ROOT.parent / "shared" / "images"


@pytest.mark.parametrize("size", [(300, 400), (401, 299), (64, 64), (33, 500), (1200, 90), (63, 65)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "resize",
    [Resize("squash"), Resize("squash", 0.9), Resize("crop"), Resize("crop", 0.875), Resize("crop", 0.95)],
    ids=str,
)
def test_squares_equal_timms_bit_for_bit(
    size: tuple[int, int], interpolation: Interpolation, resize: Resize, tmp_path: Path
) -> None:
    image = Image.open(write_picture(tmp_path / "x.png", size, seed=1))
    mode = "squash" if resize.rule == "squash" else "center"
    timms = timm.data.create_transform(
        input_size=64,
        is_training=False,
        interpolation=interpolation,
        crop_pct=resize.percentage,
        crop_mode=mode,
        normalize=False,
    )
    wanted = timms(image).numpy().transpose(1, 2, 0)
    assert np.array_equal(resize_image(image, Geometry(64, resize, interpolation)), wanted)


def test_one_decoding_serves_every_geometry(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "x.png", (80, 60), seed=2)
    geometries = [Geometry(32, Resize(), "bilinear"), Geometry(48, Resize("crop"), "bicubic")]
    squares = read_squares(path, geometries)
    assert {key: square.shape for key, square in squares.items()} == {
        geometries[0]: (32, 32, 3),
        geometries[1]: (48, 48, 3),
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
        read_squares(tmp_path / "x.png", [Geometry(320, Resize("crop"), "bilinear")])
