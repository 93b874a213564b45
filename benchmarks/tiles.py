"""Effect of tiles on long images: F2 of the demo's bundle with and without them, at the manifest's thresholds.

python -m benchmarks.tiles                on the output of `make demo` in build/demo, and more long images
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import fbeta_score

from demo.collection import Exhibit, list_exhibits
from demo.competitions import COMPETITIONS
from demo.museum import draw_pictures
from inference.basics.files import make_folder
from inference.manifest.file import MANIFEST_NAME, read_manifest
from inference.manifest.labels import Labels, read_labels
from inference.manifest.task import Task
from inference.task.ids import read_ids
from zoo.tables.train_table import read_table

ASPECT = 3.0
WAYS: Mapping[str, dict[str, object] | None] = {
    "the whole in one square": None,
    **{
        f"at most {most} tiles, {merge}": {"aspect": ASPECT, "most": most, "merge": merge}
        for most in (8, 32)
        for merge in ("mean", "maximum")
    },
}
RESAMPLES = 9999


def measure_tiles(demo: Path, out: Path, exhibits: int) -> None:
    """Print per setting the F2 of the long images and of the demo's 600, the gain with its interval, and images/s.

    The long images are among the first `exhibits` of the test part, which was not used for training.
    """
    museum = demo / "museum"
    known = read_ids(museum / "sample_submission.csv")
    long = [one for one in list_exhibits("test", exhibits) if is_long(one)]
    draw_pictures(out, long, COMPETITIONS["multilabel"])
    for image_id in known:
        shutil.copyfile(museum / "test" / f"{image_id}.png", out / "test" / f"{image_id}.png")
    answers = {one.id: one.labels for one in [*long, *(one for one in list_exhibits("test", len(known)))]}
    for name in ("truth", "sample_submission"):
        with (out / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            rows = [(image_id, " ".join(map(str, labels))) for image_id, labels in sorted(answers.items())]
            csv.writer(file).writerows([("id", "attribute_ids"), *rows])
    manifest = read_manifest(demo / "bundle" / "dataset" / MANIFEST_NAME)
    labels = read_labels(demo / "bundle" / "dataset" / manifest.labels.file, manifest.labels.groups)
    ids = read_ids(out / "sample_submission.csv")
    own = {one.id for one in long}
    parts = {"long": np.array([one in own for one in ids]), "demo": np.array([one in set(known) for one in ids])}
    common = int((parts["long"] & parts["demo"]).sum())
    print(f"{len(long)} long images, {common} of them in the demo's {len(known)}")
    before: NDArray[np.float64] | None = None
    for name, tiles in WAYS.items():
        scores, rate = score_way(demo, out, tiles, ids, labels)
        means = ", ".join(f"{part} {scores[rows].mean():.4f}" for part, rows in parts.items())
        before = scores if before is None else before
        low, high = bootstrap(scores[parts["long"]] - before[parts["long"]])
        gain = f"gain on long {(scores - before)[parts['long']].mean():+.4f} ({low:+.4f} to {high:+.4f})"
        print(f"{name:28} {means}, {gain}, {rate} images/s", flush=True)


def is_long(one: Exhibit) -> bool:
    """Return whether the aspect ratio is above the limit."""
    return max(one.width, one.height) > ASPECT * min(one.width, one.height)


def score_way(
    demo: Path, out: Path, tiles: dict[str, object] | None, ids: list[str], labels: Labels
) -> tuple[NDArray[np.float64], float]:
    """Run the bundle with `tiles` for all models; return the F2 per image by scikit-learn, (images,), and images/s."""
    bundle = out / "bundle"
    shutil.rmtree(bundle, ignore_errors=True)
    shutil.copytree(demo / "bundle" / "dataset", bundle)
    document = json.loads((bundle / MANIFEST_NAME).read_text(encoding="utf-8"))
    for model in document["models"]:
        model["tiles"] = tiles
    (bundle / MANIFEST_NAME).write_text(json.dumps(document), encoding="utf-8")
    command = [sys.executable, str(bundle / "inference.pyz"), "--bundle", str(bundle), "--images", str(out / "test")]
    command += ["--sample", str(out / "sample_submission.csv"), "--out", str(out / "submission.csv")]
    command += ["--fresh", "--strict"]
    subprocess.run(command, check=True, capture_output=True)
    rate = json.loads((out / "run_log.json").read_text(encoding="utf-8"))["images_per_second"]
    truth, given = (
        read_table(out / f"{name}.csv", labels, Task()).order_targets(ids) for name in ("truth", "submission")
    )
    # Transposed, because with average=None scikit-learn scores each column.
    scores: NDArray[np.float64] = fbeta_score(truth.T, given.T, beta=2, average=None, zero_division=0)
    return scores, rate


def bootstrap(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a mean over images."""
    rows = np.random.default_rng(0).integers(len(differences), size=(RESAMPLES, len(differences)))
    low, high = np.percentile(differences[rows].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiles", description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, default=Path("build/demo"), metavar="DIR", help="output of `make demo`")
    parser.add_argument(
        "--out", type=Path, default=Path("build/benchmarks/tiles"), metavar="DIR", help="working folder"
    )
    parser.add_argument(
        "--exhibits", type=int, default=8000, metavar="N", help="number of images to search for long ones (8000)"
    )
    given = parser.parse_args()
    make_folder(given.out)
    measure_tiles(given.demo, given.out, given.exhibits)


if __name__ == "__main__":
    main()
