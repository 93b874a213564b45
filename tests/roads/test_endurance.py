"""Complete runs under the problems of kernels: kills, limits, slow and failing models, full disks."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.basics.errors import DegradedError, OutputError, StoreError
from inference.basics.files import hash_file
from inference.manifest.file import MANIFEST_NAME
from inference.manifest.values import View
from inference.models import sessions
from inference.models.devices import Device
from inference.models.sessions import ModelSession
from inference.run import budget, predict, state, store
from inference.run.predict import run
from inference.run.state import Request
from tests.conftest import Workshop, check_valid, write_prior_cell


@pytest.fixture
def small_chunks(workshop: Workshop, tmp_path: Path) -> Request:
    """A run of the workshop's bundle in ten chunks of two images."""
    bundle = Path(shutil.copytree(workshop.dataset, tmp_path / "bundle"))
    request = Request(bundle, tmp_path / "out" / "submission.csv", images=workshop.images, sample=workshop.sample)
    return set_batch_size(request, 2)


def set_batch_size(request: Request, size: int) -> Request:
    """Change the batch size in the manifest of the request's bundle; return the request."""
    path = request.bundle / MANIFEST_NAME
    document = json.loads(path.read_text())
    document["runtime"]["batch_size"] = size
    path.write_text(json.dumps(document))
    return request


class Hands:
    """A clock moved only by the models of a run: each view of an image takes one second, times `factor`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, factor: Callable[[int, str], float] = lambda *_: 1.0) -> None:
        """`factor`: from (number of passes so far, in images × views; model)."""
        self.time = 1000.0
        self.ran: list[str] = []  # MODEL/VIEW of each image
        monkeypatch.setattr(state, "monotonic", lambda: self.time)
        monkeypatch.setattr(budget, "SMALLEST_RESERVE", 0.5)
        real = ModelSession.predict

        def predict(
            session: ModelSession, batch: np.ndarray, views: Sequence[View] = ("identity",), full: int = 0
        ) -> np.ndarray:
            self.time += factor(len(self.ran), session.name) * len(batch) * len(views)
            self.ran += [f"{session.name}/{view}" for view in views] * len(batch)
            return real(session, batch, views, full)

        monkeypatch.setattr(ModelSession, "predict", predict)


NEEDED = 20 * 6  # seconds of Hands for twenty images, three models and two views


def read_log(request: Request) -> dict[str, Any]:
    log: dict[str, Any] = json.loads(request.out.with_name("run_log.json").read_text())
    return log


def check(request: Request) -> None:
    """Check that the submission is valid, and that its folder has no other file than it and run_log.json."""
    assert request.sample
    check_valid(request.bundle, request.sample, request.out)
    assert sorted(path.name for path in request.out.parent.iterdir()) == ["run_log.json", "submission.csv"]


def count_prior(request: Request) -> int:
    prior = write_prior_cell(request.bundle / MANIFEST_NAME)
    return sum(line.endswith(f",{prior}") for line in request.out.read_text().splitlines())


MODELS = ("everything", "culture", "tag")


def run_within(request: Request, hands: Hands, limit: float) -> tuple[bool, int]:
    """Run and check the time limit and the submission; return whether it is complete and how many prior rows it has."""
    started = hands.time
    complete = run(dataclasses.replace(request, time_limit=limit))
    assert hands.time - started <= limit
    check(request)
    return complete, count_prior(request)


def test_with_less_time_views_are_dropped_first_then_models_then_images_and_the_limit_is_kept(
    small_chunks: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = Hands(monkeypatch)
    request = dataclasses.replace(small_chunks, predictions=tmp_path / "kept")
    found = {}
    for percent in (110, 100, 50, 25, 10, 2):
        hands.ran.clear()
        complete, prior = run_within(request, hands, NEEDED * percent / 100)
        bare = int(np.isnan(np.load(tmp_path / "kept" / "everything.npy")[:, 0]).sum())
        assert prior >= bare
        found[percent] = (complete, bare, len(set(hands.ran)))
    assert found == {
        110: (True, 0, 6),
        100: (False, 0, 6),  # because a plan has a margin
        50: (False, 0, 4),
        25: (False, 0, 3),
        10: (False, 10, 1),
        2: (False, 18, 1),
    }


def test_the_log_says_what_was_dropped_and_why(small_chunks: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    run_within(small_chunks, Hands(monkeypatch), NEEDED / 2)
    log = read_log(small_chunks)
    dropped = "tag/identity, everything/hflip, culture/hflip and tag/hflip dropped for the next 18 images"
    assert log["notes"][0] == f"{dropped}: 1:48 needed, 0:53 left"
    assert log["degraded"]
    for reason in log["degraded"]:
        assert " dropped for " in reason and reason.endswith(": not enough time before the time limit of 1:00")


def test_a_run_ends_in_time_if_a_model_becomes_five_times_slower(
    small_chunks: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in MODELS:
        with monkeypatch.context() as patched:
            hands = Hands(patched, lambda ran, name, slow=model: 5.0 if ran >= NEEDED / 2 and name == slow else 1.0)
            complete, _ = run_within(small_chunks, hands, NEEDED * 1.1)
        assert not complete
        assert any("dropped for the next" in note for note in read_log(small_chunks)["notes"])
        assert not any("get the prior labels" in reason for reason in read_log(small_chunks)["degraded"]), model


def test_after_the_first_chunk_all_views_of_a_model_run_together(
    small_chunks: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = set_batch_size(small_chunks, 8)
    shown: list[tuple[str, ...]] = []
    real = ModelSession.predict

    def predict(session: ModelSession, batch: np.ndarray, views: Sequence[View], full: int) -> np.ndarray:
        shown.append((session.name, *views))
        return real(session, batch, views, full)

    monkeypatch.setattr(ModelSession, "predict", predict)
    assert run(dataclasses.replace(request, time_limit=3600.0))
    apart = [(name, view) for view in ("identity", "hflip") for name in MODELS]
    assert shown[:6] == apart, "to measure one view at a time"
    assert set(shown[6:]) == {(name, "identity", "hflip") for name in MODELS}


def test_dropped_passes_run_later_on_the_images_without_them(
    small_chunks: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = dataclasses.replace(small_chunks, out=tmp_path / "whole" / "s.csv", predictions=tmp_path / "all")
    assert run(whole)
    hands = Hands(monkeypatch, lambda ran, _: 12.0 if ran < 12 else 0.5)
    request = dataclasses.replace(small_chunks, predictions=tmp_path / "kept")
    complete, _ = run_within(request, hands, 12 * 12 + NEEDED)
    assert complete
    assert Counter(hands.ran) == {f"{name}/{view}": 20 for name in MODELS for view in ("identity", "hflip")}
    notes = "\n".join(read_log(request)["notes"])
    assert "dropped for the next 18 images" in notes and " restored for the next " in notes and "time left: " in notes
    for name in MODELS:
        left, right = (np.load(tmp_path / place / f"{name}.npy").astype(float) for place in ("all", "kept"))
        np.testing.assert_allclose(left, right, atol=1e-3)


def spoil(monkeypatch: pytest.MonkeyPatch, name: str, answer: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replace the output of one model's ONNX session."""
    real = ModelSession.__init__

    def load(self: ModelSession, model: str, *rest: object, **more: object) -> None:
        real(self, model, *rest, **more)  # type: ignore[arg-type]
        if model == name:
            inner = self._lanes[0]

            class Spoilt:
                def run(self, *given: Any) -> np.ndarray:
                    return answer(inner.run(*given))

            self._lanes = [Spoilt()]

    monkeypatch.setattr(ModelSession, "__init__", load)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (lambda output: output * np.nan, "model tag: its output is not a probability: NaN or outside [0, 1]"),
        (lambda output: output + 1, "model tag: its output is not a probability: NaN or outside [0, 1]"),
        (lambda output: output[:, :1], "model tag: found an output of (1, 1); wanted (1, 3)"),
        (lambda output: output * 0 + 0.5, "model tag: gives 20 different images the same scores"),
    ],
)
def test_the_run_continues_without_a_model_of_invalid_output(
    answer: Callable[[np.ndarray], np.ndarray],
    fault: str,
    workshop: Workshop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = Request(
        workshop.dataset, tmp_path / "out" / "submission.csv", images=workshop.images, sample=workshop.sample
    )
    request = dataclasses.replace(request, predictions=tmp_path / "kept")
    spoil(monkeypatch, "tag", answer)
    assert not run(request)
    check(request)
    assert read_log(request)["degraded"] == [f"{fault}; the run continues without this model"]
    assert np.isnan(np.load(tmp_path / "kept" / "tag.npy")).all()
    assert not np.isnan(np.load(tmp_path / "kept" / "everything.npy")).any()
    with pytest.raises(DegradedError, match=r"; the run continues without this model \(--strict\)$"):
        run(dataclasses.replace(request, strict=True, fresh=True))


def test_an_unused_gpu_is_noted_with_the_reason_and_what_to_do(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    t4 = Device("Tesla T4", (7, 5), 15_828_320_256)
    monkeypatch.setattr(predict, "read_devices", lambda: (t4, t4))
    request = Request(
        workshop.dataset, tmp_path / "out" / "submission.csv", images=workshop.images, sample=workshop.sample
    )
    assert not run(request)
    (reason,) = read_log(request)["degraded"]
    assert reason.startswith("Tesla T4 and Tesla T4: GPU not used, running on the CPU: onnxruntime ")
    assert reason.endswith("install onnxruntime-gpu in its place, or pack it with `build_kernel.py pack --wheels`")
    monkeypatch.setattr(sessions.onnxruntime, "get_available_providers", lambda: [sessions.CUDA, sessions.CPU])
    assert sessions.explain_cpu(("libcudnn.so.9",)).startswith("libcudnn.so.9 cannot be loaded; install CUDA 12")


def kill_after(commits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the run end like a killed one, with a part of the next commit on the disk."""
    real, counted = store.Store.commit, []

    def commit(self: store.Store, *given: object) -> None:
        if len(counted) == commits:
            self._data.write(b"torn")
            raise KeyboardInterrupt
        counted.append(1)
        real(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(store.Store, "commit", commit)


def test_an_interrupted_run_continues_and_repeats_no_chunk(
    small_chunks: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = dataclasses.replace(small_chunks, out=tmp_path / "whole" / "submission.csv")
    assert run(whole)
    with monkeypatch.context() as patched:
        kill_after(4, patched)
        with pytest.raises(KeyboardInterrupt):
            run(small_chunks)
    lines = small_chunks.out.read_text().splitlines()
    ran = Hands(monkeypatch).ran
    assert run(small_chunks)
    check(small_chunks)
    assert len(ran) == 12 * 6, "twelve images were missing"
    assert small_chunks.out.read_bytes() == whole.out.read_bytes() != "\n".join(lines).encode()
    assert read_log(small_chunks)["notes"] == ["continuing an earlier run: 8 of 20 images done; --fresh starts over"]
    ran.clear()
    assert run(small_chunks)
    assert len(ran) == NEEDED, "a finished run is not continued"


def test_a_run_with_another_sample_bundle_or_manifest_is_not_continued(
    small_chunks: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        kill_after(2, patched)
        with pytest.raises(KeyboardInterrupt):
            run(small_chunks)
    before = small_chunks.out.read_bytes()
    sample = tmp_path / "sample.csv"
    sample.write_text("".join(small_chunks.sample.read_text().splitlines(keepends=True)[:-1]))
    path = small_chunks.bundle / MANIFEST_NAME
    document = json.loads(path.read_text())
    document["decision"]["groups"]["tag"]["threshold"] = 0.123
    other = Path(shutil.copytree(small_chunks.bundle, tmp_path / "other"))
    (other / MANIFEST_NAME).write_text(json.dumps(document))
    renamed = Path(shutil.copytree(small_chunks.bundle, tmp_path / "renamed"))
    (renamed / "labels.csv").write_text((renamed / "labels.csv").read_text().replace("boats", "ships"))
    document["labels"]["sha256"] = hash_file(renamed / "labels.csv")
    (renamed / MANIFEST_NAME).write_text(json.dumps(document))
    images = Path(shutil.copytree(small_chunks.images, tmp_path / "images"))
    next(images.iterdir()).write_bytes(b"other")
    for changed, what in (
        ({"sample": sample}, "list of images"),
        ({"bundle": other}, "manifest"),
        ({"bundle": renamed}, "bundle"),
        ({"images": images}, "folder of images"),
    ):
        with pytest.raises(StoreError, match=f"found a run with another {what}; use --fresh to start over, or "):
            run(dataclasses.replace(small_chunks, **changed))  # type: ignore[arg-type]
        assert small_chunks.out.read_bytes() == before
    assert run(dataclasses.replace(small_chunks, bundle=other, fresh=True))


def test_too_little_disk_space_is_an_error_before_anything_is_written(
    small_chunks: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(small_chunks.bundle)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OutputError, match=r"out: found 0\.0 MB of free space; wanted 0\.1 MB for predictions and sub"):
        run(small_chunks)
    assert list(small_chunks.out.parent.iterdir()) == []


def test_a_full_disk_prevents_resuming_but_not_the_submission(
    small_chunks: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = dataclasses.replace(small_chunks, out=tmp_path / "whole" / "submission.csv")
    assert run(whole)
    real, synced = os.fsync, []

    def fill_up(handle: int) -> None:
        synced.append(handle)
        if len(synced) > 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fill_up)
    assert not run(small_chunks)
    check(small_chunks)
    assert small_chunks.out.read_bytes() == whole.out.read_bytes()
    (reason,) = read_log(small_chunks)["degraded"]
    continues = "the run continues without saving and cannot be resumed if it is killed"
    assert reason.endswith(f"No space left on device; {continues}")


def test_the_previous_submission_is_kept_if_the_last_one_cannot_be_written(
    small_chunks: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = os.replace, []

    def fill_up(source: Path, target: Path) -> None:
        if Path(target) == small_chunks.out:
            written.append(target)
            if len(written) > 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", fill_up)
    assert not run(small_chunks)
    check(small_chunks)
    assert count_prior(small_chunks) == 20
    (reason,) = read_log(small_chunks)["degraded"]
    assert reason.endswith("No space left on device; the output written so far is kept")


def test_better_submissions_replace_the_prior_labels_during_the_run(
    small_chunks: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "SMALLEST_INTERVAL", 0.0)
    monkeypatch.setattr(budget, "SUBMISSION_SHARE", 0)
    seen: list[int] = []
    real = store.Store.commit

    def commit(self: store.Store, *given: object) -> None:
        real(self, *given)  # type: ignore[arg-type]
        seen.append(count_prior(small_chunks))

    monkeypatch.setattr(store.Store, "commit", commit)
    assert run(small_chunks)
    assert len(seen) == 10 and seen[0] == 20 and seen == sorted(seen, reverse=True) and seen[-1] <= 10


# The script, slowed so that a kill interrupts its work.
SLOWED = """
import sys, time
from inference.__main__ import main
from inference.models.sessions import ModelSession
real = ModelSession.predict
def wait(self, *given):
    time.sleep(0.01)
    return real(self, *given)
ModelSession.predict = wait
sys.exit(main(sys.argv[1:]))
"""


def test_a_run_killed_at_random_moments_ends_with_the_same_bytes(small_chunks: Request, tmp_path: Path) -> None:
    def start(out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SLOWED, "--bundle", str(small_chunks.bundle), "--out", str(out)]
        command += ["--images", str(small_chunks.images), "--sample", str(small_chunks.sample)]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    assert start(tmp_path / "whole.csv").wait() == 0
    random = np.random.default_rng(5)
    work = small_chunks.out.with_name("submission.csv.work")
    kills = 0
    process = start(small_chunks.out)
    while process.poll() is None and kills < 3:
        if (work / store.MARKS).exists():
            time.sleep(float(random.uniform(0.0, 0.4)))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
            process = start(small_chunks.out)
            time.sleep(0.3)
        time.sleep(0.01)
    assert process.wait() == 0 and kills >= 1
    assert small_chunks.out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    check(small_chunks)
