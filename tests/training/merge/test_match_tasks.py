import json
from pathlib import Path
from typing import Any

import pytest

from inference.basics.errors import ManifestError
from tests.training.merge.team import write_mine
from training.merge.match_tasks import check_tasks
from zoo.tables.out_of_fold import open_zoo


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": {"beta": 1.0}}, "`task.metric.beta`: found 1.0; wanted 2.0"),
        ({"metric": {"average": "micro"}}, "`task.metric.average`: found 'micro'; wanted 'samples'"),
        ({"submission": {"separator": ","}}, "`task.submission.separator`: found ','; wanted ' '"),
        ({"submission": {"column": "labels"}}, "`task.submission.column`: found 'labels'; wanted 'attribute_ids'"),
        ({"value_range": [0, 5]}, "`task.value_range`: found (0.0, 5.0); wanted (0.0, 1.0)"),
    ],
)
def test_another_task_is_refused_by_key(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    mine, theirs = write_mine(tmp_path / "a"), write_mine(tmp_path / "b")
    document = json.loads(theirs.read_text())
    for key, value in change.items():
        document["task"][key] = document["task"][key] | value if isinstance(value, dict) else value
    theirs.write_text(json.dumps(document))
    with pytest.raises(ManifestError) as error:
        check_tasks(open_zoo(mine), open_zoo(theirs))
    assert str(error.value) == f"{theirs}: {message}, as in {mine}"


def test_where_files_are_may_differ(tmp_path: Path) -> None:
    mine, theirs = write_mine(tmp_path / "a"), write_mine(tmp_path / "b")
    document = json.loads(theirs.read_text())
    document["task"] |= {"sample": "other.csv", "competition": "another"}
    theirs.write_text(json.dumps(document))
    check_tasks(open_zoo(mine), open_zoo(theirs))
