"""The competitions that the museum can be drawn as: which exhibits, which tables, where the images lie."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from demo.collection import CULTURES, NAMES, TAGS, Exhibit, Part

MuseumTask = Literal["multilabel", "multiclass", "ordinal", "binary", "regression"]
TASKS: tuple[MuseumTask, ...] = get_args(MuseumTask)

STYLE_NAMES = (
    "Aztec codex", "Byzantine mosaic", "Celtic knotwork", "Egyptian papyrus", "Greek red figure",
    "Japanese woodblock", "Khmer relief", "Moorish tile", "Norse carving", "Persian miniature",
)  # fmt: skip
STYLES = dict(zip(CULTURES, STYLE_NAMES, strict=True))
RARE_TAG = "towers"
PRICES = {tag: 2.5 * (3 + 7 * index % 11) for index, tag in enumerate(TAGS)}


@dataclass(frozen=True)
class Competition:
    """One way to draw the museum."""

    header: tuple[str, str]
    """Columns of train.csv, truth.csv and sample_submission.csv."""
    answer: Callable[[Exhibit], str]
    """The cell of an exhibit in train.csv and truth.csv; '' if the exhibit is not part of this competition."""
    constant: str
    """The cell of every image in sample_submission.csv."""
    place: Callable[[Part, str], str] = lambda part, name: f"{part}/{name}.png"
    """Path of an image, from its part and id."""
    suffix: str = ""
    """Of the ids in the tables."""
    names: tuple[str, ...] = ()
    """Rows of labels.csv; empty: there is none."""

    def name(self, exhibit: Exhibit) -> str:
        """Return the id of an exhibit in the tables."""
        return exhibit.id + self.suffix


def list_annotated(exhibit: Exhibit) -> str:
    """Return the ids of its annotated labels, separated by spaces."""
    return " ".join(map(str, exhibit.annotated))


def name_style(exhibit: Exhibit) -> str:
    """Return the style of its only culture; '' if it has none or two."""
    return STYLES[exhibit.cultures[0]] if len(exhibit.cultures) == 1 else ""


def count_shapes(exhibit: Exhibit) -> str:
    """Return its grade: the number of its shapes beyond the first, from 0 to 3."""
    return str(len(exhibit.tags) - 1)


def has_rare_tag(exhibit: Exhibit) -> str:
    """Return 1 if it shows the rare tag, else 0."""
    return str(int(RARE_TAG in exhibit.tags))


def add_prices(exhibit: Exhibit) -> str:
    """Return the sum of the prices of its shapes."""
    return f"{sum(PRICES[tag] for tag in exhibit.tags):.1f}"


COMPETITIONS: Mapping[MuseumTask, Competition] = {
    "multilabel": Competition(("id", "attribute_ids"), list_annotated, "0 1 2", names=NAMES),
    "multiclass": Competition(
        ("image_id", "culture"),
        name_style,
        STYLE_NAMES[0],
        lambda part, name: f"{part}_images/{name[:2]}/{name}",
        ".jpg",
    ),
    "ordinal": Competition(("id_code", "grade"), count_shapes, "0"),
    "binary": Competition(("id", "target"), has_rare_tag, "0.5"),
    "regression": Competition(("id", "price"), add_prices, "20.5"),
}
