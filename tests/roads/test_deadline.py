"""Complete runs that end in time: slow images, slow stackers, slow models, a stopped process, a lost group."""

import dataclasses
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.basics.errors import SessionError
from inference.basics.files import hash_file
from inference.ensemble.second_stage import choose_answers
from inference.ensemble.stackers import Stage
from inference.manifest.file import MANIFEST_NAME
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest
from inference.models.sessions import ModelSession
from inference.run import answers, predict, sweep
from inference.run.predict import run
from inference.run.state import Request
from inference.task.cells import parse_label_ids
from tests.conftest import Workshop
from tests.roads.test_endurance import MODELS, NEEDED, Hands, check, count_prior, read_log, run_within, set_batch_size

Labelled = dict[str, list[int]]


@pytest.fixture
def small_chunks(workshop: Workshop, tmp_path: Path) -> Request:
    """A run of the workshop's bundle in ten chunks of two images."""
    bundle = Path(shutil.copytree(workshop.dataset, tmp_path / "bundle"))
    return set_batch_size(
        Request(bundle, tmp_path / "out" / "submission.csv", images=workshop.images, sample=workshop.sample), 2
    )


def read_labelled(request: Request) -> Labelled:
    rows = (line.split(",") for line in request.out.read_text().splitlines()[1:])
    return {name: parse_label_ids(cell) for name, cell in rows}


def run_for(request: Request, seconds: float) -> bool:
    """Run with a time limit, which holds; return whether the submission is complete."""
    began = time.monotonic()
    complete = run(dataclasses.replace(request, time_limit=seconds))
    assert time.monotonic() - began < seconds
    check(request)
    return complete


def stall_reading(monkeypatch: pytest.MonkeyPatch, seconds: float, first: int = 0) -> threading.Event:
    """Make each image after the `first` ones take `seconds` to read; return the event that ends all waits."""
    real, release, count = sweep.read_picture, threading.Event(), []

    def read(path: Path, **more: Any) -> object:
        count.append(path)
        if len(count) > first:
            release.wait(seconds)
        return real(path, **more)

    monkeypatch.setattr(sweep, "read_picture", read)
    return release


def test_images_that_stall_do_not_hold_the_run_beyond_its_limit(
    small_chunks: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = stall_reading(monkeypatch, 15.0)
    assert not run_for(small_chunks, 2.0)
    release.set()
    assert read_log(small_chunks)["degraded"] == [
        "20 of 20 images get the prior labels: not enough time before the time limit of 0:02"
    ]
    assert not read_log(small_chunks)["unreadable"]


def test_the_images_of_a_chunk_that_were_read_in_time_are_predicted(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Path(shutil.copytree(workshop.dataset, tmp_path / "bundle"))
    request = Request(bundle, tmp_path / "out" / "submission.csv", images=workshop.images, sample=workshop.sample)
    request = dataclasses.replace(set_batch_size(request, 20), predictions=tmp_path / "kept")  # all in one chunk
    release = stall_reading(monkeypatch, 15.0, first=7)
    assert not run_for(request, 3.0)
    release.set()
    predicted = {name: ~np.isnan(np.load(tmp_path / "kept" / f"{name}.npy")[:, 0]) for name in ("culture", "tag")}
    assert predicted["culture"].sum() == predicted["tag"].sum() == 7
    assert "13 of 20 images get the prior labels: not enough time" in read_log(request)["degraded"][0]


def test_a_model_that_hangs_is_stopped_at_the_limit(small_chunks: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    real, stopped = ModelSession.predict, threading.Event()
    calls: list[int] = []

    def predict_slowly(session: ModelSession, *given: Any) -> np.ndarray:
        calls.append(1)
        if len(calls) == 9:
            assert stopped.wait(30)
        return real(session, *given)  # raises after stop()

    def stop(session: ModelSession) -> None:
        real_stop(session)
        stopped.set()

    real_stop = ModelSession.stop
    monkeypatch.setattr(ModelSession, "predict", predict_slowly)
    monkeypatch.setattr(ModelSession, "stop", stop)
    assert not run_for(small_chunks, 3.0)
    degraded = read_log(small_chunks)["degraded"]
    assert degraded[0] == "16 of 20 images get the prior labels: not enough time before the time limit of 0:03"
    assert not any("without this model" in reason for reason in degraded)


@pytest.mark.parametrize("broken", [("tag", "everything"), ("culture", "everything")])
def test_a_group_without_models_gets_its_own_prior_labels_and_the_other_group_its_predictions(
    broken: tuple[str, str], small_chunks: Request, tmp_path: Path
) -> None:
    whole = dataclasses.replace(small_chunks, out=tmp_path / "whole" / "submission.csv")
    # The group's own model alone decides, with or without the other group.
    document = json.loads((small_chunks.bundle / MANIFEST_NAME).read_text())
    document["ensemble"]["weights"] = {"culture": {"culture": 1.0}, "tag": {"tag": 1.0}}
    document["decision"]["prior"] = {"culture": [1], "tag": [2, 4]}
    document["decision"]["groups"] = {
        group: {"threshold": 0.5, "minimum": 1, "maximum": 3} for group in ("culture", "tag")
    }
    (small_chunks.bundle / MANIFEST_NAME).write_text(json.dumps(document))
    assert run(whole)
    lost, kept = broken[0], "culture" if broken[0] == "tag" else "tag"
    spoilt = dict.fromkeys(broken, b"no model")
    for name, content in spoilt.items():
        (small_chunks.bundle / f"{name}.onnx").write_bytes(content)
    replace_hashes(small_chunks.bundle, broken)
    assert not run(small_chunks)
    check(small_chunks)
    columns = {"culture": {0, 1}, "tag": {2, 3, 4}}
    prior = set(document["decision"]["prior"][lost])
    for name, wanted in read_labelled(whole).items():
        assert set(read_labelled(small_chunks)[name]) == (set(wanted) & columns[kept]) | prior
    log = read_log(small_chunks)
    assert log["degraded"][-1] == f"20 of 20 images get the prior labels of {lost}: no working model for it"
    assert log["passes_per_second"].keys() == {kept}, "a model without a weight is not run"


def replace_hashes(bundle: Path, names: tuple[str, ...]) -> None:
    path = bundle / MANIFEST_NAME
    document = json.loads(path.read_text())
    for model in document["models"]:
        if model["name"] in names:
            model["onnx"]["fp32"]["sha256"] = hash_file(bundle / f"{model['name']}.onnx")
    path.write_text(json.dumps(document))


def test_when_the_last_model_of_a_group_fails_halfway_the_other_group_goes_on(
    small_chunks: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = ModelSession.predict, []

    def predict_or_fail(session: ModelSession, *given: Any) -> np.ndarray:
        calls.append(session.name)
        if session.name != "culture" and len(calls) > 20:
            raise SessionError(f"model {session.name}: broken")
        return real(session, *given)

    monkeypatch.setattr(ModelSession, "predict", predict_or_fail)
    request = dataclasses.replace(small_chunks, predictions=tmp_path / "kept")
    assert not run(request)
    kept = {name: ~np.isnan(np.load(tmp_path / "kept" / f"{name}.npy")[:, 0]) for name in MODELS}
    lost = 20 - int((kept["tag"] | kept["everything"]).sum())
    assert kept["culture"].all() and 0 < lost < 20
    assert f"{lost} of 20 images get the prior labels of tag: no working model for it" in read_log(request)["degraded"]
    assert not any("images get the prior labels: " in reason for reason in read_log(request)["degraded"])


def test_a_slow_first_batch_is_no_measure_of_the_next_ones(
    small_chunks: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each model's session takes 50 s for its first batch: algorithms are searched, memory is allocated."""
    hands = Hands(monkeypatch)
    real, warm = ModelSession._run, set[str]()

    def warm_up_slowly(session: ModelSession, *given: Any) -> np.ndarray:
        if session.name not in warm:
            warm.add(session.name)
            hands.time += 50
        return real(session, *given)

    monkeypatch.setattr(ModelSession, "_run", warm_up_slowly)
    complete, _ = run_within(small_chunks, hands, 3 * 50 + 1.2 * NEEDED)
    assert complete and warm == {"everything", "culture", "tag"}
    assert read_log(small_chunks)["notes"] == []


def test_a_stopped_process_costs_its_time_and_no_more(small_chunks: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """Halfway, one pass takes 20 s longer (SIGSTOP): it is no measure of the next ones."""
    seen: list[int] = []

    def stop_once(ran: int, _: str) -> float:
        if ran >= NEEDED / 2 and not seen:
            seen.append(ran)
            return 11.0
        return 1.0

    complete, prior = run_within(small_chunks, Hands(monkeypatch, stop_once), 1.05 * NEEDED + 24)
    assert seen and complete
    assert not any("dropped" in note for note in read_log(small_chunks)["notes"])
    assert prior < 20


class SlowStacker:
    """A stacker that takes a second of Hands per image, of any scores."""

    def __init__(self) -> None:
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True


def stack_slowly(monkeypatch: pytest.MonkeyPatch, hands: Hands, seconds: float) -> None:
    def open_stage(manifest: Manifest, labels: Labels, _: Path) -> Stage:
        return Stage(manifest, labels, (SlowStacker(),))  # type: ignore[arg-type]

    def choose(stage: Stage, scores: dict[str, np.ndarray], traits: np.ndarray) -> list[tuple[int, ...]]:
        hands.time += seconds * len(traits) if stage.stackers else 0
        return choose_answers(stage.drop_stackers(), scores, traits)

    monkeypatch.setattr(predict, "open_stage", open_stage)
    monkeypatch.setattr(answers, "choose_answers", choose)


@pytest.mark.parametrize(
    ("percent", "bare", "stacked"), [(110, 0, 20), (75, 0, 18), (50, 0, 18), (25, 0, 0), (10, 10, 0), (2, 18, 0)]
)
def test_with_slow_stackers_all_groups_are_predicted_first_and_the_blend_decides_where_there_is_no_time(
    percent: int, bare: int, stacked: int, small_chunks: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`bare`: most images without predictions; `stacked`: least images with an answer of the stackers."""
    hands = Hands(monkeypatch)
    stack_slowly(monkeypatch, hands, 2.0)
    request = dataclasses.replace(small_chunks, predictions=tmp_path / "kept")
    complete, _ = run_within(request, hands, (NEEDED + 20 * 2.0) * percent / 100)
    assert complete is (percent > 100)
    predicted = ~np.isnan(np.load(tmp_path / "kept" / "everything.npy")[:, 0]) if percent > 2 else np.arange(20) < 2
    assert (~predicted).sum() <= bare
    dropped = [reason for reason in read_log(request)["degraded"] if reason.startswith("stackers dropped for ")]
    assert 20 - (int(dropped[0].split()[3]) if dropped else 0) >= stacked, read_log(request)


def test_a_folder_of_unreadable_images_is_a_degraded_run(small_chunks: Request, tmp_path: Path) -> None:
    images = Path(shutil.copytree(small_chunks.images, tmp_path / "images"))
    names = sorted(path.name for path in images.iterdir())
    for name in names[:2]:
        (images / name).write_text("version https://git-lfs.github.com/spec/v1\n")
    request = dataclasses.replace(small_chunks, images=images)
    assert run(request), "a tenth is usual"
    (images / names[2]).write_text("version https://git-lfs.github.com/spec/v1\n")
    assert not run(request)
    (reason,) = read_log(request)["degraded"]
    assert reason.startswith("3 of 20 images get the prior labels: they cannot be read; check the folder of images; ")
    assert count_prior(request) >= 3
