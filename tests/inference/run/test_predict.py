"""Loading the models of a run: their precision, their order, and the time for it."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from inference.basics.errors import OutputError, SessionError
from inference.basics.run_log import RunLog
from inference.manifest.model import OnnxEntry
from inference.manifest.values import Precision
from inference.models.gpus import Gpus
from inference.run import predict
from inference.run.predict import load_models, load_stage, open_runner, run
from inference.run.state import Job, Request, State
from tests.conftest import Workshop
from tests.inference.run.small_run import Clock, open_run

LOSSES: dict[Precision, float] = {"fp32": 0.0, "fp16": 0.001, "int8": 0.004}


@dataclasses.dataclass
class Session:
    """A stand-in for ModelSession that keeps its arguments."""

    name: str
    path: Path
    outputs: int
    gpus: int
    cores: int
    bounded: bool
    cuts: tuple[str, ...]
    merge: str
    lanes: int = 1
    provider: str = "CPUExecutionProvider"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """The sessions that a test opens; the machine has no GPU."""
    made: list[Session] = []

    def open_session(*given: Any, **more: Any) -> Session:
        made.append(Session(*given, **more))
        return made[-1]

    monkeypatch.setattr(predict, "ModelSession", open_session)
    monkeypatch.setattr(predict, "read_devices", lambda: ())
    return made


def open_exported(left: float = 1000.0, **options: Any) -> tuple[Job, State, Clock]:
    """Return a run whose models are exported in all precisions; int8 loses more than the limit of 0.003."""
    job, state, clock = open_run(left)
    models = tuple(
        dataclasses.replace(
            model,
            onnx={
                precision: OnnxEntry(f"{model.name}.{precision}.onnx", "0" * 64, 18, 0.01, "0" * 64, metric_loss=loss)
                for precision, loss in LOSSES.items()
            },
        )
        for model in job.manifest.models
    )
    manifest = dataclasses.replace(job.manifest, models=models)
    return (
        dataclasses.replace(job, manifest=manifest, request=dataclasses.replace(job.request, **options)),
        state,
        clock,
    )


@pytest.mark.parametrize(
    ("asked", "earlier", "gpus", "chosen", "is_settled"),
    [
        (None, None, 0, "fp32", False),  # a trial decides
        ("fp16", None, 0, "fp16", True),
        ("int8", None, 0, "fp32", True),  # loses too much
        (None, "fp16", 1, "fp16", True),
        (None, "fp16", 0, "fp32", True),  # the earlier run had a GPU
        ("fp16", "fp16", 0, "fp16", True),
        (None, "int8", 0, "int8", True),
    ],
)
def test_the_precision_is_that_of_the_earlier_run_or_of_the_request_or_left_to_a_trial(
    asked: Precision | None,
    earlier: Precision | None,
    gpus: int,
    chosen: Precision,
    is_settled: bool,
    opened: list[Session],
) -> None:
    job, state, _ = open_exported(precision=asked)
    if earlier:
        state.precisions["two"] = earlier
    runner = open_runner(job, state, job.manifest.models[1], Gpus(["T4"] * gpus, RunLog()))
    assert (runner.precision, runner.is_settled) == (chosen, is_settled)
    assert opened == [
        Session("two", Path(f"bundle/two.{chosen}.onnx"), 4, gpus, 0, True, ("identity", "hflip"), "mean")
    ]
    reason = "model two: runs in fp32 instead of int8: found a loss of 0.0040 of the metric; wanted at most 0.003"
    assert state.log.notes == ([reason] if asked == "int8" else [])


def test_a_model_is_opened_with_its_views_and_from_its_dataset(opened: list[Session]) -> None:
    job, state, _ = open_exported(attached={"owner/theirs": Path("mounted")})
    model = job.manifest.models[0]
    entry = dataclasses.replace(model.onnx["fp32"], dataset="owner/theirs")
    views = ("scale_125", "top_left+vflip", "identity", "scale_125+vflip")
    model = dataclasses.replace(model, views=views, merge="geometric", onnx={"fp32": entry})
    open_runner(job, state, model, Gpus([], RunLog()))
    cuts = ("identity", "top_left+vflip", "vflip")
    assert opened == [Session("one", Path("mounted/one.fp32.onnx"), 2, 0, 0, True, cuts, "geometric")]


@pytest.mark.parametrize(("activation", "bounded"), [(None, True), ("identity", False)])
def test_features_without_an_activation_are_any_numbers(activation: Any, bounded: bool, opened: list[Session]) -> None:
    job, state, _ = open_exported()
    model = dataclasses.replace(job.manifest.models[0], group="features", outputs=2, activation=activation)
    open_runner(job, state, model, Gpus([], RunLog()))
    assert [session.bounded for session in opened] == [bounded]


def test_a_model_whose_attached_file_has_changed_is_left_out(opened: list[Session]) -> None:
    job, state, _ = open_exported()
    load_models(dataclasses.replace(job, lost={"two": "model two: another file"}), state)
    assert {one.model for one in state.passes} == {"one"} and [session.name for session in opened] == ["one"]
    assert state.log.degraded == ["model two: another file; the run continues without this model"]


def test_with_little_memory_a_model_has_one_lane_small_batches_and_no_trial(opened: list[Session]) -> None:
    for size, largest in ((32, 4), (2, 2)):
        job, state, _ = open_exported(low_memory=True)
        runtime = dataclasses.replace(job.manifest.runtime, batch_size=size)
        job = dataclasses.replace(job, manifest=dataclasses.replace(job.manifest, runtime=runtime))
        runner = open_runner(job, state, job.manifest.models[0], Gpus([], RunLog()))
        assert runner.is_settled and runner.precision == "fp32" and runner.batches.limit == largest
    assert {session.cores for session in opened} == {1}


def test_models_are_loaded_in_running_order_and_one_that_does_not_load_is_left_out(
    opened: list[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, state, _ = open_exported()
    load_models(job, state)
    assert [session.name for session in opened] == ["two", "one"] and list(state.runners) == ["two", "one"]
    assert len(state.passes) == 4

    def refuse(*_: object) -> None:
        raise SessionError("model does not load")

    job, state, _ = open_exported()
    real = predict.open_runner
    monkeypatch.setattr(predict, "open_runner", lambda *given: (refuse if given[2].name == "two" else real)(*given))
    load_models(job, state)
    assert {one.model for one in state.passes} == {"one"}
    assert state.log.degraded == ["model does not load; the run continues without this model"]


def test_models_that_there_is_no_time_to_load_are_left_out(
    opened: list[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, state, clock = open_exported(left=10)
    real = predict.open_runner

    def load_slowly(*given: Any) -> object:
        clock.time += 10
        return real(*given)

    monkeypatch.setattr(predict, "open_runner", load_slowly)
    load_models(job, state)
    assert {one.model for one in state.passes} == {"two"} and len(opened) == 1 and state.log.degraded == []


@pytest.mark.parametrize("is_resumed", [False, True])
def test_the_blend_decides_if_a_stacker_does_not_load(is_resumed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[bool] = []

    def refuse(*_: object) -> None:
        raise SessionError("stacker cnn: cnn.onnx does not load")

    monkeypatch.setattr(predict, "open_stage", refuse)
    monkeypatch.setattr(predict, "improve_submission", lambda *_: submitted.append(True))
    job, state, _ = open_run(10)
    state.done = {0: set()} if is_resumed else {}
    load_stage(job, state)
    assert state.stage.stackers == ()
    assert state.log.degraded == ["stacker cnn: cnn.onnx does not load; the blend decides instead"]
    assert submitted == [True] * is_resumed, "of the predictions of the earlier run"


def test_a_log_that_cannot_be_written_degrades_the_run(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: RunLog, path: Path) -> None:
        raise OutputError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr(RunLog, "write", refuse)
    monkeypatch.setattr(predict, "predict_images", lambda *_: None)
    monkeypatch.setattr(predict, "note_missing", lambda *_: None)
    out = tmp_path / "submission.csv"
    assert not run(Request(workshop.dataset, out, images=workshop.images, sample=workshop.sample))
    assert [path.name for path in tmp_path.iterdir()] == ["submission.csv"]
