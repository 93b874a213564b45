"""The page of the command `explore`: images and labels of a competition, in one HTML file without other resources."""

import base64
import io
import os
import sys
from collections.abc import Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.basics.errors import ImageError, OutputError, TrainingError
from inference.basics.files import replace_file
from inference.images.read import read_image
from inference.manifest.file import MANIFEST_NAME
from inference.manifest.task import Task
from inference.task.image_places import list_images
from training.data.pictures import find_pictures
from training.data.source import Source, find_source, place_pictures
from training.pages.explore_figures import ImageFolder, LabelCount
from training.pages.explore_labels import (
    RARITY_BOUNDS,
    count_labels,
    count_lengths,
    count_rarity,
    describe_lengths,
    describe_truth,
    describe_values,
    find_kind,
    measure_heat_map,
    read_values,
)
from zoo.plots import choose_colours
from zoo.tables.train_table import Table, read_table
from zoo.text import render_template

TEMPLATE = Path(__file__).with_name("explore.html.jinja")
SEED = 0
CHANNELS = ("red", "green", "blue", "hue", "saturation", "value")
RATIO_BOUNDS = (1.5, 2, 3, 5, 10)
NAMED_FAULTS = 5
LISTED_LABELS = 15
LONGEST_IMAGES = 12
THUMBNAIL_SIZE = (460, 300)
# Two-sample Kolmogorov-Smirnov: critical value at 5 %, times sqrt(1 / n + 1 / m).
GAP_FACTOR = 1.358


def explore(data: Path, out: Path, images: int | None = None, manifest: Path | None = None) -> None:
    """Write the page about a competition's folder: its training images and their labels, and its test images if any.

    `images`: open only this many images per folder; the label statistics always use all rows. `manifest`: of a zoo,
    for the task and its tables; None: iMet's, from `data`. The same files give the same bytes. Raises TrainingError,
    TableError, ManifestError or OutputError.
    """
    if images is not None and images < 1:
        raise TrainingError(f"--images: found {images}; wanted at least 1")
    if not out.parent.is_dir() or out.is_dir():  # before an hour of reading
        reason = "it is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise OutputError(f"{out}: cannot be written: {reason}; wanted a file such as explore.html")
    source = find_source(manifest or data / MANIFEST_NAME, data)
    table = read_table(source.train, source.labels, source.task)
    folder, files = place_pictures(data, table)
    train = measure_part("train", folder, table.ids, images, files)
    if not train.ids:
        raise TrainingError(f"{folder}: found {train.opened} images, none readable; the first: {train.unreadable[0]}")
    test = measure_test(data, source.task, set(files or ()), images)
    page = render_explore_page(data.resolve().name, source, table, train, test, images)
    with replace_file(out) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")


def measure_test(data: Path, task: Task, training: Set[str], images: int | None) -> ImageFolder | None:
    """Measure the test images below the folder that the task names; None if there is none, or no such folder.

    `training`: files of training images, relative to `data`, which may lie in the same folder.
    """
    folder = data / task.images.folder
    if task.images.folder == "." or not folder.is_dir():
        return None
    files = {path.relative_to(data).as_posix(): path for path in list_images(folder, sys.maxsize)}
    ids = {path.relative_to(folder).with_suffix("").as_posix() for file, path in files.items() if file not in training}
    return measure_part("test", folder, sorted(ids), images) if ids else None


def measure_part(
    name: str, folder: Path, ids: Sequence[str], images: int | None, files: Sequence[str] | None = None
) -> ImageFolder:
    """Measure all images of a folder, or a random sample of `images` existing ones, with seed SEED.

    `files`: as in find_pictures. Raises TrainingError: the folder has none of the images.
    """
    from tqdm import tqdm

    found = find_pictures(folder, ids, allow_missing=True, files=files)
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
    title: str, source: Source, table: Table, train: ImageFolder, test: ImageFolder | None, images: int | None
) -> str:
    """Return the page as HTML, with every text from a file escaped."""
    from training.pages import explore_plots as plots

    labels, task, kind = source.labels, source.task, find_kind(table, source.task)
    compared = [part for part in (train, test) if part is not None and part.ids]
    counts = count_labels(labels, table, task) if kind != "numbers" else []
    groups = {group: [count for count in counts if count.group == group] for group in labels.groups}
    lengths = count_lengths(labels, table) if kind == "sets" else {}
    values = read_values(table, task) if kind == "numbers" else None
    # A few classes are named in bars; many are only ranked.
    ranked = len(counts) > (1 if kind == "sets" else plots.MOST_BARS)
    colours = dict(zip(labels.groups, choose_colours(len(labels.groups)), strict=True))
    one_size = len(np.unique(np.concatenate([part.sizes for part in compared]), axis=0)) == 1
    return render_template(
        TEMPLATE,
        title=title,
        kind=kind,
        value_name=labels.names[0],
        exclusive=task.type == "multiclass",
        test_folder=task.images.folder,
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
        heat_map=measure_heat_map(table, counts) if kind == "sets" else [],
        values={} if values is None else describe_values(values),
        one_size=one_size,
        longest=list_longest(train, table, task, counts),
        plots={
            "rgb": plots.plot_colours(compared, CHANNELS[:3], 0),
            "hsv": plots.plot_colours(compared, CHANNELS[3:], 3),
            "sizes": None if one_size else plots.plot_sizes(compared),
            "ratios": None if one_size else plots.plot_ratios(compared),
            "counts": plots.plot_counts(counts, colours, RARITY_BOUNDS) if ranked else None,
            "lengths": plots.plot_lengths(lengths, colours) if lengths else None,
            "shares": plots.plot_shares(counts) if kind == "shares" or (len(counts) > 1 and not ranked) else None,
            "values": None if values is None else plots.plot_values(values, labels.names[0]),
        },
    )


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


def list_longest(part: ImageFolder, table: Table, task: Task, counts: Sequence[LabelCount]) -> list[dict[str, Any]]:
    """List the images with the largest ratio of long to short side, with size, labels and thumbnail."""
    rows = dict(zip(table.ids, table.targets, strict=True))
    return [
        {
            "id": part.ids[place],
            "width": int(part.sizes[place, 0]),
            "height": int(part.sizes[place, 1]),
            "ratio": float(part.lengths[place]),
            "truth": describe_truth(rows[part.ids[place]], task, counts),
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
