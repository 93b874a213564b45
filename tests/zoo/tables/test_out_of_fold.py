"""Pooled predictions, against the same means computed image by image."""

import json
from pathlib import Path

import numpy as np
import pytest

from inference.basics.errors import TrainingError
from tests.training.second_stage.drawn import NOISE, TASKS, draw_images, name_labels, write_zoo
from zoo.tables.out_of_fold import Zoo, open_zoo, pool_blend, pool_models, read_out_of_fold
from zoo.tables.train_table import Table, read_table

TASK = TASKS["accuracy"]


def open_drawn(folder: Path, held_out: dict[str, range], *, eyes: bool = False) -> tuple[Zoo, Table]:
    made = write_zoo(folder, TASK, 40, held_out=held_out, eyes=eyes)
    document = json.loads(made.manifest.read_text())
    document["ensemble"]["weights"]["labels"] = {"good": 3.0, "fair": 1.0, "noise": 0.5}
    made.manifest.write_text(json.dumps(document))
    return open_zoo(made.manifest), read_table(made.train, name_labels(TASK), TASK)


def test_an_image_has_the_mean_of_the_models_that_held_it_out(tmp_path: Path) -> None:
    held_out = {"good": range(0, 20), "fair": range(10, 30), "noise": range(15, 25)}
    zoo, table = open_drawn(tmp_path, held_out)
    _, scores = draw_images(TASK, 40, 0)
    weights = {"good": 3.0, "fair": 1.0, "noise": 0.5}
    for pooled, given in ((pool_blend(zoo, table), weights), (pool_models(zoo, table, zoo.manifest.models), {})):
        assert pooled.rows.tolist() == list(range(30))
        for row in range(30):
            there = [name for name in NOISE if row in held_out[name]]
            own = np.stack([scores[name][row].astype(float) for name in there])
            expected = np.average(own, axis=0, weights=[given.get(name, 1.0) for name in there])
            np.testing.assert_allclose(pooled.scores[row], expected, atol=1e-6)
            assert pooled.models[row] == len(there)
        assert pooled.describe_models() == "1 to 3 models held out each image"


def test_every_image_of_all_models_is_used(tmp_path: Path) -> None:
    pooled = pool_blend(*open_drawn(tmp_path, {}, eyes=True))
    assert pooled.rows.tolist() == list(range(40))
    assert pooled.describe_models() == "3 models held out each image"


def test_one_image_is_too_few(tmp_path: Path) -> None:
    zoo, table = open_drawn(tmp_path, dict.fromkeys(NOISE, range(3, 4)))
    with pytest.raises(TrainingError) as caught:
        pool_blend(zoo, table)
    assert str(caught.value) == (
        f"{zoo.path}: found 1 image with out-of-fold predictions for every group; wanted thousands, at least 2"
    )


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.full((40, 3), 0.5, np.float16),
            "found float16 (40, 3); wanted float16 (40, 2): the images of eyes.txt, the ",
        ),
        (
            np.full((40, 2), 0.5, np.float32),
            "found float32 (40, 2); wanted float16 (40, 2): the images of eyes.txt, the ",
        ),
        (np.full((40, 2), 1.5, np.float16), "image image 0.jpg: found 1.5 to 1.5; wanted 0 to 1"),
    ],
)
def test_unusable_outputs_for_features_are_named(array: np.ndarray, message: str, tmp_path: Path) -> None:
    zoo, _ = open_drawn(tmp_path, {}, eyes=True)
    np.save(tmp_path / "eyes.npy", array)
    with pytest.raises(TrainingError) as caught:
        read_eyes(zoo, "softmax")
    assert str(caught.value).startswith(f"model eyes: {tmp_path}/eyes.npy: {message}")


def test_features_without_an_activation_are_any_numbers(tmp_path: Path) -> None:
    zoo, _ = open_drawn(tmp_path, {}, eyes=True)
    numbers = np.random.default_rng(0).normal(0, 50, (40, 2)).astype(np.float32)
    np.save(tmp_path / "eyes.npy", numbers)
    assert np.array_equal(read_eyes(zoo, "identity"), numbers)


def read_eyes(zoo: Zoo, activation: str) -> np.ndarray:
    """Declare the changed file, and read it."""
    from inference.basics.files import hash_file

    document = json.loads(zoo.path.read_text())
    document["models"][-1]["activation"] = activation
    document["models"][-1]["out_of_fold"]["scores"]["sha256"] = hash_file(zoo.home / "eyes.npy")
    zoo.path.write_text(json.dumps(document))
    again = open_zoo(zoo.path)
    return read_out_of_fold(again.manifest.models[-1], "models[3]", again.home, again.labels, again.manifest).scores
