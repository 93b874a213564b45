import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from inference.basics.errors import OutputError, StoreError
from inference.run.store import DATA, MARKS, RUN, Store

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


def damage(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "place", "detail"),
    [
        (DATA, 5, f"line 1 of {MARKS} does not fit {DATA}"),
        (DATA, -1, f"line 3 of {MARKS} does not fit {DATA}"),
        (MARKS, 0, f"line 1 of {MARKS} does not fit {DATA}"),
        (RUN, 0, f"{RUN} is not JSON"),
    ],
)
def test_a_damaged_store_is_refused(name: str, place: int, detail: str, tmp_path: Path) -> None:
    commit_three(tmp_path / "work")
    damage(tmp_path / "work" / name, place)
    with pytest.raises(StoreError) as error:
        Store(tmp_path / "work", IDENTITY, make_arrays())
    assert str(error.value) == f"{tmp_path}/work: damaged: {detail}; use --fresh to start over"


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
