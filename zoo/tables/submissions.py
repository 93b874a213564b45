"""Submissions read at home, to score them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.manifest.labels import Labels
from inference.manifest.task import Task
from inference.task.sample import Sample
from inference.task.submission import read_submission


def read_matrix(path: Path, sample: Sample, labels: Labels, task: Task) -> NDArray[Any]:
    """Return the answers in a submission, (images of the sample, labels), in the form that `decide` returns.

    Labels of a list are True; of a ranked list of k, k for the first to 1 for the last and -inf for those not given;
    numbers are in units of the task's range. Raises SubmissionError: the submission is not valid.
    """
    form = task.submission
    columns = {label: column for column, label in enumerate(labels.ids)}
    shape = (len(sample.ids), len(labels.ids))
    answers: NDArray[Any] = np.full(shape, -np.inf) if form.top_k else np.zeros(shape, np.bool_)
    if not form.holds_labels:
        answers = np.zeros(shape)
    for place, (_, answer) in enumerate(read_submission(path, sample, labels, task)):
        if form.layout == "long":
            cell = sample.cells[place]
            answers[cell.image, cell.column] = answer[0]
        elif not form.holds_labels:
            answers[place] = answer
        else:
            ranks = np.arange(form.top_k, form.top_k - len(answer), -1) if form.top_k else True
            answers[place, [columns[int(label)] for label in answer]] = ranks
    if form.content == "number":
        low, high = task.value_range
        answers = (answers - low) / (high - low)
    return answers
