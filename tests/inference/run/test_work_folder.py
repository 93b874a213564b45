import dataclasses
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from inference.basics.errors import ManifestError, OutputError, StoreError
from inference.basics.seal import seal, unseal
from inference.manifest.file import parse_manifest
from inference.manifest.labels import Labels
from inference.manifest.records import Manifest
from inference.run import work_folder
from inference.run.predict import read_job
from inference.run.state import TRAITS_NAME, Job, Request
from inference.run.store import MARKS
from inference.run.work_folder import check_room, describe_file, measure_submission, open_store
from inference.task.sample import Sample
from tests.conftest import Workshop
from tests.inference.run.small_run import MANIFEST, MODEL

CHUNK = 4
MARK = {"passes": ["tag/identity"], "precisions": {"tag": "fp16"}, "unreadable": {}}


@pytest.fixture
def request_own(own_workshop: Workshop, tmp_path: Path) -> Request:
    return Request(own_workshop.dataset, tmp_path / "s.csv", images=own_workshop.images, sample=own_workshop.sample)


def open_job(request: Request) -> Job:
    job = read_job(request)
    runtime = dataclasses.replace(job.manifest.runtime, batch_size=CHUNK)
    return dataclasses.replace(job, manifest=dataclasses.replace(job.manifest, runtime=runtime))


def commit_all(request: Request, **changes: Any) -> None:
    """Save a run that is complete; `changes`: of the mark of chunk 1."""
    job = open_job(request)
    store = open_store(job)
    for index, rows in enumerate(job.list_chunks()):
        job.predictions["tag"].array[rows.start : rows.stop] = index
        job.traits[rows.start : rows.stop] = index
        mark = {"chunk": index, **MARK, **(changes if index == 1 else {})}
        store.commit(rows.start, rows.stop, ["tag", TRAITS_NAME], mark)
    store.close()


def list_saved(request: Request) -> tuple[list[int], int, int]:
    """Return the chunks that a new run gets from the work folder, and the numbers of damaged and of changed ones."""
    job = open_job(request)
    store = open_store(job)
    store.close()
    saved = [mark["chunk"] for mark in store.marks]
    for index, rows in enumerate(job.list_chunks()):
        assert (job.predictions["tag"].array[rows.start : rows.stop] == index).all() == (index in saved)
        assert np.isnan(job.traits[rows.start : rows.stop]).all() == (index not in saved)
    return saved, store.damaged, store.changed


def exchange(images: Path, names: list[str], keep_times: bool) -> None:
    """Replace images by others of the same names and sizes."""
    for name in names:
        path = images / name
        found = path.stat()
        path.write_bytes(bytes(found.st_size))
        if keep_times:
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.parametrize("keep_times", [False, True])
def test_chunks_of_images_that_were_exchanged_for_others_of_the_same_size_are_predicted_again(
    keep_times: bool, request_own: Request
) -> None:
    commit_all(request_own)
    assert list_saved(request_own) == ([0, 1, 2, 3, 4], 0, 0)
    job = open_job(request_own)
    changed = [path.name for path in (job.paths[5], job.paths[16]) if path]
    exchange(request_own.images, changed, keep_times)
    assert list_saved(request_own) == ([0, 2, 3], 0, 2)


def test_the_target_of_a_linked_image_counts(request_own: Request) -> None:
    assert request_own.images
    elsewhere = request_own.images / "originals"
    elsewhere.mkdir()
    for path in list(request_own.images.glob("*.png")):
        path.symlink_to(path.rename(elsewhere / path.name))
    commit_all(request_own)
    exchange(elsewhere, [path.name for path in elsewhere.iterdir()], keep_times=True)
    assert list_saved(request_own) == ([], 0, 5)


def test_images_of_another_size_are_another_folder(request_own: Request) -> None:
    commit_all(request_own)
    with next(request_own.images.iterdir()).open("ab") as file:
        file.write(b"x")
    with pytest.raises(StoreError) as error:
        open_store(open_job(request_own))
    assert str(error.value) == (
        f"{request_own.out}.work: found a run with another folder of images; use --fresh to start over, "
        "or restore that folder of images"
    )


def test_images_that_are_missing_or_links_to_nothing_have_a_state_too(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("nothing")
    assert describe_file(None) == ("none", "")
    assert describe_file(tmp_path / "a.png") == ("a.png unreadable", "2")


WRONG = {
    "another chunk": {"chunk": 2},
    "a chunk that does not exist": {"chunk": 5},
    "a chunk below 0": {"chunk": -4},
    "a chunk as text": {"chunk": "1"},
    "true as a chunk": {"chunk": True},
    "an unknown pass": {"passes": ["tag/tiles"]},
    "no list of passes": {"passes": "tag/identity"},
    "a list of lists": {"passes": [["tag/identity"]]},
    "an unknown model": {"precisions": {"other": "fp32"}},
    "an unknown precision": {"precisions": {"tag": "fp8"}},
    "a list as precision": {"precisions": {"tag": []}},
    "no precisions": {"precisions": None},
    "an image of another chunk": {"unreadable": {"000000000000": "empty"}},
    "no reason": {"unreadable": {"00000000000e": None}},
    "no images": {"unreadable": []},
}


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_a_mark_that_this_run_cannot_have_made_costs_its_chunk(changes: dict[str, Any], request_own: Request) -> None:
    commit_all(request_own, **changes)
    assert list_saved(request_own) == ([0, 2, 3, 4], 1, 0)


def test_a_mark_may_have_an_unreadable_image_of_its_chunk(request_own: Request) -> None:
    own = open_job(request_own).ids[CHUNK]
    commit_all(request_own, unreadable={own: "empty"})
    assert list_saved(request_own) == ([0, 1, 2, 3, 4], 0, 0)


def test_a_mark_without_a_key_costs_its_chunk(request_own: Request) -> None:
    commit_all(request_own)
    path = request_own.out.with_name("s.csv.work") / MARKS
    lines = path.read_bytes().splitlines(keepends=True)
    document = unseal(lines[3])
    assert document is not None
    del document["mark"]["unreadable"]
    path.write_bytes(b"".join([*lines[:3], seal(document), *lines[4:]]))
    assert list_saved(request_own) == ([0, 1, 2, 4], 1, 0)


@pytest.mark.parametrize("change", ["precision", "list of images", "manifest"])
def test_another_run_is_refused_by_name(change: str, request_own: Request) -> None:
    commit_all(request_own)
    request, job = request_own, open_job(request_own)
    if change == "precision":
        job = dataclasses.replace(job, request=dataclasses.replace(request, precision="fp32"))
    elif change == "list of images":
        job = dataclasses.replace(job, sample=dataclasses.replace(job.sample, ids=job.ids[::-1]))
    else:
        path = request.bundle / "weights_manifest.json"
        path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(StoreError) as error:
        open_store(job)
    assert str(error.value) == (
        f"{request.out}.work: found a run with another {change}; use --fresh to start over, or restore that {change}"
    )


def test_a_disk_without_space_is_refused_and_saved_chunks_are_kept(
    request_own: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(request_own.out.parent)
    monkeypatch.setattr(work_folder.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OutputError) as error:
        open_store(open_job(request_own))
    assert str(error.value) == (
        f"{request_own.out.parent}: found 0.0 MB of free space; wanted 0.1 MB for predictions and submission; "
        "free some space or choose another folder with --out"
    )
    assert not request_own.out.with_name("s.csv.work").exists()
    monkeypatch.undo()
    commit_all(request_own)
    monkeypatch.setattr(work_folder.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OutputError):
        open_store(open_job(request_own))
    monkeypatch.undo()
    assert list_saved(request_own) == ([0, 1, 2, 3, 4], 0, 0)


def test_predictions_need_space_beside_the_saved_rows_and_two_submissions(
    request_own: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = open_job(request_own)
    store = open_store(job)
    needed = store.measure_need() + 2 * measure_submission(job.manifest.task, job.labels, job.sample)
    store.remove()
    kept = dataclasses.replace(job, request=dataclasses.replace(request_own, predictions=request_own.out.parent))
    size = sum(kept.array.nbytes for kept in job.predictions.values())
    usage = shutil.disk_usage(request_own.out.parent)
    for own, enough in ((job, needed), (kept, needed + size)):
        monkeypatch.setattr(work_folder.shutil, "disk_usage", lambda _, free=enough - 1: usage._replace(free=free))
        with pytest.raises(OutputError, match=r"MB of free space; wanted "):
            open_store(own)
        monkeypatch.setattr(work_folder.shutil, "disk_usage", lambda _, free=enough: usage._replace(free=free))
        open_store(own).remove()


def test_files_of_the_user_in_the_work_folder_are_never_deleted(request_own: Request) -> None:
    folder = request_own.out.with_name("s.csv.work")
    folder.mkdir()
    (folder / "thesis.txt").touch()
    open_store(open_job(request_own)).remove()
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def open_large(keep_top: int | None, kind: str = "multiclass") -> tuple[Manifest, Labels, Sample]:
    """Return the declaration and the sample of 40,000 images and 64,500 classes; nothing of that size is allocated."""
    names = tuple(f"c{column}" for column in range(64_500))
    groups = {"labels": {"file": "labels.csv", "sha256": "0" * 64, "groups": {"labels": ""}}}
    manifest = parse_manifest(
        MANIFEST
        | groups
        | {
            "models": [{"name": name, "group": "labels", **MODEL} for name in ("one", "two")],
            "ensemble": {"weights": {"labels": {"one": 1, "two": 1}}},
            "task": {
                "type": kind,
                "submission": {"top_k": 1} if kind == "multiclass" else {},
                "metric": {"average": "macro"} if kind == "multiclass" else {},
            },
            "decision": (
                {"rule": "ranked", "groups": {}, "prior": {}, "prior_scores": [0.0]}
                if kind == "multiclass"
                else {"groups": {"labels": {"threshold": 0.5, "minimum": 0, "maximum": 2}}, "prior": {"labels": [1]}}
            ),
            "runtime": {"keep_top": keep_top},
        }
    )
    labels = Labels(tuple(range(64_500)), names, {"labels": tuple(range(64_500))})
    return manifest, labels, Sample(("id", "attribute_ids"), tuple(map(str, range(40_000))))


KEEP = "keep fewer scores per image, such as 100"
FOUND = "found 4,000 MB of memory and 2,000 MB of disk free"


@pytest.mark.parametrize(
    ("kind", "keep", "key", "needed", "remedy"),
    [
        ("multiclass", None, "`runtime.keep_top`: found null", (10_320, 10_331), KEEP),
        ("multiclass", 9000, "`runtime.keep_top`: found 9000", (4320, 4331), KEEP),
        ("multilabel", None, "`models`: found 2", (10_320, 10_330), "remove models, or use a larger machine"),
    ],
)
def test_too_many_scores_for_the_memory_are_refused_with_the_need_before_they_are_allocated(
    kind: str, keep: int | None, key: str, needed: tuple[int, int], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_folder, "measure_available", lambda: 4e9)
    monkeypatch.setattr(work_folder.shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * 10**9))
    with pytest.raises(ManifestError) as error:
        check_room(Request(Path("bundle"), Path("s.csv")), *open_large(keep, kind))
    assert str(error.value) == (
        f"weights_manifest.json: {key}; the scores of 40000 images, 64500 labels and 2 models need {needed[0]:,} MB of "
        f"memory and {needed[1]:,} MB of disk; {FOUND}; {remedy}"
    )


def test_a_few_scores_per_image_fit_and_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    request = Request(Path("bundle"), tmp_path / "s.csv", predictions=tmp_path)
    monkeypatch.setattr(work_folder, "measure_available", lambda: 49e6)  # 2 models of 100 * 6 bytes per image
    monkeypatch.setattr(work_folder.shutil, "disk_usage", lambda _: SimpleNamespace(free=108 * 10**6))
    check_room(request, *open_large(100))
    monkeypatch.setattr(work_folder.shutil, "disk_usage", lambda _: SimpleNamespace(free=106 * 10**6))
    with pytest.raises(ManifestError, match=r"need 48 MB of memory and 107 MB of disk; found 49 MB of memory and 106 "):
        check_room(request, *open_large(100))
    (tmp_path / "s.csv.work").mkdir()
    check_room(request, *open_large(100))  # an earlier run's scores may be in the folder; `open_store` looks
