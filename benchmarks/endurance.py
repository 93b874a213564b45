"""What a run survives: kills, limits that are too short, slow models, full disks, little memory, any single image.

python -m benchmarks.endurance            all but the last, on what `make demo` leaves in build/demo
python -m benchmarks.endurance --only single-images --odd-images DIR      each file of a folder as the only test image
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import fbeta_score
from sklearn.preprocessing import MultiLabelBinarizer

from inference.basics.tables import read_columns
from inference.manifest.file import MANIFEST_NAME, read_manifest
from inference.manifest.labels import read_labels
from inference.run.predict import Request, run
from inference.task.ids import read_ids
from inference.task.image_places import SUFFIXES
from inference.task.submission import check_submission, parse_label_ids
from packing.dry_run.run_script import write_sample

ROOT = Path(__file__).parent.parent
KILLS, SEED = 20, 5
SHARES = (1.0, 0.5, 0.25, 0.1, 0.02)
# Each pass of an image waits, so that a run's time is known and does not depend on what else the machine does; from
# the pass named on, the model named waits five times as long.
SLOWED = """
import sys, time
from inference.__main__ import main
from inference.models.sessions import ModelSession
wait, slow_from, slow_model = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
real, seen = ModelSession.predict, 0
def predict(self, batch, views=("identity",), full=0):
    global seen
    seen += len(batch) * len(views)
    time.sleep(wait * len(batch) * len(views) * (5 if seen > slow_from and self.name == slow_model else 1))
    return real(self, batch, views, full)
ModelSession.predict = predict
sys.exit(main(sys.argv[4:]))
"""
NEVER = 10**9
MEGABYTES = [4000, 2000, 1000, 500, 300, 250, 200, *range(180, 130, -10), *range(130, 60, -10), 65, 60, 50, 40, 20]
EVERY = 50  # of the single images, so many go through the packed script too


@dataclass(frozen=True)
class Museum:
    """What `make demo` leaves: the packed dataset and the museum of test images."""

    dataset: Path
    museum: Path
    sample: Path

    def start(
        self, out: Path, wait: float, *more: str, slow_from: int = NEVER, slow_model: str = "-"
    ) -> subprocess.Popen[str]:
        """The script with models that wait so many seconds an image and view."""
        command = [sys.executable, "-c", SLOWED, str(wait), str(slow_from), slow_model]
        command += ["--bundle", str(self.dataset), "--images", str(self.museum / "test")]
        command += ["--sample", str(self.sample), "--out", str(out), *more]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT)

    def score(self, submission: Path) -> float:
        """F2 of a submission, the mean over images, by scikit-learn; raises where the submission is not valid."""
        manifest = read_manifest(self.dataset / MANIFEST_NAME)
        labels = read_labels(self.dataset / manifest.labels.file, manifest.labels.groups)
        check_submission(submission, read_ids(self.sample), labels)
        truth, given = (
            {name: parse_label_ids(cell) for name, cell in read_columns(path, ("id", "attribute_ids"), ValueError)}
            for path in (self.museum / "truth.csv", submission)
        )
        binary = MultiLabelBinarizer(classes=sorted(labels.ids)).fit([])
        wanted, found = (binary.transform([table[name] for name in given]) for table in (truth, given))
        return float(fbeta_score(wanted, found, beta=2, average="samples", zero_division=0))


def read_notes(out: Path) -> str:
    """What the run log says of decisions and of what is missing."""
    log = json.loads(out.with_name("run_log.json").read_text(encoding="utf-8"))
    return "\n".join(f"    {line}" for line in [*log["notes"], *log["degraded"]])


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and messages."""
    _, told = process.communicate()
    return process.returncode, told


def wait_for_work(out: Path) -> None:
    """Python has started, and the work folder is there."""
    while not out.with_name(f"{out.name}.work").exists():
        time.sleep(0.01)


def kill_at_random(museum: Museum, folder: Path, wait: float) -> None:
    """Runs killed with -9 at random moments, each started again, against one that was left alone."""
    process = museum.start(folder / "whole" / "submission.csv", wait)
    wait_for_work(folder / "whole" / "submission.csv")
    started = time.perf_counter()
    assert finish(process)[0] == 0
    whole = time.perf_counter() - started
    random = np.random.default_rng(SEED)
    equal = killed = continued = 0
    for number in range(KILLS):
        out = folder / f"killed-{number}" / "submission.csv"
        process = museum.start(out, wait)
        wait_for_work(out)
        time.sleep(float(random.uniform(0, whole)))
        process.send_signal(signal.SIGKILL)
        killed += finish(process)[0] == -signal.SIGKILL
        code, told = finish(museum.start(out, wait))
        continued += "continues an earlier run" in told
        equal += code == 0 and out.read_bytes() == (folder / "whole" / "submission.csv").read_bytes()
    print(
        f"{KILLS} runs of about {whole:.0f} s from the work folder to the end: {killed} killed with -9 before their "
        f"end, {continued} of them after their first chunk; started again, {equal} of {KILLS} end with the bytes of "
        "the undisturbed run"
    )


def shorten_the_limit(museum: Museum, folder: Path, wait: float) -> None:
    """Limits at parts of the time that a run without one needs."""
    out = folder / "limits" / "submission.csv"
    needed, code, _ = time_run(museum, out, wait)
    full = museum.score(out)
    print(f"without a limit: {needed:.1f} s, exit code {code}, F2 {full:.4f}")
    assert finish(museum.start(folder / "prior" / "submission.csv", wait, "--time-limit", "0.1"))[0] == 3
    print(f"the prior alone: F2 {museum.score(folder / 'prior' / 'submission.csv'):.4f}")
    for share in SHARES:
        spent, code, _ = time_run(museum, out, wait, limit=share * needed)
        f2 = museum.score(out)
        print(
            f"limit {share:4.0%}, {share * needed:6.1f} s: ended after {spent:6.1f} s, exit code {code}, "
            f"F2 {f2:.4f}, {f2 / full:.1%} of the whole\n{read_notes(out)}"
        )


def time_run(
    museum: Museum, out: Path, wait: float, limit: float | None = None, slow_from: int = NEVER, slow_model: str = "-"
) -> tuple[float, int, str]:
    """Seconds from before Python starts to its end, exit code and messages; the limit counts from the same moment."""
    clock = ["--started-at", str(time.time())] + (["--time-limit", str(limit)] if limit else [])
    started = time.perf_counter()
    code, told = finish(museum.start(out, wait, *clock, slow_from=slow_from, slow_model=slow_model))
    return time.perf_counter() - started, code, told


def slow_down(museum: Museum, folder: Path, wait: float) -> None:
    """Each model in turn becomes five times slower half way, under a limit of 1.2 times the time needed."""
    out = folder / "slower" / "submission.csv"
    needed, _, _ = time_run(museum, out, wait)
    models = read_manifest(museum.dataset / MANIFEST_NAME).models
    half = len(read_ids(museum.sample)) * sum(len(model.views) for model in models) // 2
    for model in models:
        spent, code, _ = time_run(museum, out, wait, 1.2 * needed, half, model.name)
        print(
            f"{model.name} five times slower half way: ended after {spent:.1f} s of {1.2 * needed:.1f} s, "
            f"exit code {code}, F2 {museum.score(out):.4f}\n{read_notes(out)}"
        )


@contextmanager
def mount(folder: Path, size: str) -> Iterator[Path]:
    """A small disk; needs the right to mount."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill_the_disk(museum: Museum, folder: Path, wait: float) -> None:
    """Disks that are full from the start, that fill half way, and that cannot be written."""
    with mount(folder / "small", "64k") as disk:
        code, told = finish(museum.start(disk / "submission.csv", 0))
        print(f"disk of 64 kB: exit code {code}: {told.strip()}")
    with mount(folder / "filling", "2m") as disk:
        out = disk / "submission.csv"
        process = museum.start(out, wait)
        marks = disk / "submission.csv.work" / "chunks.jsonl"
        while not (marks.exists() and marks.read_bytes().count(b"\n") >= 1):
            time.sleep(0.05)
        with (disk / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        code, _ = finish(process)
        same = out.read_bytes() == (folder / "whole" / "submission.csv").read_bytes()
        told = f"F2 {museum.score(out):.4f}, {'the' if same else 'not the'} bytes of the undisturbed run"
        notes = read_notes(out) if out.with_name("run_log.json").exists() else "    no run log"
        print(f"disk of 2 MB, filled by another after the first chunk: exit code {code}, {told}\n{notes}")
    with mount(folder / "read-only", "2m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        code, told = finish(museum.start(disk / "submission.csv", 0))
        print(f"read-only disk: exit code {code}: {told.strip()}")


def start_script(
    museum: Museum, images: Path, sample: Path, out: Path, megabytes: int | None = None
) -> tuple[int, str]:
    """Exit code and messages of the packed script; `megabytes`: of data, thread stacks included, on one core."""

    def limit() -> None:
        if megabytes:
            resource.setrlimit(resource.RLIMIT_DATA, (megabytes << 20, megabytes << 20))
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    command = [sys.executable, "-I", str(museum.dataset / "inference.pyz"), "--bundle", str(museum.dataset)]
    command += ["--images", str(images), "--sample", str(sample), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    finished = subprocess.run(
        command, env=environment, preexec_fn=limit, capture_output=True, text=True, check=False, cwd=ROOT
    )
    return finished.returncode, finished.stderr


def starve(museum: Museum, folder: Path) -> None:
    """Less and less memory, for the museum's first images and one of 81 megapixels among them."""
    images = folder / "images"
    images.mkdir()
    ids = read_ids(museum.sample)[:79]
    for name in ids:
        (images / f"{name}.png").symlink_to(museum.museum / "test" / f"{name}.png")
    Image.new("P", (9000, 9000)).save(images / "large.png", compress_level=1)
    ids.insert(40, "large")
    sample = write_sample(folder / "starved.csv", ids)
    manifest = read_manifest(museum.dataset / MANIFEST_NAME)
    labels = read_labels(museum.dataset / manifest.labels.file, manifest.labels.groups)
    prior = " ".join(map(str, sorted(manifest.decision.prior)))
    for megabytes in MEGABYTES:
        out = folder / "starved" / f"{megabytes}" / "submission.csv"
        code, told = start_script(museum, images, sample, out, megabytes)
        found = "no submission"
        if out.exists():
            check_submission(out, ids, labels)
            found = (
                f"valid, {sum(line.endswith(f',{prior}') for line in out.read_text().splitlines())} of 80 the prior's"
            )
        last = (told.strip().splitlines() or [""])[-1][:120]
        traceback = ", A TRACEBACK" if "Traceback" in told else ""
        print(f"{megabytes} MB: exit code {code}, {found}{traceback}: {last}")


def run_single_images(museum: Museum, folder: Path, odd: Path) -> None:
    """Each file as the only image of a run, in this process; every so many also by the packed script."""
    manifest = read_manifest(museum.dataset / MANIFEST_NAME)
    labels = read_labels(museum.dataset / manifest.labels.file, manifest.labels.groups)
    sample = write_sample(folder / "single.csv", ["image"])
    files = [path for path in sorted(odd.rglob("*")) if path.is_file() and path.suffix != ".md"]
    codes: Counter[str] = Counter()
    seconds: dict[Path, float] = {}
    for place, path in enumerate(files):
        images, out = folder / f"single-{place}", folder / f"single-{place}" / "out" / "submission.csv"
        images.mkdir()
        (images / f"image{path.suffix if path.suffix in SUFFIXES else '.png'}").symlink_to(path)
        started = time.perf_counter()
        try:
            with (folder / "told").open("w") as told, redirect_stdout(told), redirect_stderr(told):
                complete = run(Request(museum.dataset, images, sample, out))
            check_submission(out, ["image"], labels)
            log = json.loads(out.with_name("run_log.json").read_text(encoding="utf-8"))
            codes["complete" if complete else "degraded"] += 1
            codes["unreadable"] += bool(log["unreadable"])
        except Exception as error:  # whatever it is, it is what is looked for
            codes["failed"] += 1
            print(f"{path}: {type(error).__name__}: {error}")
        seconds[path] = time.perf_counter() - started
        if place % EVERY == 0:
            code, _ = start_script(museum, images, sample, images / "script" / "submission.csv")
            check_submission(images / "script" / "submission.csv", ["image"], labels)
            codes[f"script, exit code {code}"] += 1
    slowest = max(seconds, key=seconds.__getitem__)
    print(
        f"{len(files)} files: {', '.join(f'{count} {what}' for what, count in sorted(codes.items()))}; "
        f"slowest {slowest.relative_to(odd)}, {seconds[slowest]:.2f} s, median {np.median([*seconds.values()]):.2f} s"
    )


def main(given: Sequence[str] | None = None) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=ROOT / "build" / "demo", metavar="DIR", help="of `make demo`")
    parser.add_argument("--wait", type=float, default=0.02, metavar="SECONDS", help="of each image and view (0.02)")
    parser.add_argument("--images", type=int, default=600, metavar="N", help="how many of the museum's images (600)")
    kinds = ("kills", "limits", "slower", "disk", "memory", "single-images")
    parser.add_argument("--only", choices=kinds, help="one of them")
    parser.add_argument("--odd-images", type=Path, metavar="DIR", help="folder of the single images")
    arguments = parser.parse_args(given)
    if arguments.only == "single-images" and not arguments.odd_images:
        parser.error("--only single-images: wants --odd-images DIR")
    demo, folder = arguments.demo.resolve(), Path(tempfile.mkdtemp(prefix="endurance-"))
    ids = read_ids(demo / "museum" / "sample_submission.csv")[: arguments.images]
    museum = Museum(demo / "bundle" / "dataset", demo / "museum", write_sample(folder / "sample.csv", ids))
    try:
        if arguments.only in (None, "kills"):
            kill_at_random(museum, folder, arguments.wait / 10)
        if arguments.only in (None, "limits"):
            shorten_the_limit(museum, folder, arguments.wait)
        if arguments.only in (None, "slower"):
            slow_down(museum, folder, arguments.wait)
        if arguments.only in (None, "disk"):
            finish(museum.start(folder / "whole" / "submission.csv", 0))
            fill_the_disk(museum, folder, arguments.wait / 4)
        if arguments.only in (None, "memory"):
            starve(museum, folder)
        if arguments.only == "single-images":
            run_single_images(museum, folder, arguments.odd_images.resolve())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
