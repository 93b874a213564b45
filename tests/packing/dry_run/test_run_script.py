import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from inference.basics.errors import RehearsalError, SubmissionError
from inference.basics.files import hash_file
from inference.manifest.file import MANIFEST_NAME
from inference.task.ids import read_ids
from packing.dry_run.outcome import Rehearsal
from packing.dry_run.run_script import rehearse
from tests.conftest import ROOT, Workshop

SANDBOX = ROOT / "packing" / "dry_run" / "sandbox.py"


def test_a_dry_run_predicts_the_first_images_and_keeps_the_predictions(workshop: Workshop, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rehearsal = rehearse(workshop.dataset, workshop.competition, out, limit=5, predictions=True)
    assert (rehearsal.images, rehearsal.unreadable, rehearsal.time_limit) == (5, 0, 9 * 3600)
    assert rehearsal.rate > 0
    rows = (out / "submission.csv").read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == read_ids(workshop.sample)[:5]
    assert sorted(path.name for path in out.iterdir()) == ["predictions", "run_log.json", "submission.csv"]


def test_a_script_that_fails_is_an_error_and_keeps_the_earlier_result(
    own_workshop: Workshop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    rehearse(own_workshop.dataset, own_workshop.competition, out)
    before = (out / "submission.csv").read_bytes()
    replace_script(own_workshop, "import sys; sys.exit('error: broken')")
    with pytest.raises(RehearsalError) as error:
        rehearse(own_workshop.dataset, own_workshop.competition, out)
    assert str(error.value) == f"{own_workshop.dataset}: the script ended with exit code 1; see its message above"
    assert "error: broken" in capfd.readouterr().err
    assert (out / "submission.csv").read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == ["run_log.json", "submission.csv"]


def test_a_degraded_submission_is_an_error_unless_lenient(
    own_workshop: Workshop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (own_workshop.dataset / "tag.onnx").write_bytes(b"no model")
    path = own_workshop.dataset / MANIFEST_NAME
    document = json.loads(path.read_text())
    document["models"][2]["onnx"]["fp32"]["sha256"] = hash_file(own_workshop.dataset / "tag.onnx")
    path.write_text(json.dumps(document))
    given = (own_workshop.dataset, own_workshop.competition, tmp_path / "out")
    with pytest.raises(RehearsalError, match=r"the script ended with exit code 1; see its message above$"):
        rehearse(*given, limit=5)
    assert "error: model tag: tag.onnx does not load: " in capfd.readouterr().err
    assert rehearse(*given, limit=5, strict=False).images == 5
    assert "DEGRADED: model tag: tag.onnx does not load: " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import torch", "ModuleNotFoundError: No module named 'torch': a kernel may import only PIL, inference, numpy, onnxruntime"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "PermissionError: [Errno 1] no network in a kernel"),
        ("open('{bundle}/labels.csv', 'a')", "OSError: [Errno 30] Read-only file system: '{bundle}/labels.csv'"),
        ("import os; os.remove('{images}/x.png')", "OSError: [Errno 30] Read-only file system: '{images}/x.png'"),
    ],
)  # fmt: skip
def test_the_sandbox_refuses_what_kaggle_refuses(script: str, message: str, workshop: Workshop, tmp_path: Path) -> None:
    places = {"bundle": workshop.dataset, "images": workshop.images}
    (tmp_path / "script.py").write_text(script.format(**places))
    command = [sys.executable, "-I", str(SANDBOX), os.pathsep.join(map(str, places.values())), "script.py"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1] == message.format(**places)


def test_a_script_in_the_sandbox_can_read_its_inputs_and_write_its_folder(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(f"open('x', 'w').write(open('{workshop.dataset}/labels.csv').read())")
    command = [sys.executable, "-I", str(SANDBOX), str(workshop.dataset), "script.py"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "x").read_text() == (workshop.dataset / "labels.csv").read_text()


def replace_script(workshop: Workshop, text: str) -> None:
    script = workshop.dataset / "inference.pyz"
    script.write_text(text)
    document = json.loads((workshop.dataset / MANIFEST_NAME).read_text())
    document["runtime"]["script"]["sha256"] = hash_file(script)
    (workshop.dataset / MANIFEST_NAME).write_text(json.dumps(document))


def test_a_bundle_that_writes_an_invalid_submission_fails_the_dry_run(own_workshop: Workshop, tmp_path: Path) -> None:
    replace_script(
        own_workshop,
        "import json, pathlib\n"
        "pathlib.Path('submission.csv').write_text('id,attribute_ids\\n')\n"
        "pathlib.Path('run_log.json').write_text('{}')\n",
    )
    with pytest.raises(SubmissionError, match=r"found 0 rows, without \w+; wanted the 20 ids of the sample in order$"):
        rehearse(own_workshop.dataset, own_workshop.competition, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_run_time_of_the_rerun_is_estimated_from_start_up_and_rate() -> None:
    rehearsal = Rehearsal(
        images=100, unreadable=1, seconds=12.0, rate=10.0, time_limit=3600, reserve=300, expected=38_801
    )
    assert rehearsal.predict_seconds() == pytest.approx(2 + 3880.1)
    assert rehearsal.describe() == (
        "100 images in 12.0 s, 10.0 images/s, 1 unreadable\n"
        "38,801 images at this rate: 1:04:42; DOES NOT FIT the time limit of 1:00:00 less the notebook reserve of 5:00"
    )


@pytest.mark.parametrize(("reserve", "verdict"), [(299.0, "fits"), (301.0, "DOES NOT FIT")])
def test_the_notebook_reserve_is_not_available_to_the_script(reserve: float, verdict: str) -> None:
    rehearsal = Rehearsal(100, 0, 10.0, 10.0, time_limit=4180.1, reserve=reserve, expected=38_801)
    assert rehearsal.predict_seconds() == pytest.approx(3880.1)
    assert f"1:04:40; {verdict} the time limit" in rehearsal.describe()


def test_a_run_without_a_rate_is_described_and_its_reasons_too() -> None:
    rehearsal = Rehearsal(100, 0, 12.0, 0.0, 3600, 300, 1000, degraded=("the script was started twice",))
    assert rehearsal.predict_seconds() is None
    assert rehearsal.describe().splitlines()[1:] == [
        "1,000 images at this rate: unknown, as the last start of the script predicted none",
        "DEGRADED: the script was started twice",
    ]


def test_a_lenient_dry_run_without_a_readable_image_is_refused(own_workshop: Workshop, tmp_path: Path) -> None:
    for image in own_workshop.images.iterdir():
        image.write_bytes(b"no image")
    with pytest.raises(RehearsalError) as error:
        rehearse(own_workshop.dataset, own_workshop.competition, tmp_path / "out", 5, strict=False)
    assert re.fullmatch(
        rf"{own_workshop.dataset}: all 5 images have the prior labels: .*; wanted predictions; "
        "see the messages of the script above",
        str(error.value),
    )
    assert list((tmp_path / "out").iterdir()) == []


def test_the_script_gets_the_time_limit_less_the_reserve(workshop: Workshop, tmp_path: Path) -> None:
    rehearsal = rehearse(workshop.dataset, workshop.competition, tmp_path, limit=2, time_limit=600)
    assert (rehearsal.time_limit, rehearsal.reserve) == (600, 60)
    assert json.loads((tmp_path / "run_log.json").read_text())["time_limit"] == 540


def test_a_script_past_the_time_limit_is_stopped(own_workshop: Workshop, tmp_path: Path) -> None:
    replace_script(own_workshop, "import time; time.sleep(60)")
    with pytest.raises(RehearsalError) as error:
        rehearse(own_workshop.dataset, own_workshop.competition, tmp_path / "out", time_limit=1)
    assert str(error.value) == f"{own_workshop.dataset}: the script was stopped at the time limit of 1 s"
