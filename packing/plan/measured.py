"""The speed of an earlier run, read from its run_log.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from inference.basics.errors import ManifestError, PackError
from inference.manifest.values import NotNegative, Rule
from packing.run_log import read_log

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
        log: _Log = read_log(path, _Log)
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
