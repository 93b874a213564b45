"""From a competition's folder to a new zoo, with a table of what was understood and from what."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import OptionError, TableError
from inference.manifest.task import Form, Metric, Task
from packing.init.answers import Answers, read_answers
from packing.init.form import choose_form, choose_metric, parse_metric
from packing.init.places import TrainPlaces, place_test, place_train
from packing.init.read.image_files import ImageFiles
from packing.init.read.sample import SampleSheet, check_column, read_sample_sheet
from packing.init.read.truth import Truth, read_truth
from packing.init.settings import Settings
from packing.init.write_zoo import check_out, write_zoo
from zoo.metrics.scoring import find_scoring
from zoo.tables.folds import name_small_labels, split_classes, split_task
from zoo.text import align_columns

SLUG = re.compile(r"[a-z0-9][a-z0-9-]*")
GROUP_WORDS = ("patient", "group")


@dataclass
class Report:
    """What was understood, filled as it is found, so that an error comes after all that is known."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    """What, its value, and where it was found."""
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, value: object, source: str) -> None:
        """Add a row."""
        self.rows.append((what, str(value), source))

    def lines(self) -> list[str]:
        """Return the table and the notes."""
        table = align_columns([("found", "value", "from"), *self.rows], left=3) if self.rows else []
        return table + [f"note: {note}" for note in self.notes]


def init_zoo(settings: Settings, report: Report) -> Task:
    """Read the competition's folder, fill `report`, and write the zoo; return its task.

    Raises VitrineError naming the option, or the file, the image and the cell; then nothing is written.
    """
    check_out(settings.out, settings.folder, settings.force)
    metric = parse_metric(settings.metric) if settings.metric else None
    sample = read_sample_sheet(settings)
    competition = choose_slug(settings)
    report.add("competition", competition, "--competition" if settings.competition else "name of the folder")
    report.add("id column", sample.id_column, sample.path)
    files = ImageFiles(settings.folder)
    truth = read_truth(settings, sample, files)
    train = place_train(settings, files, truth, sample.ids)
    report_train(report, truth, train)
    answers = read_answers(truth, sample, settings, metric)
    report_answers(report, answers, truth)
    form = choose_form(answers, truth, sample, settings, metric)
    report.add("submission", describe_form(form), sample.path)
    images, source = place_test(settings, files, sample, list_image_ids(form, sample, answers), train.pattern)
    counted = "" if images.table else f", {files.count(images.folder)} images in {images.folder}/"
    report.add("test images", images.path + counted, source)
    task = Task(competition, answers.type, sample.id_column, sample.path, images, form)
    if answers.type == "regression" and answers.numbers is not None:
        ends = (float(answers.numbers.min()), float(answers.numbers.max()))
        task = dataclasses.replace(task, value_range=ends)
    chosen = choose_metric(task, metric, settings.metric, len(answers.names))
    task = complete_task(task, chosen)
    report.add("metric", find_scoring(task).title, "--metric" if metric else f"the only one for {answers.type}")
    owners = split(settings, truth, answers, task, report)
    write_zoo(settings.out, task, answers, truth, train.paths, owners, settings.time_limit)
    return task


def complete_task(task: Task, metric: Metric) -> Task:
    """Return the task with its metric."""
    return dataclasses.replace(task, metric=metric)


def choose_slug(settings: Settings) -> str:
    """Return the competition's name in its URL; raises OptionError: the folder's name cannot be one."""
    name = settings.competition or settings.folder.resolve().name
    if not SLUG.fullmatch(name):
        found = f"found {name!r}" if settings.competition else f"cannot be known from the folder's name {name!r}"
        raise OptionError(f"--competition: {found}; wanted the name in the competition's URL, of a-z, 0-9 and -")
    return name


def list_image_ids(form: Form, sample: SampleSheet, answers: Answers) -> Sequence[str]:
    """Return the ids of the images: those of the sample, or the starts of its rows' ids in the layout `long`."""
    if form.layout != "long":
        return sample.ids
    ends = [form.row.removeprefix("{id}").replace("{label}", name) for name in answers.names]
    longest = sorted(ends, key=len, reverse=True)
    return list(
        dict.fromkeys(row.removesuffix(next(end for end in longest if row.endswith(end))) for row in sample.ids)
    )


def report_train(report: Report, truth: Truth, train: TrainPlaces) -> None:
    """Add the training images."""
    rows = len(truth.ids)
    if not train.paths:
        report.add("training images", f"{rows} rows", truth.source)
        report.notes.append(f"no image of {truth.source} is here; train.csv has no column image")
        return
    report.add(
        "training images", f"{train.pattern}, {train.found} of {rows} rows have a file".lstrip(", "), truth.source
    )
    if train.found < rows:
        absent = rows - train.found
        report.notes.append(
            f"{absent} of {rows} images of {truth.source} have no file; training skips them only if asked"
        )
    if train.unused:
        report.notes.append(f"{train.unused} images beside the training images have no row in {truth.source}")


def report_answers(report: Report, answers: Answers, truth: Truth) -> None:
    """Add the labels and their type."""
    report.add("type", answers.type, f"{truth.describe()}: {answers.reason}")
    if answers.type == "regression":
        numbers = answers.numbers if answers.numbers is not None else np.zeros((1, 1))
        report.add("values", f"{numbers.min():g} to {numbers.max():g}, mean {numbers.mean():.4g}", truth.source)
        return
    kind = "whole numbers" if answers.whole else "names"
    source = truth.source if truth.labels_file is None else f"{truth.labels_file.name}, {truth.source}"
    report.add(
        "labels",
        f"{len(answers.names)} ({kind}): {', '.join(answers.names[:3])}{', …' * (len(answers.names) > 3)}",
        source,
    )
    counts = answers.counts
    report.add("labels per image", f"{counts.min()} to {counts.max()}, mean {counts.mean():.4g}", truth.source)


def describe_form(form: Form) -> str:
    """Describe the form of a submission in words."""
    if form.layout == "list":
        joined = "one" if form.top_k == 1 else f"{form.top_k or 'any number'}, separated by {form.separator!r}"
        return f"list in column {form.column}: {form.content}, {joined}{', best first' * ((form.top_k or 1) > 1)}"
    if form.layout == "long":
        return f"long: a row {form.row} with {form.content} in column {form.column}"
    return f"wide: {form.content} in a column per label{', adding up to 1' * form.sum_to_one}"


def split(settings: Settings, truth: Truth, answers: Answers, task: Task, report: Report) -> NDArray[np.int64]:
    """Return the fold of each image, and report how the images were split."""
    groups: list[str] | None = None
    if settings.group_by:
        column = check_column(truth.frame, settings.group_by, truth.source, "--group-by")
        groups = list(truth.frame[column])
        if "" in groups:
            empty = truth.ids[groups.index("")]
            raise TableError(f"{truth.source}: image {empty}: {column}: found an empty cell; wanted a group")
    if task.type == "multiclass" and answers.numbers is None:  # no matrix of all images and classes
        classes = np.array([row[0] for row in answers.marks], np.int64)
        owners = split_classes(classes, settings.folds, settings.seed, groups)
    else:
        owners = split_task(answers.make_targets(), task, settings.folds, settings.seed, groups)
    by = (
        f"grouped by {settings.group_by}"
        if groups
        else f"stratified by the {'values' if task.type == 'regression' else 'labels'}"
    )
    sizes = np.bincount(owners)
    report.add("folds", f"{settings.folds}, {by}; {sizes.min()} to {sizes.max()} images", f"--seed {settings.seed}")
    if answers.marks and task.type != "binary":
        counts = np.bincount([column for row in answers.marks for column in row], minlength=len(answers.names))
        report.notes += name_small_labels(counts, answers.names, settings.folds)
    if not groups:
        for name in map(str, truth.frame.columns):
            if (
                any(word in name.lower() for word in GROUP_WORDS)
                and name not in truth.columns
                and name != truth.id_column
            ):
                found = truth.frame[name].nunique()
                if found < len(truth.ids):
                    report.notes.append(
                        f"{name} has {found} values; --group-by {name} keeps the images of one in one fold"
                    )
    return owners
