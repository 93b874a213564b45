"""Runs that run out of memory: a valid submission and exit code 3, never a traceback."""

import dataclasses
import errno
import itertools
import json
import os
import re
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
from inference.images import read_ahead
from inference.images.read import read_picture
from inference.images.read_ahead import decode_ahead
from inference.run import answers, chunk, predict, results
from inference.run.predict import run
from inference.run.state import Request
from inference.task.ids import read_ids
from tests.conftest import ROOT, Workshop, check_valid, write_picture, write_rows
from tests.roads.test_endurance import check, count_prior, read_log, small_chunks

__all__ = ["small_chunks"]  # a fixture


def run_limited(
    workshop: Workshop, out: Path, megabytes: int, sample: Path, kind: int = resource.RLIMIT_DATA
) -> subprocess.CompletedProcess[str]:
    """Run the packed script with a memory limit: on one core for data, or on all cores for the address space."""

    def limit() -> None:
        resource.setrlimit(kind, (megabytes << 20, megabytes << 20))
        if kind == resource.RLIMIT_DATA:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    command = [sys.executable, "-I", str(workshop.dataset / "inference.pyz"), "--bundle", str(workshop.dataset)]
    command += ["--images", str(workshop.images), "--sample", str(sample), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        command, env=environment, preexec_fn=limit, capture_output=True, text=True, check=False, timeout=60
    )


def test_any_memory_limit_gives_a_valid_submission_or_an_error_before_the_first(
    own_workshop: Workshop, tmp_path: Path
) -> None:
    Image.new("1", (9000, 9000)).save(own_workshop.images / "large.png")
    ids = [*read_ids(own_workshop.sample), "large"]
    sample = write_rows(tmp_path / "sample.csv", ("id", "attribute_ids"), [(name, "0") for name in ids])
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
            check_valid(own_workshop.dataset, sample, out)
        if megabytes in (1000, 500):
            (unreadable,) = json.loads(out.with_name("run_log.json").read_text())["unreadable"].items()
            assert unreadable[0] == "large"
            assert unreadable[1].startswith("large.png: out of memory: 9000x9000 pixels need 1620 MB; ")
            note = "DEGRADED: 1 of 21 images get the prior labels: out of memory while reading them\n"
            assert note in finished.stderr
    assert (codes[4000], codes[1000], codes[500], codes[20]) == (0, 3, 3, 1), codes
    assert set(codes.values()) == {0, 1, 3}, codes


@pytest.mark.parametrize("megabytes", [240, 270, 300, 340, 420])
def test_a_limit_of_the_address_space_ends_no_run(megabytes: int, workshop: Workshop, tmp_path: Path) -> None:
    """`ulimit -v` counts what threads only reserve; ONNX Runtime ends the process when small allocations fail."""
    out = tmp_path / "submission.csv"
    finished = run_limited(workshop, out, megabytes, workshop.sample, resource.RLIMIT_AS)
    assert finished.returncode in (0, 3), (finished.returncode, finished.stderr)
    assert "Traceback" not in finished.stderr
    check_valid(workshop.dataset, workshop.sample, out)


SHORT = MemoryError("Unable to allocate 1. GiB")
KEPT = "the output written so far is kept"
WRITING = "out of memory while writing the submission"
NO_THREAD = RuntimeError("can't start new thread")
BARE = " of 20 images get the prior labels: out of memory"


def end_early(reason: object) -> str:
    return f"out of memory ({reason}); the run ends early, with the predictions made so far"


RUN, THREAD = (predict, results, chunk, answers), (Thread,)


@pytest.mark.parametrize(
    ("places", "name", "call", "error", "prior", "notes"),
    [
        (RUN, "open_stage", 0, SHORT, 20, [end_early(SHORT), f"20{BARE}"]),
        (RUN, "choose_answers", 0, SHORT, 20, [f"OUT: {WRITING}: {SHORT}; {KEPT}"]),
        (RUN, "read_devices", 0, SHORT, 20, [end_early(SHORT), f"20{BARE}"]),
        (RUN, "Runner", 1, SHORT, 20, [end_early(SHORT), f"20{BARE}"]),
        (THREAD, "start", 0, NO_THREAD, 20, [end_early(f"no thread for the time limit: {NO_THREAD}"), f"20{BARE}"]),
        (THREAD, "start", 1, NO_THREAD, 20, [end_early("cannot start a thread to read images"), f"20{BARE}"]),
        (RUN, "join_squares", 0, SHORT, 20, [end_early(SHORT), f"20{BARE}"]),
        # Two models have predicted the fifth chunk; their predictions are used though it is not done.
        (RUN, "add_views", 14, SHORT, 10, [end_early(SHORT), f"10{BARE}"]),
        (RUN, "write_submission", 1, SHORT, 20, [f"OUT: {WRITING}: {SHORT}; {KEPT}"]),
        (RUN, "write_predictions", 0, SHORT, 0, [f"{SHORT}; {KEPT}"]),
    ],
)
def test_out_of_memory_after_the_first_submission_keeps_a_valid_one_and_is_noted(
    places: tuple[object, ...],
    name: str,
    call: int,
    error: Exception,
    prior: int,
    notes: list[str],
    small_chunks: Request,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = dataclasses.replace(small_chunks, predictions=tmp_path / "kept")
    with monkeypatch.context() as patched:
        fail(patched, places, name, error, call)
        assert not run(request)
    check(request)
    assert [line.replace(str(request.out), "OUT") for line in read_log(request)["degraded"]] == notes
    assert count_prior(request) == prior


def fail(
    monkeypatch: pytest.MonkeyPatch,
    places: tuple[object, ...],
    name: str,
    error: Exception,
    first: int,
    last: int = 99,
) -> None:
    """Make a function raise at its calls `first` to `last`, counted from 0 over all `places`."""
    users = [place for place in places if hasattr(place, name)]
    real, calls = getattr(users[0], name), itertools.count()

    def function(*given: object, **more: object) -> object:
        if first <= next(calls) <= last:
            raise error
        return real(*given, **more)

    for user in users:
        monkeypatch.setattr(user, name, function)


@pytest.mark.parametrize("name", ["join_squares", "add_views"])
def test_images_that_ran_out_of_memory_once_are_predicted_at_the_end(
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
    assert notes[0] == f"out of memory: 2 images postponed to the end of the run: {SHORT}"
    count = 2 * (len(notes) - 1)
    assert notes[-1].startswith("time left: running ")
    assert notes[-1].endswith(f" on {count} images not yet predicted with them")


def test_out_of_memory_while_writing_the_log_sets_the_exit_code(
    small_chunks: Request,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fail(monkeypatch, (RunLog,), "write", MemoryError(), 0)
    assert not run(small_chunks)
    assert capsys.readouterr().err.endswith("DEGRADED: run_log.json: out of memory while writing it\n")
    assert [path.name for path in small_chunks.out.parent.iterdir()] == ["submission.csv"]


def test_out_of_memory_before_the_first_submission_is_a_one_line_error(
    small_chunks: Request,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fail(monkeypatch, RUN, "open_bundle", MemoryError(), 0)
    given = ["--bundle", small_chunks.bundle, "--images", small_chunks.images, "--sample", small_chunks.sample]
    assert main([*map(str, given), "--out", str(small_chunks.out)]) == 1
    assert capsys.readouterr().err == "error: out of memory (no details given)\n"


def test_a_missing_package_is_a_one_line_error(workshop: Workshop, tmp_path: Path) -> None:
    # -S disables site-packages, so that numpy is missing too.
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
    expected = "error: cannot load numpy, Pillow and onnxruntime: No module named 'numpy'\n"
    assert (finished.returncode, finished.stderr) == (1, expected)


def test_models_are_not_loaded_if_too_little_memory_is_left_for_their_threads(
    small_chunks: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "measure_free", lambda: 31e6)
    assert not run(small_chunks)
    check(small_chunks)
    assert read_log(small_chunks)["degraded"] == [
        end_early("found 31 MB free; wanted 32 MB to load or run a model"),
        f"20{BARE}",
    ]


def test_strict_makes_out_of_memory_an_error(small_chunks: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, RUN, "open_stage", SHORT, 0)
    with pytest.raises(DegradedError, match=f"^{re.escape(end_early(SHORT))} \\(--strict\\)$"):
        run(dataclasses.replace(small_chunks, strict=True))


def test_an_image_that_ran_out_of_memory_is_retried_after_the_images_before_it() -> None:
    """The large image is still being read when the small one fails; the retry reads the small one."""
    paths, tries = [Path("large.png"), Path("small.png")], []
    failed = threading.Event()

    def read(path: Path) -> str:
        tries.append(path.stem)
        if path.stem == "large":
            assert failed.wait(10)
            raise ImageMemoryError("large.png: out of memory")
        if not failed.is_set():
            failed.set()
            raise ImageMemoryError("small.png: out of memory")
        return path.stem

    ((_, (large, small)),) = decode_ahead(paths, read, 2, 20)
    assert isinstance(large, ImageMemoryError) and small == "small"
    assert sorted(tries) == ["large", "large", "small", "small"]


def test_fewer_threads_than_cores_still_read_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "count_cores", lambda: 4)
    paths = [Path(f"{index}.png") for index in range(50)]
    fail(monkeypatch, (Thread,), "start", NO_THREAD, 1)
    assert [name for _, chunk in decode_ahead(paths, lambda path: path.stem, 8, 20) for name in chunk] == [
        path.stem for path in paths
    ]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "x.png: out of memory: MemoryError: no reason given"),
        (
            OSError("out of memory when reading image file"),
            "x.png: out of memory: OSError: out of memory when ",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), r"x.png: out of memory: OSError: \[Errno 12\] "),
    ],
)
def test_out_of_memory_while_reading_an_image_is_distinguished_from_a_broken_file(
    error: Exception, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_picture(tmp_path / "x.png", (30, 20), seed=1)
    for name in ("_to_rgb", "measure_traits"):
        with monkeypatch.context() as patched:
            fail(patched, (images,), name, error, 0)
            if name == "_to_rgb" or isinstance(error, MemoryError):
                with pytest.raises(ImageMemoryError, match=f"^{message}"):
                    read_picture(path, [])


def test_free_memory_is_the_limit_minus_what_the_system_counts_as_used() -> None:
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


def test_a_large_image_is_refused_by_its_header_if_memory_is_short_and_a_small_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "measure_free", lambda: 30e6)
    Image.new("L", (1500, 1000)).save(tmp_path / "fits.png")
    Image.new("L", (1501, 1000)).save(tmp_path / "x.png")
    assert images.read_image(tmp_path / "fits.png").size == (1500, 1000)
    with pytest.raises(ImageMemoryError, match=r"^x\.png: out of memory: 1501x1000 pixels need 30 MB; 30 MB are"):
        images.read_image(tmp_path / "x.png")
    monkeypatch.setattr(images, "measure_free", lambda: 0.0)
    assert images.read_image(write_picture(tmp_path / "small.png", (300, 400), seed=2)).size == (300, 400)
