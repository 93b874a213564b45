"""What one model learns about the GPUs holds for all."""

import sys

import pytest

from inference.basics.errors import DegradedError, DeviceLostError
from inference.basics.run_log import RunLog
from inference.models.gpus import Gpus

LOST = DeviceLostError("model m fails: CUDA failure 700")


def test_gpus_are_given_up_once_with_one_note() -> None:
    log = RunLog()
    gpus = Gpus(["Tesla T4", "Tesla P100"], log)
    assert gpus.count == 2 and log.degraded == []
    gpus.give_up(LOST)
    gpus.give_up(DeviceLostError("again"))
    assert gpus.count == 0
    assert log.degraded == [
        "Tesla T4 and Tesla P100: GPU not used, running on the CPU: model m fails: CUDA failure 700"
    ]


def test_without_a_gpu_there_is_nothing_to_note() -> None:
    log = RunLog(strict=True)
    gpus = Gpus([], log)
    gpus.give_up(LOST)
    assert gpus.count == 0 and log.degraded == []


def test_strict_forbids_to_give_them_up() -> None:
    with pytest.raises(DegradedError, match=r"^Tesla T4: GPU not used, .* CUDA failure 700 \(--strict\)$"):
        Gpus(["Tesla T4"], RunLog(strict=True)).give_up(LOST)


def test_a_session_of_a_lost_device_is_never_destroyed() -> None:
    destroyed: list[str] = []

    class Session:
        def __del__(self) -> None:
            destroyed.append("x")

    session = Session()
    before = sys.getrefcount(session)
    Gpus(["Tesla T4"], RunLog()).keep(session)
    assert sys.getrefcount(session) == before + 1
    del session
    assert destroyed == []
