"""Types of the single values of a manifest, with their conditions."""

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal


@dataclass(frozen=True)
class Rule:
    """A condition on one value, attached to a field with `Annotated`."""

    wanted: str
    """Completes the message "found 0; wanted …"."""
    holds: Callable[[Any], bool]


def is_inside(path: str) -> bool:
    """Return whether a relative path stays inside the folder that it starts from."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and "\\" not in path and ":" not in path


def between(low: float, high: float, wanted: str) -> Rule:
    """Return the rule that a number is from `low` to `high`, both included."""
    return Rule(wanted, lambda number: low <= number <= high)


def is_ascending(numbers: tuple[float, ...]) -> bool:
    """Return whether there are numbers and none is below the one before it."""
    return len(numbers) > 0 and all(first <= second for first, second in itertools.pairwise(numbers))


def is_scale(numbers: tuple[float, ...]) -> bool:
    """Return whether there are two or more finite numbers, ascending."""
    return len(numbers) > 1 and all(map(math.isfinite, numbers)) and is_ascending(numbers)


def is_rising(numbers: tuple[int, ...]) -> bool:
    """Return whether each number is above the one before it, so that none occurs twice; true of no numbers."""
    return all(first < second for first, second in itertools.pairwise(numbers))


RelativePath = Annotated[str, Rule("a path inside the manifest's folder, with / and without ..", is_inside)]
FlatName = Annotated[
    str,
    Rule("a file name of letters, digits, '.', '_' and '-'", lambda name: bool(re.fullmatch(r"[\w.-]+", name, re.A))),
]
Sha256 = Annotated[
    str, Rule("64 hexadecimal digits (sha256sum prints them)", lambda text: bool(re.fullmatch(r"[0-9a-f]{64}", text)))
]
Probability = Annotated[float, between(0, 1, "a number from 0 to 1")]
Count = Annotated[int, between(0, 10_000, "a whole number from 0 to 10000")]
Triple = Rule("three numbers, one per channel", lambda numbers: len(numbers) == 3 and all(map(math.isfinite, numbers)))
NotNegative = Annotated[float, Rule("a number of at least 0", lambda number: 0 <= number < math.inf)]
Loss = Annotated[float, between(-1, 1, "a number from -1 to 1")]
Precision = Literal["fp32", "fp16", "int8"]
ResizeRule = Literal["squash", "crop"]
Interpolation = Literal["bilinear", "bicubic"]
View = Literal["identity", "hflip"]
Merge = Literal["mean", "maximum"]
PriorIds = Annotated[tuple[int, ...], Rule("ascending label ids, each once", is_rising)]
Finite = Annotated[float, Rule("a finite number", math.isfinite)]
Numbers = Annotated[tuple[float, ...], Rule("finite numbers", lambda numbers: all(map(math.isfinite, numbers)))]
DecisionRule = Literal["thresholds", "expected_f", "ranked", "cut_points", "probabilities", "number"]
