import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.basics.errors import InputError, OutputError
from inference.basics.files import (
    TEMPORARY,
    hash_file,
    hold_temporary,
    make_folder,
    open_regular,
    read_text,
    remove_leftovers,
    replace_file,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.mark.parametrize("read", [read_text, hash_file])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file"),
        (os.mkfifo, "is a device or pipe; wanted a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device or pipe; wanted a regular file"),
        (Path.mkdir, "cannot be read: Is a directory"),
        (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
    ],
    ids=["missing", "pipe", "device", "folder", "loop"],
)
def test_what_is_no_regular_file_is_refused_at_once(
    make: Callable[[Path], None], message: str, read: Callable[[Path], str], tmp_path: Path
) -> None:
    make(tmp_path / "x")
    with pytest.raises(InputError) as error:
        read(tmp_path / "x")
    assert str(error.value) == f"{tmp_path}/x: {message}"


def test_a_link_to_a_regular_file_is_followed_and_text_is_utf_8(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("größe", encoding="utf-8")
    (tmp_path / "link").symlink_to("x")
    assert read_text(tmp_path / "link") == "größe"
    (tmp_path / "x").write_bytes(b"gr\xf6\xdfe")
    with pytest.raises(InputError) as error:
        read_text(tmp_path / "x")
    assert str(error.value) == (
        f"{tmp_path}/x: cannot be read: 'utf-8' codec can't decode byte 0xf6 in position 2: invalid start byte"
    )


def test_a_failure_while_reading_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(InputError) as error, open_regular(tmp_path / "x"):
        raise OSError(5, os.strerror(5))
    assert str(error.value) == f"{tmp_path}/x: cannot be read: Input/output error"


@as_root
def test_files_of_another_user_are_refused_with_their_names(tmp_path: Path) -> None:
    (tmp_path / "x").touch(mode=0o600)
    tmp_path.chmod(0o755)
    # In the folder itself: the user may not enter the folders above it.
    program = """
import os, sys
from pathlib import Path
from inference.basics.errors import VitrineError
from inference.basics.files import hash_file, make_folder, replace_file
os.chdir(sys.argv[1])
os.setuid(65534)
def write(path):
    with replace_file(path) as temporary:
        temporary.touch()
for work in (hash_file, make_folder, write):
    try:
        work(Path("x" if work is hash_file else "new"))
    except VitrineError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "x: cannot be read: Permission denied\n"
        "new: cannot create the folder: Permission denied\n"
        "new: cannot be written: Permission denied\n"
    )


def test_a_file_is_replaced_at_the_end_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with replace_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    with pytest.raises(OutputError) as error, replace_file(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, os.strerror(28))
    assert str(error.value) == f"{path}: cannot be written: No space left on device"
    assert path.read_text() == "new" and [file.name for file in tmp_path.iterdir()] == ["x"]


def test_the_rights_of_a_new_file_are_the_users_default(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replace_file(tmp_path / "x"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_temporary_files_of_killed_processes_are_deleted_and_those_of_others_kept(tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from inference.basics.files import replace_file
with replace_file(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "submission.csv")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        (tmp_path / ".mine.0123abcd.tmp").touch()
        with hold_temporary(tmp_path / "submission.csv") as own:
            make_folder(tmp_path)
            left = {path.name for path in tmp_path.iterdir()}
            assert len(left) == 3 and {own.name, ".mine.0123abcd.tmp"} < left, "both are in use"
        process.send_signal(signal.SIGKILL)
    assert sum(bool(TEMPORARY.fullmatch(path.name)) for path in tmp_path.iterdir()) == 1
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".mine.0123abcd.tmp"]


def test_leftovers_of_a_folder_that_cannot_be_listed_are_no_error(tmp_path: Path) -> None:
    remove_leftovers(tmp_path / "missing")
