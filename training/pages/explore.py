"""The page of the command `explore`: images and labels of a competition, in one HTML file without other resources."""

import base64
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.basics.errors import ImageError, OutputError, TrainingError
from inference.basics.files import replace_file
from inference.images.read import read_image
from inference.manifest.labels import Labels, read_group_prefixes, read_labels
from inference.task.image_places import SUFFIXES
from training.data.pictures import find_pictures
from training.pages.explore_figures import ImageFolder, LabelCount
from zoo.plots import choose_colours
from zoo.text import render_template
from zoo.train_table import Table, read_table

TEMPLATE = Path(__file__).with_name("explore.html.jinja")
SEED = 0
CHANNELS = ("red", "green", "blue", "hue", "saturation", "value")
RARITY_BOUNDS = (20, 100, 1000)
RATIO_BOUNDS = (1.5, 2, 3, 5, 10)
NAMED_FAULTS = 5
LISTED_LABELS = 15
HEAT_MAP_LABELS = 30
LONGEST_IMAGES = 12
THUMBNAIL_SIZE = (460, 300)
# Two-sample Kolmogorov-Smirnov: critical value at 5 %, times sqrt(1 / n + 1 / m).
GAP_FACTOR = 1.358


def explore(data: Path, out: Path, images: int | None = None) -> None:
    """Write the page about a folder with labels.csv, train.csv, train/ID.png and optionally test/ID.png.

    `images`: open only this many images per folder; the label statistics always use all rows. The same files give the
    same bytes. Raises TrainingError, TableError or OutputError.
    """
    if images is not None and images < 1:
        raise TrainingError(f"--images: found {images}; wanted at least 1")
    if not out.parent.is_dir() or out.is_dir():  # before an hour of reading
        reason = "it is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise OutputError(f"{out}: cannot be written: {reason}; wanted a file such as explore.html")
    labels = read_labels(data / "labels.csv", read_group_prefixes(data / "labels.csv"))
    table = read_table(data / "train.csv", labels)
    train = measure_part("train", data / "train", table.ids, images)
    if not train.ids:
        raise TrainingError(
            f"{data / 'train'}: found {train.opened} images, none readable; the first: {train.unreadable[0]}"
        )
    test_ids = list_ids(data / "test")
    test = measure_part("test", data / "test", test_ids, images) if test_ids else None
    page = render_explore_page(data.resolve().name, labels, table, train, test, images)
    with replace_file(out) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")


def list_ids(folder: Path) -> tuple[str, ...]:
    """List the names of the images in a folder, without suffix, sorted; empty if there is no folder."""
    if not folder.is_dir():
        return ()
    return tuple(sorted({path.stem for path in folder.iterdir() if path.suffix.lower() in SUFFIXES}))


def measure_part(name: str, folder: Path, ids: Sequence[str], images: int | None) -> ImageFolder:
    """Measure all images of a folder, or a random sample of `images` existing ones, with seed SEED.

    Raises TrainingError: the folder has none of the images.
    """
    from tqdm import tqdm

    found = find_pictures(folder, ids, allow_missing=True)
    present = [(image, path) for image, path in zip(ids, found, strict=True) if path is not None]
    if images is not None and images < len(present):
        drawn = np.random.default_rng(SEED).choice(len(present), images, replace=False)
        present = [present[row] for row in sorted(drawn)]
    # Threads, not processes: Pillow releases the interpreter lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        measures = list(
            tqdm(
                pool.map(lambda row: _try_to_measure(row[1]), present),
                f"reading {name} images",
                len(present),
                unit="img",
                mininterval=1,
            )
        )
    read = [(*row, measure) for row, measure in zip(present, measures, strict=True) if not isinstance(measure, str)]
    return ImageFolder(
        name,
        len(ids),
        len(present),
        tuple(image for image, path in zip(ids, found, strict=True) if path is None),
        tuple(measure for measure in measures if isinstance(measure, str)),
        tuple(image for image, _, _ in read),
        tuple(path for _, path, _ in read),
        np.array([size for _, _, (size, _) in read], np.int64).reshape(-1, 2),
        np.array([colours for _, _, (_, colours) in read]).reshape(-1, len(CHANNELS), 4),
    )


def _try_to_measure(path: Path) -> tuple[tuple[int, int], NDArray[np.float64]] | str:
    try:
        image = read_image(path)
    except ImageError as error:
        return str(error)
    return image.size, measure_colours(image)


def measure_colours(image: Image.Image) -> NDArray[np.float64]:
    """Measure mean, deviation, minimum and maximum of each of CHANNELS of an RGB image, (6, 4), 0 to 255."""
    histograms = image.histogram() + image.convert("HSV").histogram()
    counts = np.array(histograms).reshape(len(CHANNELS), 256)
    levels = np.arange(256)
    shares = counts / (image.width * image.height)
    means = shares @ levels
    deviations = np.sqrt((shares * (levels - means[:, None]) ** 2).sum(axis=1))
    seen = counts > 0
    return np.stack([means, deviations, seen.argmax(axis=1), 255 - seen[:, ::-1].argmax(axis=1)], axis=1)


def measure_gap(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the Kolmogorov-Smirnov statistic of two samples, 0 to 1."""
    values = np.concatenate([first, second])
    shares = [np.searchsorted(np.sort(sample), values, side="right") / len(sample) for sample in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def render_explore_page(
    title: str, labels: Labels, table: Table, train: ImageFolder, test: ImageFolder | None, images: int | None
) -> str:
    """Return the page as HTML, with every text from a file escaped."""
    from training.pages import explore_plots as plots

    compared = [part for part in (train, test) if part is not None and part.ids]
    counts = count_labels(labels, table)
    groups = {group: [count for count in counts if count.group == group] for group in labels.groups}
    lengths = {group: table.targets[:, columns].sum(axis=1) for group, columns in labels.groups.items()}
    lengths = {"all": table.targets.sum(axis=1), **lengths} if len(lengths) > 1 else lengths
    colours = dict(zip(labels.groups, choose_colours(len(labels.groups)), strict=True))
    one_size = len(np.unique(np.concatenate([part.sizes for part in compared]), axis=0)) == 1
    return render_template(
        TEMPLATE,
        title=title,
        parts=[part for part in (train, test) if part is not None],
        compared=compared,
        medians={part.name: np.median(part.sizes, axis=0).tolist() for part in compared},
        part_colours=plots.PART_COLOURS,
        images=images,
        seed=SEED,
        named=NAMED_FAULTS,
        colours=colours,
        groups=groups,
        label_figures={group: describe_lengths(numbers) for group, numbers in lengths.items()},
        rarity={group: count_rarity([count.images for count in rows]) for group, rows in groups.items()},
        rarity_bounds=RARITY_BOUNDS,
        listed=LISTED_LABELS,
        channels=describe_channels(compared),
        gap_limit=GAP_FACTOR * np.sqrt(sum(1 / len(part.ids) for part in compared)),
        normalisation=describe_normalisation(train),
        ratio_bounds=RATIO_BOUNDS,
        heat_map=measure_heat_map(table, counts),
        one_size=one_size,
        longest=list_longest(train, table, counts),
        plots={
            "rgb": plots.plot_colours(compared, CHANNELS[:3], 0),
            "hsv": plots.plot_colours(compared, CHANNELS[3:], 3),
            "sizes": None if one_size else plots.plot_sizes(compared),
            "ratios": None if one_size else plots.plot_ratios(compared),
            "counts": plots.plot_counts(counts, colours, RARITY_BOUNDS),
            "lengths": plots.plot_lengths(lengths, colours),
        },
    )


def count_labels(labels: Labels, table: Table) -> list[LabelCount]:
    """Count the images of each label, in the order of labels.csv."""
    owners = {column: group for group, columns in labels.groups.items() for column in columns}
    return [
        LabelCount(name.partition("::")[2], owners[column], int(images), images / len(table.ids))
        for column, (name, images) in enumerate(zip(labels.names, table.targets.sum(axis=0), strict=True))
    ]


def count_rarity(images: Sequence[int]) -> list[int]:
    """Count the labels in each range of RARITY_BOUNDS, rarest first; `images`: images per label."""
    ranges = np.searchsorted(RARITY_BOUNDS, images, side="right")
    return [int(labels) for labels in np.bincount(ranges, minlength=len(RARITY_BOUNDS) + 1)]


def describe_lengths(numbers: NDArray[np.int64]) -> dict[str, float]:
    """Summarise the labels per image, and count the images without a label."""
    return {
        "mean": float(numbers.mean()),
        "median": float(np.median(numbers)),
        "least": int(numbers.min()),
        "most": int(numbers.max()),
        "without": int((numbers == 0).sum()),
    }


def describe_channels(compared: Sequence[ImageFolder]) -> list[dict[str, Any]]:
    """Average the figures of each channel over the images of each part, with the gap between the parts' means."""
    return [
        {
            "name": channel,
            "parts": [part.colours[:, place].mean(axis=0).tolist() for part in compared],
            "gap": measure_gap(*(part.colours[:, place, 0] for part in compared)) if len(compared) == 2 else None,
        }
        for place, channel in enumerate(CHANNELS)
    ]


def describe_normalisation(part: ImageFolder) -> tuple[list[float], list[float]]:
    """Return mean and deviation of red, green and blue over all pixels, each image with equal weight, 0 to 1."""
    means, deviations = part.colours[:, :3, 0], part.colours[:, :3, 1]
    spread = np.sqrt((deviations**2).mean(axis=0) + means.var(axis=0))
    return (means.mean(axis=0) / 255).tolist(), (spread / 255).tolist()


def measure_heat_map(table: Table, counts: Sequence[LabelCount]) -> list[tuple[LabelCount, list[float | None]]]:
    """For each of the most frequent labels, compute the share of its images that have each other one; None for itself.

    Rows and columns start with the most frequent label; labels without an image are left out.
    """
    order = sorted(range(len(counts)), key=lambda column: -counts[column].images)[:HEAT_MAP_LABELS]
    order = [column for column in order if counts[column].images]
    chosen = table.targets[:, order].astype(np.float32)  # sums of ones: exact up to 16 million images
    together = chosen.T @ chosen  # (labels, labels)
    shares = together / together.diagonal()[:, None]
    return [
        (counts[column], [None if other == row else float(shares[row, other]) for other in range(len(order))])
        for row, column in enumerate(order)
    ]


def list_longest(part: ImageFolder, table: Table, counts: Sequence[LabelCount]) -> list[dict[str, Any]]:
    """List the images with the largest ratio of long to short side, with size, labels and thumbnail."""
    rows = dict(zip(table.ids, table.targets, strict=True))
    return [
        {
            "id": part.ids[place],
            "width": int(part.sizes[place, 0]),
            "height": int(part.sizes[place, 1]),
            "ratio": float(part.lengths[place]),
            "labels": [counts[column] for column in np.flatnonzero(rows[part.ids[place]]).tolist()],
            "thumbnail": make_thumbnail(part.paths[place]),
        }
        for place in np.argsort(-part.lengths, kind="stable")[:LONGEST_IMAGES]
    ]


def make_thumbnail(path: Path) -> str:
    """Return a small JPEG of an image as a data URL; raises ImageError."""
    image = read_image(path)
    image.thumbnail(THUMBNAIL_SIZE)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
