"""The speed of an earlier run, read from its run_log.json."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from inference.basics.errors import ManifestError, PackError
from inference.manifest.schema import load_json, parse_record
from inference.manifest.values import NotNegative, Rule

Positive = Annotated[float, Rule("a number above 0", lambda number: number > 0)]


@dataclass(frozen=True)
class Measured:
    """Measured speed of a run."""

    seconds: Mapping[str, float]
    """Per view and image, by model; parallel devices count as one."""
    overhead: float
    """Seconds per image outside its passes."""
    start: float
    """Seconds of the run outside its images."""


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
    """Read the speed of a run on `provider` from the log written by inference/basics/run_log.py.

    Raises PackError: the file is not such a log, or the run used another provider.
    """
    try:
        log = _parse_log(path)
    except OSError as error:
        raise PackError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ManifestError, UnicodeDecodeError) as error:
        raise PackError(f"{path}: {error}; wanted a run_log.json, which a run writes beside its submission") from error
    if provider not in log.providers:
        raise PackError(
            f"{path}: `providers`: found {', '.join(log.providers) or 'none'}; wanted {provider}; "
            "choose the --accelerator of that run"
        )
    stages = log.seconds
    # Sessions ran in parallel if their times add up to more than the whole stage.
    together = max(1.0, stages.sessions / stages.predict)
    seen = log.images_per_second * stages.predict
    return Measured(
        seconds={model: 1 / (rate * together) for model, rate in log.passes_per_second.items()},
        overhead=max(0.0, stages.predict - stages.sessions / together) / seen,
        start=max(0.0, stages.total - stages.predict),
    )


def _parse_log(path: Path) -> _Log:
    document = load_json(path.read_text(encoding="utf-8"))
    # The log has more keys, which are not used here.
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
