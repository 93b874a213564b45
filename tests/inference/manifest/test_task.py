"""The declaration of a competition: the parts of its patterns, and what follows from its type."""

import dataclasses
import json
from pathlib import Path

import pytest

from inference.basics.errors import ManifestError
from inference.manifest.schema import parse_record
from inference.manifest.task import Form, Images, Metric, Task


@pytest.mark.parametrize(
    ("path", "folder", "file"),
    [
        ("test/{id}", "test", "{id}"),
        ("test_images/{id}", "test_images", "{id}"),
        ("jpeg/test/{id}.jpg", "jpeg/test", "{id}.jpg"),
        ("test/images/{id:3}/{id}.jpg", "test/images", "{id:3}/{id}.jpg"),
        ("test/Test_{id}", "test", "Test_{id}"),
        ("{id}", ".", "{id}"),
        ("img-{id}", ".", "img-{id}"),
        ("nybg2020/test/{file_name}", "nybg2020/test", "{file_name}"),
    ],
)
def test_a_pattern_has_a_folder_and_a_file(path: str, folder: str, file: str) -> None:
    images: Images = parse_record(Images, {"path": path})
    assert (images.folder, images.file) == (folder, file)


@pytest.mark.parametrize(
    ("kind", "activation", "bounded"),
    [
        ("multilabel", "sigmoid", True),
        ("binary", "sigmoid", True),
        ("multiclass", "softmax", True),
        ("regression", "identity", False),
    ],
)
def test_the_type_decides_the_last_step_of_a_network(kind: str, activation: str, bounded: bool) -> None:
    task = Task(type=kind)  # type: ignore[arg-type]
    assert (task.activation, task.has_probabilities) == (activation, bounded)


def test_scores_are_kept_in_float32_where_they_are_written() -> None:
    assert Task().score_dtype == "float16"
    assert Task(submission=Form("wide", "probability")).score_dtype == "float32"
    assert Task().selects_labels and not Task(submission=Form(top_k=5)).selects_labels


def test_the_default_is_imet_2019_and_survives_json() -> None:
    document = json.loads(json.dumps(dataclasses.asdict(Task())))
    assert parse_record(Task, document, "task") == parse_record(Task, {}, "task") == Task()
    assert (document["id_column"], document["submission"]["column"]) == ("id", "attribute_ids")
    assert document["metric"] == {"name": "f_beta", "beta": 2.0, "average": "samples", "k": 5}


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"typ": "binary"}, "`task.typ`: unknown key; did you mean `task.type`?"),
        ({"type": "ordinal"}, "`task.type`: found \"ordinal\"; wanted 'multilabel' or 'multiclass' or 'binary' or 'regression'"),
        ({"competition": "iMet 2019"}, "`task.competition`: found \"iMet 2019\"; wanted the competition's name in its URL, of a-z, 0-9 and '-'"),
        ({"id_column": ""}, '`task.id_column`: found ""; wanted the name of a column, without line breaks'),
        ({"id_column": "a\nb"}, '`task.id_column`: found "a\\nb"; wanted the name of a column, without line breaks'),
        ({"sample": "../sample.csv"}, '`task.sample`: found "../sample.csv"; wanted a path below the competition\'s folder, with / and without ..'),
        ({"images": {"path": "test"}}, '`task.images.path`: found "test"; wanted a pattern such as test/{id} or test/{id:3}/{id}.jpg'),
        ({"images": {"path": "../{id}"}}, '`task.images.path`: found "../{id}"; wanted a path below the competition\'s folder, with / and without ..'),
        ({"images": {"path": "/test/{id}"}}, '`task.images.path`: found "/test/{id}"; wanted a path below the competition\'s folder, with / and without ..'),
        ({"submission": {"layout": "tall"}}, "`task.submission.layout`: found \"tall\"; wanted 'list' or 'wide' or 'long'"),
        ({"submission": {"content": "name"}}, "`task.submission.content`: found \"name\"; wanted 'label_id' or 'label_name' or 'probability' or 'number'"),
        ({"submission": {"separator": ""}}, '`task.submission.separator`: found ""; wanted one or more characters, no quotes or line breaks'),
        ({"submission": {"top_k": 0}}, "`task.submission.top_k`: found 0; wanted a whole number from 1 to 1000, or null"),
        ({"submission": {"sum_to_one": 1}}, "`task.submission.sum_to_one`: found 1; wanted true or false"),
        ({"submission": {"row": "{id}"}}, '`task.submission.row`: found "{id}"; wanted a pattern with {id} and {label}, as in {id}_{label}'),
        ({"metric": {"name": "f2"}}, "`task.metric.name`: found \"f2\"; wanted 'f_beta' or 'accuracy' or 'kappa' or 'map' or 'roc_auc' or 'log_loss' or 'kl_divergence' or 'rmse'"),
        ({"metric": {"beta": 0}}, "`task.metric.beta`: found 0; wanted a number from 0.01 to 100"),
        ({"metric": {"average": "weighted"}}, "`task.metric.average`: found \"weighted\"; wanted 'samples' or 'micro' or 'macro'"),
        ({"metric": {"k": 0}}, "`task.metric.k`: found 0; wanted a whole number from 1 to 1000"),
        ({"value_range": [1, 1]}, "`task.value_range`: found [1, 1]; wanted two ascending numbers"),
        ({"value_range": [0]}, "`task.value_range`: found [0]; wanted two ascending numbers"),
        ("imet", '`task`: found "imet"; wanted an object'),
    ],
)  # fmt: skip
def test_each_key_of_a_task_has_its_message(task: object, message: str) -> None:
    with pytest.raises(ManifestError) as error:
        parse_record(Task, task, "task")
    assert str(error.value) == message


def test_pages_name_each_key_of_the_task() -> None:
    page = (Path(__file__).parents[3] / "docs" / "competitions.md").read_text(encoding="utf-8")
    for record in (Task, Images, Form, Metric):
        for field in dataclasses.fields(record):
            if field.name in ("images", "submission", "metric"):  # their own keys are named
                continue
            assert f"`{field.name}`" in page or f".{field.name}`" in page, field.name
