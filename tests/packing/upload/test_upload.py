"""Uploads with Kaggle's real client to a local fake of Kaggle: what arrives, and the messages after faults."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.basics.errors import PackError
from inference.basics.files import hash_file
from inference.manifest.file import MANIFEST_NAME
from packing.pack.write_bundle import pack
from packing.upload.client import read_answer
from packing.upload.upload import Upload, follow_kernel, prepare_upload, push_kernel, upload_dataset
from tests.conftest import NAMES, ROOT, Workshop
from tests.packing.upload.kaggle_server import HANG_UP, SITECUSTOMIZE, Kaggle, run_kaggle

pytest.importorskip("kagglesdk")
KEY = "0123456789abcdef0123456789abcdef"
RUN_LOG = {"images": 20, "images_per_second": 5.0, "seconds": {"total": 4.2}, "providers": ["CPUExecutionProvider"]}


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kaggle]:
    """A fake of Kaggle that the client in any subprocess uses, logged in with a key."""
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    (tmp_path / "temporary").mkdir()  # the client keeps the state of unfinished uploads there
    for name in [name for name in os.environ if name.startswith("KAGGLE")]:
        monkeypatch.delenv(name)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setenv("KAGGLE_USERNAME", NAMES.owner)
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "python"))
    with run_kaggle() as kaggle:
        monkeypatch.setenv("TEST_KAGGLE", kaggle.address)
        yield kaggle


@pytest.fixture
def upload(workshop: Workshop) -> Upload:
    return prepare_upload(workshop.bundle, pause=0.01, ready_limit=120.0)


def read_files(folder: Path) -> dict[str, bytes]:
    """Read the files that should arrive: all except the metadata file of the client."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "dataset-metadata.json"}


def test_a_new_dataset_arrives_complete_and_private_and_upload_waits_for_it(
    kaggle: Kaggle, upload: Upload, workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upload_dataset(upload)
    assert kaggle.versions == [read_files(workshop.dataset)]
    created = kaggle.find_call("CreateDataset")
    assert {key: created.get(key) for key in ("title", "slug", "ownerSlug", "licenseName", "isPrivate")} == {
        "title": NAMES.title,
        "slug": NAMES.slug,
        "ownerSlug": NAMES.owner,
        "licenseName": "other",
        "isPrivate": True,
    }
    printed = capsys.readouterr()
    assert "museum-owner/tiny-bundle: uploading " in printed.out and "MB as a new dataset" in printed.out
    assert re.search(r"^museum-owner/tiny-bundle: blobs_received after 0:\d\d$", printed.out, re.MULTILINE)
    assert re.search(r"^museum-owner/tiny-bundle: ready after 0:\d\d$", printed.out, re.MULTILINE)
    assert KEY not in printed.out + printed.err


def test_the_same_bundle_is_not_uploaded_twice(kaggle: Kaggle, upload: Upload) -> None:
    assert upload_dataset(upload)
    assert not upload_dataset(upload)
    assert len(kaggle.versions) == 1 and len(kaggle.blobs) == len(kaggle.versions[0])


def test_another_bundle_becomes_a_new_version_with_its_hash_in_the_notes(
    kaggle: Kaggle, upload: Upload, own_workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    upload_dataset(upload)
    document = json.loads(own_workshop.manifest.read_text())
    document["runtime"] = {"time_limit": 3600}
    own_workshop.manifest.write_text(json.dumps(document))
    pack(own_workshop.manifest, own_workshop.onnx, own_workshop.bundle, NAMES)
    assert upload_dataset(prepare_upload(own_workshop.bundle, pause=0.01, ready_limit=120.0))
    assert kaggle.versions[1] == read_files(own_workshop.dataset) != kaggle.versions[0]
    sent = kaggle.find_call("CreateDatasetVersion")
    assert (sent["ownerSlug"], sent["datasetSlug"]) == (NAMES.owner, NAMES.slug)
    assert sent["body"]["versionNotes"] == f"vitrine {hash_file(own_workshop.dataset / MANIFEST_NAME)}"
    assert "uploading" in capsys.readouterr().out


def test_the_notebook_arrives_with_its_source_and_its_metadata(
    kaggle: Kaggle, upload: Upload, workshop: Workshop
) -> None:
    assert push_kernel(upload) == "museum-owner/tiny-bundle-kernel/7"
    sent = kaggle.find_call("SaveKernel")
    notebook = json.loads((workshop.bundle / "kernel" / "kernel.ipynb").read_text())
    sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    assert [cell["source"] for cell in json.loads(sent["text"])["cells"]] == sources
    wanted = {
        "slug": "museum-owner/tiny-bundle-kernel",
        "newTitle": "Tiny bundle kernel",
        "kernelType": "notebook",
        "language": "python",
        "isPrivate": True,
        "enableGpu": True,
        "enableInternet": False,
        "machineShape": "NvidiaTeslaT4",
        "datasetDataSources": ["museum-owner/tiny-bundle"],
        "competitionDataSources": ["tiny-competition"],
        "dockerImagePinningType": "original",
    }
    assert {key: sent.get(key) for key in wanted} == wanted


def test_a_run_is_followed_to_its_end_and_its_results_are_downloaded(
    kaggle: Kaggle, upload: Upload, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.outputs = {
        "run_log.json": json.dumps(RUN_LOG).encode(),
        "submission.csv": b"id,attribute_ids\n",
        "other.bin": b"x",
    }
    out = tmp_path / "results"
    line = follow_kernel(upload, "museum-owner/tiny-bundle-kernel/7", out)
    assert line == (
        "museum-owner/tiny-bundle-kernel/7: complete, 20 images in 0:04, 5.0 images/s on CPUExecutionProvider; "
        f"results in {out}"
    )
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        "run_log.json": kaggle.outputs["run_log.json"],
        "submission.csv": b"id,attribute_ids\n",
        "tiny-bundle-kernel.log": b"the log",
    }
    assert kaggle.find_call("GetKernelSessionStatus")["versionLabel"] == "v7"
    assert [line.partition(" after")[0] for line in capsys.readouterr().out.splitlines()] == [
        f"museum-owner/tiny-bundle-kernel/7: {state}" for state in ("queued", "running", "complete")
    ]


def test_the_summary_lists_degraded_states(kaggle: Kaggle, upload: Upload, tmp_path: Path) -> None:
    kaggle.outputs = {"run_log.json": json.dumps(RUN_LOG | {"degraded": ["no GPU"], "dropped": ["tag/hflip"]}).encode()}
    line = follow_kernel(upload, "museum-owner/tiny-bundle-kernel/7", tmp_path / "out")
    assert "; DEGRADED: no GPU; tag/hflip; results in" in line


def test_a_run_that_fails_is_an_error_with_kaggles_message(kaggle: Kaggle, upload: Upload, tmp_path: Path) -> None:
    kaggle.runs, kaggle.failure = ["ERROR"], "Notebook Threw Exception"
    with pytest.raises(PackError) as error:
        follow_kernel(upload, "museum-owner/tiny-bundle-kernel/7", tmp_path / "out")
    assert str(error.value) == (
        "museum-owner/tiny-bundle-kernel/7: ended with error: Notebook Threw Exception; "
        f"see {tmp_path}/out/tiny-bundle-kernel.log"
    )
    assert (tmp_path / "out" / "tiny-bundle-kernel.log").read_text() == "the log"


@pytest.mark.parametrize(("fault", "side"), [(429, "Client"), (502, "Server")])
def test_a_transient_fault_is_retried(
    fault: int, side: str, kaggle: Kaggle, upload: Upload, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.faults = {"GetDatasetStatus": [fault], "SaveKernel": [fault]}
    upload_dataset(upload)
    push_kernel(upload)
    assert len(kaggle.list_calls("SaveKernel")) == 2
    printed = capsys.readouterr().err
    assert f"kaggle datasets status: {fault} {side} Error: set by the test; retry in 0 s" in printed
    assert "Traceback" not in printed


def test_a_429_during_an_upload_is_retried(kaggle: Kaggle, upload: Upload, workshop: Workshop) -> None:
    kaggle.faults = {"StartBlobUpload": [429], "CreateDataset": [429]}
    assert upload_dataset(upload)
    assert kaggle.versions == [read_files(workshop.dataset)]


@pytest.mark.parametrize("where", ["upload of everything.onnx", "StartBlobUpload", "CreateDataset"])
def test_the_dataset_is_complete_after_a_lost_connection(
    where: str, kaggle: Kaggle, upload: Upload, workshop: Workshop
) -> None:
    kaggle.faults = {where: [HANG_UP]}
    upload_dataset(upload)
    assert kaggle.versions[-1] == read_files(workshop.dataset)


def test_a_403_is_reported_with_possible_reasons(kaggle: Kaggle, upload: Upload) -> None:
    kaggle.faults = {"CreateDataset": [403]}
    with pytest.raises(PackError) as error:
        upload_dataset(upload)
    assert str(error.value) == (
        "museum-owner/tiny-bundle: Kaggle refused the dataset: 403 Client Error: set by the test; "
        "are you logged in as its owner, and is your phone number verified?"
    )


def test_a_refused_login_is_reported(kaggle: Kaggle, upload: Upload) -> None:
    kaggle.faults = {"GetDatasetStatus": [401]}
    with pytest.raises(PackError) as error:
        upload_dataset(upload)
    assert str(error.value) == "Kaggle's client is not logged in; run `kaggle auth login`, then repeat this command"


def test_a_dataset_that_is_not_ready_in_time_is_reported(kaggle: Kaggle, workshop: Workshop) -> None:
    kaggle.ready_after = 1000
    with pytest.raises(
        PackError,
        match=r"^museum-owner/tiny-bundle: still blobs_received after 0:0\d; repeat the command later to continue$",
    ):
        upload_dataset(prepare_upload(workshop.bundle, pause=0.5, ready_limit=1.0))


def test_the_repeated_command_continues_the_wait(kaggle: Kaggle, workshop: Workshop) -> None:
    kaggle.ready_after = 1000
    with pytest.raises(PackError):
        upload_dataset(prepare_upload(workshop.bundle, pause=0.5, ready_limit=0.5))
    kaggle.pending = 2
    assert not upload_dataset(prepare_upload(workshop.bundle, pause=0.01, ready_limit=120.0))
    assert len(kaggle.versions) == 1


def test_a_notebook_without_its_dataset_is_an_error_although_the_client_exits_0(kaggle: Kaggle, upload: Upload) -> None:
    kaggle.invalid_sources = ["museum-owner/tiny-bundle"]
    with pytest.raises(PackError) as error:
        push_kernel(upload)
    assert str(error.value) == (
        "museum-owner/tiny-bundle-kernel: Kaggle refused the notebook: The following are not valid dataset sources and "
        "could not be added to the kernel: ['museum-owner/tiny-bundle']"
    )


@pytest.mark.parametrize(
    ("code", "output", "errors", "fault"),
    [
        (0, "ready\n", "", None),
        (0, "Dataset creation error: The requested title is already in use\n", "", "other"),
        (0, "Kernel push error: Maximum batch GPU session count of 2 reached.\n", "", "other"),
        (1, "Authentication required to call the Kaggle API.\n", "", "login"),
        (1, "", "404 Client Error: Not Found for url\n\nThe resource was not found.\n", "absent"),
        (1, "", "('Connection aborted.', RemoteDisconnected('Remote end closed connection'))\n", "transient"),
        (1, "", "ValueError: Invalid folder: x\n", "other"),
    ],
)
def test_faults_are_read_from_the_clients_output(code: int, output: str, errors: str, fault: str | None) -> None:
    assert read_answer(code, output, errors).fault == fault


def test_the_upload_command(kaggle: Kaggle, workshop: Workshop, tmp_path: Path) -> None:
    kaggle.outputs = {"run_log.json": json.dumps(RUN_LOG).encode()}
    command = [sys.executable, str(ROOT / "build_kernel.py"), "upload", str(workshop.bundle), "--wait"]
    command += ["--pause", "0.1", "--out", str(tmp_path / "out")]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-1] == (
        "museum-owner/tiny-bundle-kernel/7: complete, 20 images in 0:04, 5.0 images/s on CPUExecutionProvider; "
        f"results in {tmp_path}/out"
    )
    assert KEY not in finished.stdout + finished.stderr
    assert not any(KEY in path.read_text() for path in (tmp_path / "out").iterdir())
    kaggle.faults = {"SaveKernel": [403]}
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 1 and finished.stderr.startswith("error: museum-owner/tiny-bundle-kernel: "), finished


def test_print_shows_the_commands_and_sends_no_request(kaggle: Kaggle, workshop: Workshop) -> None:
    command = [sys.executable, str(ROOT / "build_kernel.py"), "upload", str(workshop.bundle), "--print", "--wait"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    bundle, notes = workshop.bundle, f"vitrine {hash_file(workshop.dataset / MANIFEST_NAME)}"
    assert finished.stdout.splitlines() == [
        "kaggle datasets status museum-owner/tiny-bundle  # does the dataset exist?",
        "kaggle datasets download museum-owner/tiny-bundle -f weights_manifest.json  # is it this bundle?",
        f"kaggle datasets create -p {bundle}/dataset  # if it does not exist",
        f"kaggle datasets version -p {bundle}/dataset -m '{notes}'  # if it is another bundle",
        "kaggle datasets status museum-owner/tiny-bundle  # until ready",
        f"kaggle kernels push -p {bundle}/kernel",
        "kaggle kernels status museum-owner/tiny-bundle-kernel  # until COMPLETE",
        "kaggle kernels output museum-owner/tiny-bundle-kernel -p build/upload --force "
        r"--file-pattern '^(submission\.csv|run_log\.json)$'",
    ], finished.stderr
    assert kaggle.calls == []
