"""Runs whose memory does not suffice: a valid submission and an exit code that tells, never a traceback."""

import dataclasses
import errno
import itertools
import json
import os
import resource
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from threading import Thread

import pytest
from PIL import Image

from inference.__main__ import main
from inference.basics import memory
from inference.basics.errors import DegradedError, ImageMemoryError
from inference.basics.run_log import RunLog
from inference.images import read as images
from inference.images.read import read_picture
from inference.images.read_ahead import decode_ahead
from inference.manifest.file import read_manifest
from inference.manifest.labels import read_labels
from inference.run import chunk, predict, results
from inference.run.predict import Request, run
from inference.task.ids import read_ids
from inference.task.submission import check_submission
from tests.conftest import ROOT, Workshop, write_picture, write_rows
from tests.roads.test_endurance import check, count_prior, read_log, small_chunks

__all__ = ["small_chunks"]  # a fixture


def run_limited(workshop: Workshop, out: Path, megabytes: int, sample: Path) -> subprocess.CompletedProcess[str]:
    """The packed script on one core with so much memory for data, thread stacks included."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (megabytes << 20, megabytes << 20))
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    command = [sys.executable, "-I", str(workshop.dataset / "inference.pyz"), "--bundle", str(workshop.dataset)]
    command += ["--images", str(workshop.images), "--sample", str(sample), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        command, env=environment, preexec_fn=limit, capture_output=True, text=True, check=False, timeout=60
    )


def test_any_limit_of_memory_ends_in_a_valid_submission_or_before_the_first(
    own_workshop: Workshop, tmp_path: Path
) -> None:
    Image.new("1", (9000, 9000)).save(own_workshop.images / "large.png")
    ids = [*read_ids(own_workshop.sample), "large"]
    sample = write_rows(tmp_path / "sample.csv", ("id", "attribute_ids"), [(name, "0") for name in ids])
    labels = read_labels(own_workshop.dataset / "labels.csv", read_manifest(own_workshop.manifest).labels.groups)
    codes = {}
    for megabytes in (4000, 1000, 500, 200, 130, 90, 80, 20):
        out = tmp_path / str(megabytes) / "submission.csv"
        finished = run_limited(own_workshop, out, megabytes, sample)
        codes[megabytes] = finished.returncode
        assert finished.returncode in (0, 1, 3), (megabytes, finished.stderr)
        assert "Traceback" not in finished.stderr, (megabytes, finished.stderr)
        if finished.returncode == 1:
            assert not out.exists()
        else:
            check_submission(out, ids, labels)
        if megabytes in (1000, 500):
            (unreadable,) = json.loads(out.with_name("run_log.json").read_text())["unreadable"].items()
            assert unreadable[0] == "large"
            assert unreadable[1].startswith("large.png: memory did not suffice: 9000x9000 pixels take 1620 MB, ")
            note = "DEGRADED: 1 of 21 images keep the prior's labels: memory did not suffice to read them\n"
            assert note in finished.stderr
    assert (codes[4000], codes[1000], codes[500], codes[20]) == (0, 3, 3, 1), codes
    assert set(codes.values()) == {0, 1, 3}, codes


SHORT = MemoryError("Unable to allocate 1. GiB")
STAYS = "what was written before stays"
DECIDE = "memory did not suffice to decide and write it"
NO_THREAD = RuntimeError("can't start new thread")
GO_ON = "memory did not suffice to go on, so what is there is submitted: "
BARE = " of 20 images keep the prior's labels: memory did not suffice"


RUN, THREAD = (predict, results, chunk), (Thread,)


@pytest.mark.parametrize(
    ("places", "name", "call", "error", "prior", "told"),
    [
        (RUN, "open_stage", 0, SHORT, 20, [f"{GO_ON}{SHORT}", f"20{BARE}"]),
        (RUN, "choose_labels", 0, SHORT, 20, [f"{GO_ON}{SHORT}", f"20{BARE}", f"OUT: {DECIDE}: {SHORT}: {STAYS}"]),
        (RUN, "read_devices", 0, SHORT, 20, [f"{GO_ON}{SHORT}", f"20{BARE}"]),
        (RUN, "Runner", 1, SHORT, 20, [f"{GO_ON}{SHORT}", f"20{BARE}"]),
        (
            (Thread,),
            "start",
            0,
            NO_THREAD,
            20,
            [f"{GO_ON}no thread for the alarm of the limit: {NO_THREAD}", f"20{BARE}"],
        ),
        (THREAD, "start", 1, NO_THREAD, 20, [f"{GO_ON}the system gives no thread to read images with", f"20{BARE}"]),
        (RUN, "join_squares", 0, SHORT, 20, [f"{GO_ON}{SHORT}", f"20{BARE}"]),
        # Two of the fifth chunk's models are in, and used, though it is not done.
        (RUN, "add_views", 14, SHORT, 10, [f"{GO_ON}{SHORT}", f"12{BARE}"]),
        (
            RUN,
            "write_submission",
            1,
            SHORT,
            20,
            [f"OUT: {DECIDE}: {SHORT}: {STAYS}"],
        ),
        (RUN, "write_predictions", 0, SHORT, 0, [f"{SHORT}: {STAYS}"]),
    ],
)
def test_wherever_memory_ends_after_the_first_submission_a_valid_one_stays_and_it_is_told(
    places: tuple[object, ...],
    name: str,
    call: int,
    error: Exception,
    prior: int,
    told: list[str],
    small_chunks: Request,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = dataclasses.replace(small_chunks, predictions=tmp_path / "kept")
    with monkeypatch.context() as patched:
        fail(patched, places, name, error, call)
        assert not run(request)
    check(request)
    assert [line.replace(str(request.out), "OUT") for line in read_log(request)["degraded"]] == told
    assert count_prior(request) == prior


def fail(
    monkeypatch: pytest.MonkeyPatch,
    places: tuple[object, ...],
    name: str,
    error: Exception,
    first: int,
    last: int = 99,
) -> None:
    """A function raises at its calls from number `first` to `last`, counted from 0 over all `places`."""
    users = [place for place in places if hasattr(place, name)]
    real, calls = getattr(users[0], name), itertools.count()

    def function(*given: object, **more: object) -> object:
        if first <= next(calls) <= last:
            raise error
        return real(*given, **more)

    for user in users:
        monkeypatch.setattr(user, name, function)


@pytest.mark.parametrize("name", ["join_squares", "add_views"])
def test_images_that_memory_did_not_suffice_for_once_are_brought_in_at_the_end(
    name: str,
    small_chunks: Request,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = dataclasses.replace(small_chunks, out=tmp_path / "whole" / "submission.csv")
    assert run(whole)
    fail(monkeypatch, RUN, name, SHORT, 4, 5)
    assert run(small_chunks)
    check(small_chunks)
    assert small_chunks.out.read_bytes() == whole.out.read_bytes()
    notes = read_log(small_chunks)["notes"]
    assert notes[0] == f"memory did not suffice for 2 images, which are left for later: {SHORT}"
    assert notes[-1].startswith("time is left: ") and notes[-1].endswith(
        f" for {2 * (len(notes) - 1)} images that were seen without"
    )


def test_a_log_that_memory_does_not_suffice_for_is_told_by_the_exit_code(
    small_chunks: Request,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fail(monkeypatch, (RunLog,), "write", MemoryError(), 0)
    assert not run(small_chunks)
    assert capsys.readouterr().err.endswith("DEGRADED: run_log.json: memory did not suffice to write it\n")
    assert [path.name for path in small_chunks.out.parent.iterdir()] == ["submission.csv"]


def test_memory_that_ends_before_the_first_submission_is_an_error_in_one_line(
    small_chunks: Request,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fail(monkeypatch, RUN, "read_bundle", MemoryError(), 0)
    given = ["--bundle", small_chunks.bundle, "--images", small_chunks.images, "--sample", small_chunks.sample]
    assert main([*map(str, given), "--out", str(small_chunks.out)]) == 1
    assert capsys.readouterr().err == "error: memory does not suffice: no more is told\n"


def test_a_package_that_does_not_load_is_told_in_one_line(workshop: Workshop, tmp_path: Path) -> None:
    # -S leaves out site-packages: not even numpy is there.
    command = [
        sys.executable,
        "-I",
        "-S",
        str(workshop.dataset / "inference.pyz"),
        "--out",
        str(tmp_path / "submission.csv"),
    ]
    for name in ("bundle", "images", "sample"):
        command += [f"--{name}", str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    told = "error: numpy, Pillow and onnxruntime are needed, and cannot be loaded: No module named 'numpy'\n"
    assert (finished.returncode, finished.stderr) == (1, told)


def test_models_are_not_loaded_where_a_limit_leaves_too_little_for_their_threads(
    small_chunks: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "measure_free", lambda: 31e6)
    assert not run(small_chunks)
    check(small_chunks)
    assert read_log(small_chunks)["degraded"] == [
        f"{GO_ON}31 MB are left; wanted 32 to load or run a model",
        f"20{BARE}",
    ]


def test_strict_makes_a_shortage_an_error(small_chunks: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, RUN, "open_stage", SHORT, 0)
    with pytest.raises(DegradedError, match=rf"^{GO_ON}{SHORT} \(--strict\)$"):
        run(dataclasses.replace(small_chunks, strict=True))


def test_an_image_that_memory_does_not_suffice_for_is_tried_again_after_those_that_were_before_it() -> None:
    """The large one is read until the small one has failed; tried again, the small one is read."""
    paths, tries = [Path("large.png"), Path("small.png")], []
    failed = threading.Event()

    def read(path: Path) -> str:
        tries.append(path.stem)
        if path.stem == "large":
            assert failed.wait(10)
            raise ImageMemoryError("large.png: memory did not suffice")
        if not failed.is_set():
            failed.set()
            raise ImageMemoryError("small.png: memory did not suffice")
        return path.stem

    ((_, (large, small)),) = decode_ahead(paths, read, 2, 20)
    assert isinstance(large, ImageMemoryError) and small == "small"
    assert sorted(tries) == ["large", "large", "small", "small"]


def test_fewer_threads_than_cores_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    paths = [Path(f"{index}.png") for index in range(50)]
    fail(monkeypatch, (Thread,), "start", NO_THREAD, 1)
    assert [name for _, chunk in decode_ahead(paths, lambda path: path.stem, 8, 20) for name in chunk] == [
        path.stem for path in paths
    ]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "x.png: memory did not suffice: MemoryError: no reason given"),
        (
            OSError("out of memory when reading image file"),
            "x.png: memory did not suffice: OSError: out of memory when ",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), r"x.png: memory did not suffice: OSError: \[Errno 12\] "),
    ],
)
def test_a_shortage_while_an_image_is_read_is_told_from_a_broken_file(
    error: Exception, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_picture(tmp_path / "x.png", (30, 20), seed=1)
    for name in ("_to_rgb", "measure_traits"):
        with monkeypatch.context() as patched:
            fail(patched, (images,), name, error, 0)
            if name == "_to_rgb" or isinstance(error, MemoryError):
                with pytest.raises(ImageMemoryError, match=f"^{told}"):
                    read_picture(path, [])


def test_a_limit_leaves_what_it_is_less_what_the_system_counts_as_used() -> None:
    code = """
        import resource, sys
        from inference.basics.memory import measure_free
        assert measure_free() == float("inf")
        kind, name, limit = getattr(resource, sys.argv[1]), sys.argv[2], 900 << 20
        resource.setrlimit(kind, (limit, limit))
        held = bytearray(300 << 20)
        used = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(name))
        assert abs(measure_free() - (limit - used)) < 1 << 20, (measure_free(), limit, used)
        assert measure_free() < 600 << 20
    """
    for kind, name in (("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")):
        command = [sys.executable, "-c", textwrap.dedent(code), kind, name]
        finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (finished.returncode, finished.stderr) == (0, "")


def test_a_large_image_is_refused_by_its_header_where_a_limit_has_no_room_and_a_small_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "measure_free", lambda: 30e6)
    Image.new("L", (1500, 1000)).save(tmp_path / "fits.png")
    Image.new("L", (1501, 1000)).save(tmp_path / "x.png")
    assert images.read_image(tmp_path / "fits.png").size == (1500, 1000)
    with pytest.raises(
        ImageMemoryError, match=r"^x\.png: memory did not suffice: 1501x1000 pixels take 30 MB, 30 MB are"
    ):
        images.read_image(tmp_path / "x.png")
    monkeypatch.setattr(images, "measure_free", lambda: 0.0)
    assert images.read_image(write_picture(tmp_path / "small.png", (300, 400), seed=2)).size == (300, 400)
