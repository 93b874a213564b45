"""The pictures of README and docs, drawn from what the commands make of the demo dataset.

python -m benchmarks.documents.draw_pictures      writes docs/pictures/*.png; needs Chromium, and pip once for dry-run

Takes about two minutes on two cores, downloads apart. Pages are 1280 px wide, cut at a given height, in 256 colours.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from build_kernel import run_step
from demo.museum import write_museum
from inference.manifest.file import MANIFEST_NAME
from training.__main__ import main as run_training
from zoo.tables.out_of_fold import open_zoo
from zoo.tables.train_table import read_table

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, LIMIT = 1280, 150_000
EXHIBITS = 40
"""Training exhibits to draw; the first held-out one with labels of both groups is explained."""
# Hides every cell of a notebook's page above the one with the heading `Results`.
SKIP = """<script>for (const cell of document.querySelectorAll("main > div")) {
    if (cell.querySelector("#Results")) break;
    cell.style.display = "none";
}</script>"""


def draw_pictures(work: Path, out: Path) -> None:
    """Run the steps in `work` and write the four pictures to `out`."""
    museum, dry_run = work / "museum", work / "dry-run"
    write_museum(museum, train_images=EXHIBITS, test_images=600)
    shutil.copytree(ROOT / "demo" / "zoo", work / "demo" / "zoo", dirs_exist_ok=True)
    shutil.copyfile(ROOT / MANIFEST_NAME, work / MANIFEST_NAME)
    manifest, train = work / MANIFEST_NAME, museum / "train.csv"
    out.mkdir(parents=True, exist_ok=True)

    run(["ensemble", "--manifest", manifest, "--train", train, "--without", "cnn"])
    shoot(work / "second_stage" / "second_stage.html", out / "second-stage-page.png", 1500)

    run(["export", "--manifest", manifest, "--images", museum / "test", "--out", work / "onnx", "--precisions", "fp32"])
    run(["pack", "--manifest", manifest, "--onnx", work / "onnx", "--out", work / "bundle", "--wheels"])
    given = ["--competition", museum, "--out", dry_run]
    run(["dry-run", "--like-kaggle", "--bundle", work / "bundle" / "dataset", *given])
    page = dry_run / "results.html"
    page.write_text((dry_run / "kernel.html").read_text(encoding="utf-8").replace("</body>", f"{SKIP}</body>"), "utf-8")
    shoot(page, out / "kernel-page.png", 2240)

    limits = ["--images", "38801", "--time-limit", "200s"]
    run(["plan", "--manifest", manifest, "--accelerator", "CPU", *limits, "--out", work / "plan.png"])
    store(Image.open(work / "plan.png"), out / "plan.png")

    image = choose_exhibit(train, work / "demo" / "zoo" / "everything.oof.ids.txt", museum / "train")
    words = ["explain", image, "--manifest", manifest, "--images", museum / "train", "--train", train]
    if run_training([*map(str, words), "--out", str(work / "overlays")]):
        raise SystemExit("error: explain failed; its message is above")
    store(Image.open(work / "overlays" / f"{image}.png"), out / "grad-cam.png")


def choose_exhibit(train: Path, held_out: Path, images: Path) -> str:
    """The first drawn exhibit that was held out and has labels of both groups."""
    zoo = open_zoo(ROOT / MANIFEST_NAME)
    table = read_table(train, zoo.labels, zoo.manifest.task)
    ids = [name for name in held_out.read_text(encoding="utf-8").split() if (images / f"{name}.png").exists()]
    both = np.all([table.targets[:, zoo.labels.columns(group)].any(axis=1) for group in zoo.labels.groups], axis=0)
    return next(name for name in ids if both[table.ids.index(name)])


def run(words: Sequence[object]) -> None:
    """Run a step of build_kernel.py."""
    print(f"$ python build_kernel.py {' '.join(map(str, words))}", flush=True)
    run_step([str(word) for word in words])


def shoot(page: Path, path: Path, height: int) -> None:
    """Write the top `height` px of a page as Chromium shows it."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"error: none of {', '.join(BROWSERS)} is installed; install Chromium")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "page.png"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/user"]
        options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        options += [f"--window-size={WIDTH},{height}", f"--screenshot={shot}", page.resolve().as_uri()]
        subprocess.run([browser, *options], check=True, capture_output=True, timeout=120)
        store(Image.open(shot), path)


def store(image: Image.Image, path: Path) -> None:
    """Write an image with at most 256 colours, smaller where it would pass 150 kB."""
    image = image.convert("RGB")
    while True:
        image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= LIMIT:
            break
        image = image.resize((image.width * 9 // 10, image.height * 9 // 10), Image.Resampling.LANCZOS)
    print(f"{path}: {image.width}x{image.height}, {path.stat().st_size / 1000:.0f} kB")


def main() -> int:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.documents.draw_pictures", description=__doc__)
    work = Path("build/pictures")
    parser.add_argument("--work", type=Path, default=work, metavar="DIR", help=f"for what the steps make ({work})")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures", metavar="DIR", help="(docs/pictures)")
    given = parser.parse_args()
    draw_pictures(given.work, given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
