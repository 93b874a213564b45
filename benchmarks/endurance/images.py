"""Images that are difficult for a run: a very large one with little memory, and odd files one by one."""

import json
import shutil
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.endurance.runs import Museum, start_script
from benchmarks.kernel import write_sample
from inference.ensemble.decide import answer_prior
from inference.run.predict import run
from inference.run.state import Request
from inference.task.ids import read_ids
from inference.task.image_places import SUFFIXES

MEGABYTES = [4000, 2000, 1000, 500, 300, 250, 200, *range(180, 130, -10), *range(130, 60, -10), 65, 60, 50, 40, 20]
EVERY = 50  # one in 50 single images is also run with the packed script


def starve(museum: Museum, folder: Path, wait: float) -> None:
    """Run 79 test images and one of 81 megapixels with less and less memory; `wait` is not used."""
    images = folder / "images"
    images.mkdir()
    ids = read_ids(museum.sample)[:79]
    for name in ids:
        shutil.copyfile(museum.museum / "test" / f"{name}.png", images / f"{name}.png")
    Image.new("P", (9000, 9000)).save(images / "large.png", compress_level=1)
    ids.insert(40, "large")
    sample = write_sample(folder / "starved.csv", ids)
    prior = " ".join(map(str, answer_prior(*museum.read_bundle())))
    for megabytes in MEGABYTES:
        out = folder / "starved" / f"{megabytes}" / "submission.csv"
        code, errors = start_script(museum, images, sample, out, megabytes)
        found = "no submission"
        if out.exists():
            museum.check(out, sample)
            count = sum(line.endswith(f",{prior}") for line in out.read_text().splitlines())
            found = f"valid, {count} of 80 with the prior labels"
        last = (errors.strip().splitlines() or [""])[-1][:120]
        traceback = ", A TRACEBACK" if "Traceback" in errors else ""
        print(f"{megabytes} MB: exit code {code}, {found}{traceback}: {last}")


def run_single_images(museum: Museum, folder: Path, odd: Path) -> None:
    """Run each file as the only image, in this process; some also with the packed script."""
    sample = write_sample(folder / "single.csv", ["image"])
    files = [path for path in sorted(odd.rglob("*")) if path.is_file() and path.suffix != ".md"]
    codes: Counter[str] = Counter()
    seconds: dict[Path, float] = {}
    for place, path in enumerate(files):
        images, out = folder / f"single-{place}", folder / f"single-{place}" / "out" / "submission.csv"
        images.mkdir()
        shutil.copyfile(path, images / f"image{path.suffix if path.suffix in SUFFIXES else '.png'}")
        started = time.perf_counter()
        try:
            with (folder / "messages").open("w") as messages, redirect_stdout(messages), redirect_stderr(messages):
                complete = run(Request(museum.dataset, out, images=images, sample=sample))
            museum.check(out, sample)
            log = json.loads(out.with_name("run_log.json").read_text(encoding="utf-8"))
            codes["complete" if complete else "degraded"] += 1
            codes["unreadable"] += bool(log["unreadable"])
        except Exception as error:  # any exception is a failure to report
            codes["failed"] += 1
            print(f"{path}: {type(error).__name__}: {error}")
        seconds[path] = time.perf_counter() - started
        if place % EVERY == 0:
            code, _ = start_script(museum, images, sample, images / "script" / "submission.csv")
            museum.check(images / "script" / "submission.csv", sample)
            codes[f"script, exit code {code}"] += 1
    slowest = max(seconds, key=seconds.__getitem__)
    print(
        f"{len(files)} files: {', '.join(f'{count} {what}' for what, count in sorted(codes.items()))}; "
        f"slowest {slowest.relative_to(odd)}, {seconds[slowest]:.2f} s, median {np.median([*seconds.values()]):.2f} s"
    )
