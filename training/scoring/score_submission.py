"""The metric of a submission for images whose truth is known."""

from pathlib import Path

from inference.basics.errors import SubmissionError
from inference.manifest.labels import Labels
from inference.manifest.task import Task
from inference.task.sample import read_sample
from zoo.metrics.scoring import find_scoring
from zoo.tables.out_of_fold import open_zoo
from zoo.tables.submissions import read_matrix
from zoo.tables.train_table import read_table


def print_score(manifest: Path, submission: Path, truth: Path) -> None:
    """Print the metric of `submission` in full precision, and the number of images.

    Raises ManifestError, LabelsError, TableError or SubmissionError naming the file.
    """
    zoo = open_zoo(manifest)
    found, images = score_submission(submission, truth, zoo.labels, zoo.manifest.task)
    print(f"{find_scoring(zoo.manifest.task).title} {found!r} on {images} images")


def score_submission(submission: Path, truth: Path, labels: Labels, task: Task) -> tuple[float, int]:
    """Return the metric of a submission, and its number of images; its rows may have any order.

    `truth`: a table of the same images in the form of train.csv. Raises TableError or SubmissionError naming the file:
    not valid, or the images differ.
    """
    table = read_table(truth, labels, task)
    sample = read_sample(submission, task, labels)
    answers = read_matrix(submission, sample, labels, task)
    for images, found, others, wanted in (
        (sample.ids, submission, table.ids, truth),
        (table.ids, truth, sample.ids, submission),
    ):
        alone = sorted(set(images) - set(others))
        if alone:
            raise SubmissionError(
                f"{found}: found {len(alone)} images that {wanted} lacks, as {alone[0]}; wanted the same images in both"
            )
    return find_scoring(task).score(answers, table.order_targets(sample.ids)), len(sample.ids)
