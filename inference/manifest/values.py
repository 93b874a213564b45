"""Types of the single values of a manifest, with their conditions."""

import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

MAX_RESIZED_PIXELS = 64_000_000
"""Largest resized image: a strip of 1x7000 px under `crop` would need gigabytes."""


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


def is_pair(numbers: tuple[int, ...]) -> bool:
    """Return whether these are two different numbers."""
    return len(numbers) == 2 and numbers[0] != numbers[1]


def is_rising(numbers: tuple[int, ...]) -> bool:
    """Return whether each number is above the one before it, so that none occurs twice; true of no numbers."""
    return all(first < second for first, second in itertools.pairwise(numbers))


def is_dataset(text: str) -> bool:
    """Return whether this is OWNER/SLUG of a dataset on Kaggle."""
    return bool(re.fullmatch(r"[A-Za-z0-9_-]+/[a-z0-9][a-z0-9-]*", text))


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
PerChannel = Rule(
    "three numbers for RGB or one for grey", lambda numbers: len(numbers) in (1, 3) and all(map(math.isfinite, numbers))
)
NotNegative = Annotated[float, Rule("a number of at least 0", lambda number: 0 <= number < math.inf)]
Loss = Annotated[float, between(-1, 1, "a number from -1 to 1")]
Precision = Literal["fp32", "fp16", "int8"]
ResizeRule = Literal["squash", "crop", "trim", "letterbox"]
Interpolation = Literal["bilinear", "bicubic"]
Merge = Literal["mean", "geometric", "maximum"]
GraphLayout = Literal["nchw", "nhwc"]
Mirror = Literal["hflip", "vflip"]
Size = tuple[int, int]
"""Height and width, px."""


def is_size(size: int | tuple[int, ...]) -> bool:
    """Return whether this is the side of a square or (height, width), each from 8 to 4096 px."""
    sides = (size, size) if isinstance(size, int) else size
    return len(sides) == 2 and all(8 <= side <= 4096 for side in sides)


ImageSize = Annotated[
    int | tuple[int, ...],
    Rule("the side of a square or [height, width], whole numbers from 8 to 4096", is_size),
]


def read_size(size: int | tuple[int, ...]) -> Size:
    """Return the height and width of an `ImageSize`."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


# The eight symmetries of a square; those of TURNS exchange height and width. rot90: counter-clockwise.
ORIENTATIONS = ("identity", "hflip", "vflip", "rot180", "transpose", "rot90", "rot270", "transverse")
TURNS = frozenset(ORIENTATIONS[4:])
# Orientation -> the mirrors that it is made of, in which labels such as left and right are exchanged.
MIRRORS: Mapping[str, tuple[Mirror, ...]] = {"hflip": ("hflip",), "vflip": ("vflip",), "rot180": ("hflip", "vflip")}
CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")
_SCALE = re.compile(r"scale_(\d{3})")
_SCALES = (101, 400)


@dataclass(frozen=True)
class ViewParts:
    """A view: what is cut out of the resized image, and how that is turned."""

    orientation: str
    """One of ORIENTATIONS."""
    corner: str | None = None
    """One of CORNERS; None: the centre."""
    scale: int = 100
    """The image is resized to this percentage of its usual size before the cut, which then shows less of it."""

    @property
    def cut(self) -> str:
        """The view without its scale: one that the graph makes from the image given to it."""
        return self.orientation if self.corner is None else "+".join((self.corner, *self._turned))

    @property
    def _turned(self) -> tuple[str, ...]:
        return () if self.orientation == "identity" else (self.orientation,)


def split_view(view: str) -> ViewParts:
    """Return the parts of a view such as hflip, top_left, top_left+hflip or scale_125. Raises ValueError."""
    if view in ORIENTATIONS:
        return ViewParts(view)
    place, plus, turned = view.partition("+")
    scale = _SCALE.fullmatch(place)
    is_place = place in CORNERS or (scale is not None and _SCALES[0] <= int(scale[1]) <= _SCALES[1])
    if not is_place or (plus and turned not in ORIENTATIONS[1:]):
        raise ValueError(view)
    return ViewParts(turned or "identity", None if scale else place, int(scale[1]) if scale else 100)


def is_view(view: str) -> bool:
    """Return whether `split_view` accepts the view."""
    try:
        split_view(view)
    except ValueError:
        return False
    return True


View = Annotated[
    str,
    Rule(
        f"one of {', '.join(ORIENTATIONS)}; {', '.join(CORNERS)} or scale_101 to scale_400, also followed by + and one "
        "of the first, as in top_left+hflip",
        is_view,
    ),
]
Views = Annotated[
    tuple[View, ...],
    Rule("at least one view, each once", lambda views: len(views) > 0 and len(set(views)) == len(views)),
]
PriorIds = Annotated[tuple[int, ...], Rule("ascending label ids, each once", is_rising)]
Finite = Annotated[float, Rule("a finite number", math.isfinite)]
Numbers = Annotated[tuple[float, ...], Rule("finite numbers", lambda numbers: all(map(math.isfinite, numbers)))]
DecisionRule = Literal["thresholds", "expected_f", "ranked", "cut_points", "probabilities", "number"]
