import errno
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.basics.errors import OutputError, StoreError
from inference.basics.seal import seal, unseal
from inference.run.store import DATA, MARKS, RUN, Checks, Store

IDENTITY = {"manifest": "1", "list of images": "2"}


def make_arrays() -> dict[str, np.ndarray]:
    return {"m": np.full((10, 3), np.nan, np.float16), "traits": np.full((10, 2), np.nan, np.float32)}


def fill(arrays: dict[str, np.ndarray], start: int, stop: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    for array in arrays.values():
        array[start:stop] = random.random((stop - start, array.shape[1]))


def commit_three(folder: Path) -> list[dict[str, np.ndarray]]:
    """Commit three times, the third time over rows of the first; return the arrays after each commit."""
    arrays = make_arrays()
    store = Store(folder, IDENTITY, arrays)
    states = [{name: array.copy() for name, array in arrays.items()}]
    for seed, (start, stop, names) in enumerate([(0, 4, ["m", "traits"]), (4, 8, ["traits", "m"]), (0, 4, ["m"])]):
        fill({name: arrays[name] for name in names}, start, stop, seed)
        store.commit(start, stop, names, {"seed": seed})
        states.append({name: array.copy() for name, array in arrays.items()})
    store.close()
    return states


def assert_equal(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


def test_committed_rows_are_restored_and_the_last_commit_of_a_row_counts(tmp_path: Path) -> None:
    states = commit_three(tmp_path / "work")
    arrays = make_arrays()
    store = Store(tmp_path / "work", IDENTITY, arrays)
    assert [mark["seed"] for mark in store.marks] == [0, 1, 2]
    assert_equal(arrays, states[-1])
    store.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_store_cut_at_any_byte_by_a_kill_has_all_complete_commits_and_continues(tmp_path: Path) -> None:
    states = commit_three(tmp_path / "whole")
    # Each commit writes its rows, then its mark. A kill leaves a part of the last write.
    marks = (tmp_path / "whole" / MARKS).read_bytes().splitlines(keepends=True)
    data = (tmp_path / "whole" / DATA).read_bytes()
    sizes = [4 * 3 * 2 + 4 * 2 * 4, 4 * 3 * 2 + 4 * 2 * 4, 4 * 3 * 2]
    assert sum(sizes) == len(data)
    cuts = []
    for number in range(3):
        before, lines = sum(sizes[:number]), b"".join(marks[:number])
        cuts += [(number, before + size, lines) for size in range(sizes[number])]
        after = before + sizes[number]
        cuts += [(number, after, lines + marks[number][:size]) for size in range(len(marks[number]))]
    for number, size, lines in cuts[::7]:
        shutil.copytree(tmp_path / "whole", tmp_path / "cut")
        (tmp_path / "cut" / DATA).write_bytes(data[:size])
        (tmp_path / "cut" / MARKS).write_bytes(lines)
        arrays = make_arrays()
        store = Store(tmp_path / "cut", IDENTITY, arrays)
        assert [mark["seed"] for mark in store.marks] == list(range(number))
        assert_equal(arrays, states[number])
        fill(arrays, 8, 10, 99)
        store.commit(8, 10, ["m", "traits"], {"seed": 99})
        store.close()
        again = make_arrays()
        store = Store(tmp_path / "cut", IDENTITY, again)
        assert_equal(again, arrays)
        store.remove()


@pytest.mark.parametrize("name", IDENTITY)
def test_a_store_of_another_run_is_refused_with_the_difference_and_fresh_starts_over(name: str, tmp_path: Path) -> None:
    commit_three(tmp_path / "work")
    other = IDENTITY | {name: "another"}
    with pytest.raises(StoreError) as error:
        Store(tmp_path / "work", other, make_arrays())
    assert str(error.value) == (
        f"{tmp_path}/work: found a run with another {name}; use --fresh to start over, or restore that {name}"
    )
    arrays = make_arrays()
    store = Store(tmp_path / "work", other, arrays, fresh=True)
    assert store.marks == [] and np.isnan(arrays["m"]).all()
    store.close()
    Store(tmp_path / "work", other, make_arrays()).close()


def test_a_store_with_another_array_shape_is_of_another_run(tmp_path: Path) -> None:
    commit_three(tmp_path / "work")
    arrays = make_arrays() | {"m": np.zeros((10, 4), np.float16)}
    with pytest.raises(StoreError, match="found a run with another array m; use --fresh"):
        Store(tmp_path / "work", IDENTITY, arrays)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "place", "seeds"),
    [
        (DATA, 5, [1]),  # the rows of commit 0, on which commit 2 builds
        (DATA, -1, [0, 1]),
        (MARKS, 0, [1]),
        (MARKS, -2, [0, 1]),
        (RUN, 5, [0, 1, 2]),
    ],
)
def test_damage_costs_the_commit_and_those_that_build_on_it(
    name: str, place: int, seeds: list[int], tmp_path: Path
) -> None:
    states = commit_three(tmp_path / "work")
    flip(tmp_path / "work" / name, place)
    for _ in range(2):  # what was dropped stays so
        arrays = make_arrays()
        store = Store(tmp_path / "work", IDENTITY, arrays)
        assert [mark["seed"] for mark in store.marks] == seeds
        wanted = states[-1] if 2 in seeds else states[2]
        for array_name, array in wanted.items():
            np.testing.assert_array_equal(arrays[array_name][4:8], array[4:8] if 1 in seeds else np.nan)
            np.testing.assert_array_equal(arrays[array_name][:4], array[:4] if 0 in seeds else np.nan)
        store.close()


def test_a_bit_of_the_mark_that_names_another_chunk_is_noticed(tmp_path: Path) -> None:
    commit_three(tmp_path / "work")
    path = tmp_path / "work" / MARKS
    path.write_bytes(path.read_bytes().replace(b'"start": 4, "stop": 8', b'"start": 0, "stop": 4'))
    store = Store(tmp_path / "work", IDENTITY, make_arrays())
    assert ([mark["seed"] for mark in store.marks], store.damaged) == ([0, 2], 1)
    store.close()


def test_dropped_chunks_are_predicted_again_and_saved_behind_the_others(tmp_path: Path) -> None:
    states = commit_three(tmp_path / "work")
    flip(tmp_path / "work" / DATA, 5)
    arrays = make_arrays()
    store = Store(tmp_path / "work", IDENTITY, arrays)
    for name in arrays:
        arrays[name][:4] = states[1][name][:4]
    store.commit(0, 4, ["m", "traits"], {"seed": 7})
    store.close()
    again = make_arrays()
    store = Store(tmp_path / "work", IDENTITY, again)
    assert ([mark["seed"] for mark in store.marks], store.damaged) == ([1, 7], 0)
    assert_equal(again, states[2])
    store.close()


def test_without_run_json_the_commits_of_another_run_are_not_used(tmp_path: Path) -> None:
    states = commit_three(tmp_path / "work")
    (tmp_path / "work" / RUN).unlink()
    arrays = make_arrays()
    store = Store(tmp_path / "work", IDENTITY, arrays)
    assert_equal(arrays, states[-1])
    store.close()
    (tmp_path / "work" / RUN).unlink()
    arrays = make_arrays()
    store = Store(tmp_path / "work", IDENTITY | {"manifest": "another"}, arrays)
    assert (store.marks, store.damaged) == ([], 0) and np.isnan(arrays["m"]).all()
    store.close()


def test_commits_of_images_that_were_changed_since_are_not_used(tmp_path: Path) -> None:
    versions = dict.fromkeys(range(10), "1")
    checks = Checks(describe_files=lambda start, stop: "".join(versions[row] for row in range(start, stop)))
    arrays = make_arrays()
    store = Store(tmp_path / "work", IDENTITY, arrays, checks=checks)
    for start in (0, 4):
        fill(arrays, start, start + 4, start)
        store.commit(start, start + 4, ["m"], {"seed": start})
    fill(arrays, 4, 8, 9)
    store.commit(4, 8, ["m"], {"seed": 9})
    store.close()
    versions[5] = "2"
    again = make_arrays()
    store = Store(tmp_path / "work", IDENTITY, again, checks=checks)
    assert ([mark["seed"] for mark in store.marks], store.changed, store.damaged) == ([0], 1, 0)
    assert np.isnan(again["m"][4:]).all()
    store.close()


CHANGES = {
    "a start below 0": {"start": -2},
    "no rows": {"stop": 0},
    "more rows than there are": {"stop": 11},
    "rows that overlap with another commit's": {"stop": 5},
    "text as a number": {"start": "0"},
    "true as a number": {"start": False},
    "not a number": {"crc": float("nan")},
    "a place outside of the file": {"offset": 10**30},
    "a place below 0": {"offset": -1},
    "an unknown array": {"arrays": ["other"]},
    "an array twice": {"arrays": ["m", "m"]},
    "no list of arrays": {"arrays": "m"},
    "a list of lists": {"arrays": [["m"]]},
    "no mark": {"mark": None},
    "an unknown key": {"more": 1},
    "a mark that the run refuses": {"mark": {"seed": "?"}},
    "another predecessor": {"after": "0123456789abcdef"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_line_with_a_right_checksum_and_wrong_content_is_dropped(change: dict[str, Any], tmp_path: Path) -> None:
    commit_three(tmp_path / "work")
    path = tmp_path / "work" / MARKS
    first, *others = path.read_bytes().splitlines(keepends=True)
    document = unseal(first)
    assert document is not None
    path.write_bytes(b"".join([seal(document | change), *others]))
    arrays = make_arrays()
    checks = Checks(accept=lambda start, stop, mark: isinstance(mark["seed"], int))
    store = Store(tmp_path / "work", IDENTITY, arrays, checks=checks)
    assert [mark["seed"] for mark in store.marks] == [1] and store.damaged >= 1
    assert np.isnan(arrays["m"][:4]).all()
    store.close()


@pytest.mark.parametrize(
    "content",
    [b"\n" * 1000, b"x" * 100_000, b"x" * 40_000_000, b"[" * 100_000 + b"\n", b"\0" * 1000, b"null\n", seal({"a": 1})],
    ids=["empty lines", "one line", "a line of 40 MB", "nested", "zeros", "null", "another document"],
)
@pytest.mark.parametrize("name", [RUN, MARKS, DATA])
def test_a_file_of_anything_is_no_traceback(name: str, content: bytes, tmp_path: Path) -> None:
    commit_three(tmp_path / "work")
    (tmp_path / "work" / name).write_bytes(content)
    arrays = make_arrays()
    try:
        store = Store(tmp_path / "work", IDENTITY, arrays)
    except StoreError as error:
        assert "found a run with another manifest" in str(error) and name == RUN and content == seal({"a": 1})
    else:
        assert len(store.marks) == (3 if name == RUN else 0)
        store.close()


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        (MARKS, Path.mkdir, "{path}: cannot be opened: Is a directory; delete {folder} or choose another --out"),
        (MARKS, os.mkfifo, "{path}: is a device or pipe; delete {folder} or choose another --out"),
        (DATA, Path.mkdir, "{path}: cannot be opened: Is a directory; delete {folder} or choose another --out"),
        (DATA, os.mkfifo, "{path}: is a device or pipe; delete {folder} or choose another --out"),
        (
            DATA,
            lambda path: path.symlink_to("/etc/hostname"),
            "{path}: cannot be opened: Too many levels of symbolic links; delete {folder} or choose another --out",
        ),
        (RUN, Path.mkdir, "{path}: cannot be written: Is a directory"),
    ],
)
def test_a_folder_a_pipe_or_a_link_in_place_of_a_file_is_refused(
    name: str, make: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    commit_three(tmp_path / "work")
    path = tmp_path / "work" / name
    path.unlink()
    make(path)
    with pytest.raises(OutputError) as error:
        Store(tmp_path / "work", IDENTITY, make_arrays())
    assert str(error.value) == message.format(path=path, folder=path.parent)


def test_a_pipe_in_place_of_run_json_is_replaced(tmp_path: Path) -> None:
    commit_three(tmp_path / "work")
    (tmp_path / "work" / RUN).unlink()
    os.mkfifo(tmp_path / "work" / RUN)
    store = Store(tmp_path / "work", IDENTITY, make_arrays())
    assert len(store.marks) == 3 and (tmp_path / "work" / RUN).is_file()
    store.close()


def spoil(content: bytes, random: np.random.Generator) -> bytes:
    """Change a file as a failing disk, a kill or a careless user might."""
    lines = content.splitlines(keepends=True)
    place, other = (int(random.integers(len(content) + 1)) for _ in range(2))
    first, second = (int(random.integers(len(lines) or 1)) for _ in range(2))
    kind = int(random.integers(9))
    if kind <= 2 and content:
        changed = bytearray(content)
        for _ in range(10 if kind == 2 else 1):
            at = int(random.integers(len(content)))
            # Another bit, or another digit: that keeps JSON valid.
            changed[at] = 48 + at % 10 if kind == 1 and chr(changed[at]).isdigit() else changed[at] ^ (1 << at % 8)
        return bytes(changed)
    if kind == 3:
        return content[:place]
    if kind == 4:
        return content[: min(place, other)] + content[max(place, other) :]
    if kind == 5:
        return content[:place] + random.bytes(other % 50) + content[place:]
    if kind == 6 and lines:
        return b"".join([*lines[:first], lines[second], *lines[first:]])
    if kind == 7 and lines:
        lines[first], lines[second] = lines[second], lines[first]
        return b"".join(lines)
    return b"".join(line for index, line in enumerate(lines) if index != first)


def test_no_damage_of_the_files_gives_a_wrong_row(tmp_path: Path) -> None:
    random = np.random.default_rng(17)
    truth = {name: random.random((12, array.shape[1])).astype(array.dtype) for name, array in make_arrays().items()}

    def make() -> dict[str, np.ndarray]:
        return {name: np.full_like(array, np.nan) for name, array in truth.items()}

    def commit_missing(store: Store, arrays: dict[str, np.ndarray]) -> None:
        """As a run does: two passes of each chunk, of which the rows hold the mean."""
        for part in ("one", "two"):
            for chunk in range(4):
                done = [mark["part"] for mark in store.marks if mark["chunk"] == chunk]
                if part not in done:
                    rows = slice(3 * chunk, 3 * chunk + 3)
                    arrays["m"][rows] = truth["m"][rows] * (len(done) + 1)
                    names = ["m"] if done else ["m", "traits"]
                    arrays["traits"][rows] = truth["traits"][rows]
                    store.commit(rows.start, rows.stop, names, {"chunk": chunk, "part": part})

    def check(store: Store, arrays: dict[str, np.ndarray]) -> None:
        for chunk in range(4):
            done = [mark["part"] for mark in store.marks if mark["chunk"] == chunk]
            rows = slice(3 * chunk, 3 * chunk + 3)
            assert len(set(done)) == len(done)
            wanted = truth["m"][rows] * len(done) if done else np.full((3, 3), np.nan)
            np.testing.assert_array_equal(arrays["m"][rows], wanted.astype(np.float16))
            wanted = truth["traits"][rows] if done else np.full((3, 2), np.nan)
            np.testing.assert_array_equal(arrays["traits"][rows], wanted)

    arrays, outcomes = make(), []
    with closing(Store(tmp_path / "whole", IDENTITY, arrays)) as store:
        commit_missing(store, arrays)
    for number in range(120):
        shutil.copytree(tmp_path / "whole", tmp_path / "work")
        for name in random.choice([RUN, DATA, MARKS], random.integers(1, 3), p=[0.1, 0.3, 0.6]):
            path = tmp_path / "work" / name
            path.write_bytes(spoil(path.read_bytes(), random))
        if number % 20 == 0:
            (tmp_path / "work" / str(random.choice([RUN, DATA, MARKS]))).unlink()
        arrays = make()
        with closing(Store(tmp_path / "work", IDENTITY, arrays)) as store:
            check(store, arrays)
            outcomes.append(len(store.marks))
            commit_missing(store, arrays)
        arrays = make()
        with closing(Store(tmp_path / "work", IDENTITY, arrays)) as store:
            check(store, arrays)
            assert len(store.marks) == 8 and store.damaged == 0
            store.remove()
    assert set(outcomes) == set(range(9)), "all kinds of damage occur"


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "work", IDENTITY, make_arrays())
    with pytest.raises(StoreError, match="in use by another run; wait for it or choose another --out"):
        Store(tmp_path / "work", IDENTITY, make_arrays(), fresh=True)
    store.close()


def test_the_needed_space_is_that_of_the_missing_rows(tmp_path: Path) -> None:
    arrays = make_arrays()
    store = Store(tmp_path / "work", IDENTITY, arrays)
    before = store.measure_need()
    assert before >= sum(array.nbytes for array in arrays.values())
    store.commit(0, 4, ["m", "traits"], {})
    assert before - store.measure_need() == 4 * 3 * 2 + 4 * 2 * 4
    store.close()


def test_the_lines_take_a_fiftieth_of_the_rows_and_64_kib_at_most(tmp_path: Path) -> None:
    arrays = {"m": np.zeros((5000, 20), np.float16)}  # 200,000 bytes
    store = Store(tmp_path / "work", IDENTITY, arrays)
    for need in (200_000 + 4_000 + 65_536, 4_000 + 65_536, 65_536):
        assert store.measure_need() == need
        store.commit(0, 5000, ["m"], {})  # a second time for further views
    store.close()


def test_the_identity_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, synced = os.fsync, list[int]()

    def sync(handle: int) -> None:
        synced.append(os.fstat(handle).st_size)
        real(handle)

    monkeypatch.setattr(os, "fsync", sync)
    Store(tmp_path / "work", IDENTITY, make_arrays()).close()
    assert synced[0] == (tmp_path / "work" / RUN).stat().st_size


def test_a_full_disk_is_an_error_and_earlier_commits_stay_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = make_arrays()
    store = Store(tmp_path / "work", IDENTITY, arrays)
    fill(arrays, 0, 4, 0)
    store.commit(0, 4, ["m"], {})

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OutputError, match=r"work: cannot be written: No space left on device$"):
            store.commit(4, 8, ["m"], {})
    store.close()
    again = make_arrays()
    store = Store(tmp_path / "work", IDENTITY, again)
    assert len(store.marks) == 1
    np.testing.assert_array_equal(again["m"][:4], arrays["m"][:4])
    store.close()
