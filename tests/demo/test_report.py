import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from demo.report import print_report
from inference.manifest.file import MANIFEST_NAME, write_manifest
from inference.manifest.model import Model
from inference.manifest.records import Ensemble
from inference.manifest.task import Form, Metric, Task
from tests.conftest import write_rows
from zoo.edit import create_manifest

NAMES = ("Greek red figure", "Khmer relief", 'Moorish "tile"')
IDS = ("a 1.jpg", "b.jpg", "c.jpg", "d.jpg")
TRUE = (0, 1, 2, 1)


def test_the_accuracy_of_each_model_of_the_blend_and_of_the_submission_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    form = Form(content="label_name", column="culture", top_k=1)
    task = Task(type="multiclass", id_column="image_id", submission=form, metric=Metric("accuracy"))
    labels = write_rows(tmp_path / "labels.csv", ("label_id", "label_name"), list(enumerate(NAMES)))
    train = write_rows(tmp_path / "train.csv", ("id", "labels"), [("x", 0), ("y", 1), ("z", 2)])
    manifest = create_manifest(tmp_path / MANIFEST_NAME, labels, train, task)
    models = tuple(Model(name, "net", "all", 64, (0.5,) * 3, (0.5,) * 3, "bilinear") for name in ("one", "two"))
    weights = Ensemble({"labels": {"one": 1.0, "two": 3.0}})
    write_manifest(dataclasses.replace(manifest, models=models, ensemble=weights), tmp_path / MANIFEST_NAME)
    for name, column in (("truth", TRUE), ("sample_submission", (0,) * 4), ("submission", (0, 1, 2, 0))):
        rows: list[tuple[object, ...]] = [(image, NAMES[label]) for image, label in zip(IDS, column, strict=True)]
        write_rows(tmp_path / f"{name}.csv", ("image_id", "culture"), rows)
    kept = tmp_path / "predictions"
    kept.mkdir()
    (kept / "ids.txt").write_text("".join(f"{image}\n" for image in IDS))
    # One is right about the first image only, two about the others; their blend is right about all but the third.
    one = np.array([[0.9, 0.1, 0], [0.6, 0.4, 0], [0.9, 0.1, 0], [0.5, 0.2, 0.3]], np.float16)
    two = np.array([[0.4, 0.6, 0], [0.1, 0.9, 0], [0.4, 0, 0.6], [0.2, 0.6, 0.2]], np.float16)
    np.save(kept / "one.npy", one)
    np.save(kept / "two.npy", two)
    log = {"models": {"one": ["identity"], "two": ["identity"]}, "images_per_second": 12.5}
    (tmp_path / "run_log.json").write_text(json.dumps(log))
    print_report(tmp_path / MANIFEST_NAME, tmp_path, tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "4 images, 2 models x 1 views, 12.5 images/s",
        "accuracy of 4 test images",
        f"{'one: net':34}   0.2500",
        f"{'two: net':34}   0.7500",
        f"{'blend':34}   0.7500",
        f"{'submission':34}   0.7500",
    ]
