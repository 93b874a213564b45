"""An overview of answers, for the page of the notebook: of a submission, or of a train.csv with its columns."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.basics.errors import SubmissionError
from inference.basics.tables import read_columns
from inference.manifest.labels import Labels
from inference.manifest.task import Task
from inference.task.answers import Answer
from inference.task.cells import CellReader
from inference.task.sample import list_columns, read_sample

NO_SCORES: Mapping[int, float] = {}


def read_answers(path: Path, labels: Labels, task: Task) -> dict[str, Answer]:
    """Read a table with the columns of a submission, in any order of rows; return the answer to each image id.

    Raises SubmissionError: no such file or column, or a cell that is no answer.
    """
    id_column, *columns = list_columns(task, labels)
    reader, answers = CellReader(labels, task, is_submission=False), dict[str, Answer]()
    for name, *cells in read_columns(path, (id_column, *columns), SubmissionError):
        try:
            answers[name] = reader.read(cells)
        except ValueError as error:
            raise SubmissionError(f"{path}: {name}: {error}") from None
    if task.submission.layout != "long":
        return answers
    sample = read_sample(path, task, labels)
    joined = np.full((len(sample.ids), len(labels.ids)), np.nan)
    for cell in sample.cells:
        joined[cell.image, cell.column] = answers[cell.row][0]
    return dict(zip(sample.ids, joined, strict=True))


def measure_labels(answers: Sequence[Answer], labels: Labels, task: Task) -> NDArray[np.float64]:
    """Return a number per label, (labels,): the share of images that have it, or its mean over the images.

    Where labels are ranked, only the best one of an image counts.
    """
    if not task.submission.holds_labels:
        means: NDArray[np.float64] = np.nanmean(np.array(answers, np.float64), axis=0)
        return means
    columns = {label: column for column, label in enumerate(labels.ids)}
    counts = np.zeros(len(labels.ids))
    for answer in answers:
        for label in answer if task.selects_labels else answer[:1]:
            counts[columns[int(label)]] += 1
    return counts / max(len(answers), 1)


def describe_answer(answer: Answer, labels: Labels, task: Task, scores: Mapping[int, float] = NO_SCORES) -> list[str]:
    """Return the parts of an answer, the most certain first: labels with their scores, or numbers.

    `scores`: by label id, of the blend; a label whose score is missing or NaN is shown without one.
    """
    if task.submission.content == "number":
        return [f"{value:.6g}" for value in answer]
    if not task.submission.holds_labels:
        order = np.argsort(-np.asarray(answer), kind="stable")
        return [f"{labels.names[column]} {answer[column]:.2f}" for column in order]
    names = dict(zip(labels.ids, labels.names, strict=True))
    found = [(scores.get(int(label), float("nan")), names[int(label)]) for label in answer]
    if task.selects_labels:
        found.sort(key=lambda one: (one[0] != one[0], -one[0]))
    return [name if score != score else f"{name} {score:.2f}" for score, name in found]
