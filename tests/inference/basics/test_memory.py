"""The memory that a process may still use."""

import math
from pathlib import Path

import pytest

from inference.basics import memory
from inference.basics.memory import measure_available


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "9000", "memory.current": "5000", "memory.stat": "anon 1\ninactive_file 600\n"}, 4600),
        ({"memory.max": "max", "memory.current": "5000", "memory.stat": "anon 1\n"}, 1024 * 70),
        (
            {"memory.limit_in_bytes": "8000", "memory.usage_in_bytes": "9000", "memory.stat": "inactive_file 500\n"},
            0,
        ),
        ({}, 1024 * 70),
    ],
    ids=["version 2", "version 2 without a limit", "version 1", "no cgroup"],
)
def test_the_least_of_the_limits_counts(
    files: dict[str, str], free: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "group"
    group.mkdir()
    for name, text in files.items():
        (group / name).write_text(text)
    monkeypatch.setattr(memory, "list_cgroups", lambda controller: [group, tmp_path])
    monkeypatch.setattr(memory, "measure_free", lambda: math.inf)
    (tmp_path / "meminfo").write_text("MemTotal:  100 kB\nMemAvailable:    70 kB\n")
    assert measure_available(tmp_path / "meminfo") == free
    monkeypatch.setattr(memory, "measure_free", lambda: 3.0)
    assert measure_available(tmp_path / "absent") == min(free, 3)
