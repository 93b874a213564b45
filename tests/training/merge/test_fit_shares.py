import numpy as np
import pytest

from inference.basics.errors import VitrineError
from inference.manifest.labels import Labels
from inference.manifest.task import Task
from tests.training.merge.team import Team
from training.merge.fit_shares import EQUAL, FITTED, CommonImages, average, choose_rule, fit_mean, gather_common
from training.merge.sources import Source, open_sources
from zoo.tables.train_table import Table, read_table

LABELS = Labels(tuple(range(4)), tuple("abcd"), {"one": (0, 2), "two": (1, 3)})


@pytest.fixture(scope="module")
def sources(zoos: Team) -> list[Source]:
    return open_sources([zoos.mine, zoos.theirs], None, None, {})


@pytest.fixture(scope="module")
def table(zoos: Team, sources: list[Source]) -> Table:
    return read_table(zoos.mine.parent / "train.csv", sources[0].zoo.labels, Task())


def test_the_mean_is_weighted_by_group() -> None:
    random = np.random.default_rng(0)
    scores = {tag: random.random((5, 4)).astype(np.float32) for tag in "xy"}
    shares = {"one": {"x": 3.0, "y": 1.0}, "two": {"y": 0.5}}
    found = average(scores, shares, LABELS)
    for image in range(5):
        for column in range(4):
            one = 0.75 * scores["x"][image, column] + 0.25 * scores["y"][image, column]
            wanted = one if column in (0, 2) else scores["y"][image, column]
            assert found[image, column] == pytest.approx(wanted, abs=1e-6)


def test_noise_gets_little_weight_and_the_figures_are_of_other_images(sources: list[Source], table: Table) -> None:
    random = np.random.default_rng(0)
    good = np.clip(0.5 * table.targets + random.uniform(0, 0.6, table.targets.shape), 0, 1).astype(np.float32)
    noise = random.random(good.shape).astype(np.float32)
    common = CommonImages(np.arange(len(good)), {"alice": good, "bob": noise}, table.targets)
    found = fit_mean(common, sources, None, sources[0].zoo.labels, Task())
    assert all(given["alice"] >= 0.75 for given in found.shares.values())
    assert found.figures["alice"] > found.figures[EQUAL] > found.figures["bob"]
    assert found.figures[FITTED] > found.figures[EQUAL]
    # Noise has the figure of a rule that knows nothing, not one that was fitted to these images.
    shuffled = CommonImages(common.rows, common.scores, common.truth[random.permutation(len(good))])
    blind = fit_mean(shuffled, sources, None, sources[0].zoo.labels, Task())
    assert abs(blind.figures["alice"] - blind.figures["bob"]) < 0.03
    assert choose_rule(found.scores, table.targets, sources[0].zoo.labels, Task()) == found.rule


def test_given_weights_are_taken(sources: list[Source], table: Table) -> None:
    common = gather_common(sources, table)
    assert len(common.rows) == len(table.ids)
    given = {"culture": {"alice": 0.9, "bob": 0.1}, "tag": {"alice": 0.2, "bob": 0.8}}
    found = fit_mean(common, sources, given, sources[0].zoo.labels, Task())
    assert found.shares == given and list(found.figures) == ["alice", "bob", EQUAL, "given weights"]


def test_scores_of_other_data_are_refused(sources: list[Source], table: Table) -> None:
    short = Table(table.ids[3:], table.targets[3:])
    with pytest.raises(VitrineError) as error:
        gather_common(sources, short)
    assert str(error.value) == (
        f"{sources[0].zoo.path}: `ensemble.out_of_fold.ids`: image {table.ids[0]} is missing in train.csv; "
        "check --train"
    )
