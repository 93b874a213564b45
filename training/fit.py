"""One network from a folder of images: checkpoint, out-of-fold predictions, and the line that adds it to the zoo."""

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inference.errors import TrainingError
from inference.files import make_folder
from inference.images import Geometry
from inference.labels import Labels, read_group_prefixes, read_labels
from inference.manifest import ALL, Resize
from training.data import cache_images, read_table, split_folds
from training.loop import LoopSettings, train_network
from training.metrics import find_threshold
from training.networks import Precision, create_network, round_weights, write_checkpoint
from training.out_of_fold import write_out_of_fold
from training.predict import predict_views

NAMED_FAULTS = 5


@dataclass(frozen=True)
class FitSettings:
    """What `python -m training fit` was asked for; without a `name` the files are called after what they hold."""

    data: Path
    architecture: str
    image_size: int
    group: str
    out: Path
    name: str | None
    resize: Resize
    folds: int
    fold: int
    limit: int | None
    precision: Precision
    loop: LoopSettings


def fit(settings: FitSettings) -> None:
    """Train on every fold but one, write the network and its predictions of that one, print their F2.

    Writes NAME.safetensors, NAME.oof.npy, NAME.oof.ids.txt and NAME.metrics.csv into `settings.out`. The weights that
    predict are the ones in the file, rounded if so asked. Raises TrainingError, TableError.
    """
    check_settings(settings)
    labels_path = settings.data / "labels.csv"
    labels = read_labels(labels_path, read_group_prefixes(labels_path))
    columns = find_columns(labels, settings.group)
    table = read_table(settings.data / "train.csv", labels, settings.limit)
    torch.manual_seed(settings.loop.seed)
    network = create_network(settings.architecture, settings.image_size, len(columns))

    owners = split_folds(table.targets, settings.folds, settings.loop.seed)
    geometry = Geometry(settings.image_size, settings.resize, network.interpolation)
    squares, readable, faults = cache_images(settings.data / "train", table.ids, geometry)
    if faults:
        more = f"; and {len(faults) - NAMED_FAULTS} more" if len(faults) > NAMED_FAULTS else ""
        print(f"left out {len(faults)} images: {'; '.join(faults[:NAMED_FAULTS])}{more}", file=sys.stderr)
    training = np.flatnonzero(readable & (owners != settings.fold))
    held_out = np.flatnonzero(readable & (owners == settings.fold))
    for part, rows in (("train on", training), ("hold out", held_out)):
        if not len(rows):
            raise TrainingError(f"{settings.data}: no readable image left to {part} in fold {settings.fold}")
    print(f"{len(columns)} labels; {len(training)} images to train on, {len(held_out)} held out")

    make_folder(settings.out)
    name = settings.name or name_network(settings)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.module.to(device)
    targets = table.targets[:, columns]
    train_network(network, squares, targets, training, settings.loop, settings.out / f"{name}.metrics.csv", device)
    state = round_weights(network.module, settings.precision)
    network.module.load_state_dict(state)
    scores = predict_views(network, squares, held_out, settings.loop.batch_size, device).astype(np.float16)

    # The checkpoint first: an interrupted run must not leave predictions without the network that made them.
    checkpoint = settings.out / f"{name}.safetensors"
    write_checkpoint(state, checkpoint)
    write_out_of_fold(scores, [table.ids[row] for row in held_out], settings.out, name)
    print(report_f2(scores, targets[held_out]))
    start = shlex.join(["--labels", str(labels_path), "--train", str(settings.data / "train.csv")])
    print(f"add it to the zoo ({start} starts a manifest):\n  {write_add_command(settings, checkpoint)}")


def check_settings(settings: FitSettings) -> None:
    """Raises TrainingError naming the option whose number or name cannot be used."""
    loop = settings.loop
    smallest = (
        ("--image-size", settings.image_size, 8),
        ("--folds", settings.folds, 2),
        ("--epochs", loop.epochs, 1),
        ("--batch-size", loop.batch_size, 2),
        ("--limit", settings.limit, 1),
    )
    for option, found, least in smallest:
        if found is not None and found < least:
            raise TrainingError(f"{option}: found {found}, wanted at least {least}")
    if not 0 <= settings.fold < settings.folds:
        raise TrainingError(
            f"--fold: found {settings.fold}, wanted 0 to {settings.folds - 1} with --folds {settings.folds}"
        )
    if not 0 < loop.learning_rate < float("inf"):
        raise TrainingError(f"--learning-rate: found {loop.learning_rate}, wanted a number above 0")
    parts = (("--crop-percentage", settings.resize.percentage), ("--smallest-crop", loop.smallest_crop))
    for option, part in parts:
        if not 0 < part <= 1:
            raise TrainingError(f"{option}: found {part}, wanted a number above 0, at most 1")
    if settings.name is not None and not re.fullmatch(r"[\w.-]+", settings.name, re.A):
        raise TrainingError(f"--name: found {settings.name!r}, wanted letters, digits, '.', '_' and '-'")


def find_columns(labels: Labels, group: str) -> NDArray[np.int64]:
    """The columns of a group's labels; raises TrainingError for a group that labels.csv does not have."""
    if group not in (ALL, *labels.groups):
        known = ", ".join(labels.groups)
        raise TrainingError(f"--group: found {group!r}, wanted '{ALL}' or a group of labels.csv: {known}")
    return np.array(labels.columns(group))


def name_network(settings: FitSettings) -> str:
    """The name of a network without one: architecture, size, group, fold."""
    return f"{settings.architecture}_{settings.image_size}_{settings.group}_f{settings.fold}"


def report_f2(scores: NDArray[np.float16], truth: NDArray[np.bool_]) -> str:
    """F2 at the best single threshold, in a line; `scores`, `truth`: (images, labels of the network).

    Images without any true label of the group are left out: nothing that is taken for them can count as right.
    The threshold is chosen on the images that it is reported on. The figure itself is scikit-learn's.
    """
    from sklearn.metrics import fbeta_score

    rows = np.flatnonzero(truth.any(axis=1))
    left_out = f"; {len(truth) - len(rows)} without a label of the group left out" if len(rows) < len(truth) else ""
    if not len(rows):
        return "F2: no held-out image has a label of the group"
    threshold, _ = find_threshold(scores[rows], truth[rows])
    # A column of nothing changes no image's F2; without it scikit-learn takes a group of one label for another task.
    true, taken = (np.pad(labels, ((0, 0), (0, 1))) for labels in (truth[rows], scores[rows] >= threshold))
    f2 = fbeta_score(true, taken, beta=2, average="samples", zero_division=0)
    return f"F2 {f2:.4f} at threshold {threshold} on {len(rows)} held-out images{left_out}"


def write_add_command(settings: FitSettings, checkpoint: Path) -> str:
    """The command that adds the network to weights_manifest.json."""
    options = {
        "--architecture": settings.architecture,
        "--image-size": settings.image_size,
        "--group": settings.group,
        "--resize": settings.resize.rule,
        "--fold": settings.fold,
        "--oof": checkpoint.with_suffix(".oof.npy"),
    }
    if settings.resize.percentage != 1:
        options["--crop-percentage"] = settings.resize.percentage
    words = [str(checkpoint), *(str(word) for pair in options.items() for word in pair)]
    return shlex.join(["python", "build_kernel.py", "add", *words])
