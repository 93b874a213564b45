"""What a run_log.json says of the speed of its run."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from inference.basics.errors import ManifestError, PackError
from inference.manifest.schema import Rule, load_json, parse_record
from inference.manifest.values import NotNegative

Positive = Annotated[float, Rule("a number above 0", lambda number: number > 0)]


@dataclass(frozen=True)
class Measured:
    """A run's speed: `seconds`: of one view of one image, by model, devices that work side by side counted as one.

    `overhead`: seconds of an image beside its passes; `start`: seconds of the run beside its images.
    """

    seconds: Mapping[str, float]
    overhead: float
    start: float


@dataclass(frozen=True)
class _Stages:
    sessions: NotNegative
    predict: Positive
    total: Positive


@dataclass(frozen=True)
class _Log:
    providers: tuple[str, ...]
    images_per_second: Positive
    passes_per_second: Mapping[str, Positive]
    seconds: _Stages


def read_measured(path: Path, provider: str) -> Measured:
    """The speed that inference/basics/run_log.py wrote down, of a run on `provider`.

    Raises PackError naming the key where that is no log of ours, or one of another kind of machine.
    """
    try:
        log = _parse_log(path)
    except OSError as error:
        raise PackError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ManifestError, UnicodeDecodeError) as error:
        raise PackError(f"{path}: {error}; wanted the run_log.json that a run leaves beside its submission") from error
    if provider not in log.providers:
        raise PackError(
            f"{path}: `providers`: found {', '.join(log.providers) or 'none'}; wanted {provider}; "
            "name the --accelerator of that run"
        )
    stages = log.seconds
    # Sessions that took longer than all of the time ran side by side.
    together = max(1.0, stages.sessions / stages.predict)
    seen = log.images_per_second * stages.predict
    return Measured(
        seconds={model: 1 / (rate * together) for model, rate in log.passes_per_second.items()},
        overhead=max(0.0, stages.predict - stages.sessions / together) / seen,
        start=max(0.0, stages.total - stages.predict),
    )


def _parse_log(path: Path) -> _Log:
    document = load_json(path.read_text(encoding="utf-8"))
    # A log has much else, which nothing here depends on.
    document = _keep_known(_Log, document)
    if isinstance(document, dict) and "seconds" in document:
        document["seconds"] = _keep_known(_Stages, document["seconds"])
    log: _Log = parse_record(_Log, document)
    return log


def _keep_known(kind: type, document: object) -> object:
    if not isinstance(document, dict):
        return document
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in document.items() if name in names}
