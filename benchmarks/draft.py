"""Time saved by decoding JPEG files at reduced size (`runtime.draft`), and the differences in the resized squares.

python -m benchmarks.draft                a table: CPU time of one thread, and differences in pixel values (0 to 255)
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn.datasets
from PIL import Image

from inference.images.geometry import Draft, Geometry
from inference.images.read import decode_image, read_squares
from inference.manifest.model import Resize

FOLDER = Path(sklearn.datasets.__file__).parent / "images"
PHOTOS = [Image.open(FOLDER / name).convert("RGB") for name in ("china.jpg", "flower.jpg")]
SIZES = ((3000, 2000), (1500, 1000), (600, 400))
FACTORS = (1.0, 1.5, 2.0)


def lay_photos(size: tuple[int, int], enlarged: bool) -> Image.Image:
    """Tile scikit-learn's two photographs to `size`, or enlarge the first to it.

    Tiled, a photograph of 3000x2000 has the detail of a small one; enlarged, it is too smooth.
    """
    if enlarged:
        return PHOTOS[0].resize(size, Image.Resampling.BICUBIC)
    width, height = PHOTOS[0].size
    whole = Image.new("RGB", size)
    for row in range(-(-size[1] // height)):
        for column in range(-(-size[0] // width)):
            whole.paste(PHOTOS[(row + column) % 2], (column * width, row * height))
    return whole


def time_best(work: Callable[[], object], rounds: int) -> float:
    """Return the CPU time of the fastest of `rounds`, milliseconds."""
    spent = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return min(spent) * 1000


def measure_draft(path: Path, geometry: Geometry, rounds: int) -> None:
    """Print per factor the decoded size, its time, and the differences from the square made of all pixels."""
    whole = read_squares(path, [geometry])[geometry].astype(float)
    before = time_best(lambda: read_squares(path, [geometry]), rounds)
    width, height = decode_image(path).image.size
    print(f"| {path.stem} {width}x{height} | off | {width}x{height} | {before:.1f} | | | | |")
    for factor in FACTORS:
        draft = Draft(factor, frozenset([geometry]))
        decoded = decode_image(path, draft=draft).image.size
        spent = time_best(lambda draft=draft: read_squares(path, [geometry], draft=draft), rounds)  # type: ignore[misc]
        difference = np.abs(read_squares(path, [geometry], draft=draft)[geometry] - whole)
        figures = f"{difference.mean():.2f} | {np.percentile(difference, 99.9):.0f} | {difference.max():.0f}"
        print(
            f"| | {factor:g} | {decoded[0]}x{decoded[1]} | {spent:.1f} | {before / spent:.1f} | {figures} |", flush=True
        )


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.draft", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="the fastest of N counts (10)")
    parser.add_argument("--size", type=int, default=320, metavar="PX", help="side of the square (320)")
    parser.add_argument("photos", nargs="*", type=Path, help="more JPEG files to measure")
    given = parser.parse_args()
    geometry = Geometry(given.size, Resize(), "bilinear")
    print("| photograph | factor | decoded | ms | times | mean | 99.9 % | most |\n|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            for name, enlarged in (("laid", False), ("enlarged", True)):
                path = Path(folder, f"{name}.jpg")
                lay_photos(size, enlarged).save(path, quality=90)
                measure_draft(path, geometry, given.rounds)
    for path in given.photos:
        measure_draft(path, geometry, given.rounds)


if __name__ == "__main__":
    main()
