import argparse

import pytest

from zoo.commands import read_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("9h", 32400), ("90m", 5400), ("32400", 32400), ("1.5h", 5400), ("10s", 10)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert read_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "9 h", "-3h", "0h", "9d"])
def test_invalid_durations_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="wanted a time such as 9h, 90m or 32400"):
        read_duration(text)
