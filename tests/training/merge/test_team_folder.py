import os
from pathlib import Path

import pytest

from inference.basics.errors import OutputError
from training.merge.team_folder import TeamFolder, build_folder


def test_files_are_linked_or_copied_and_keep_their_names_unless_another_file_has_them(tmp_path: Path) -> None:
    for owner in "ab":
        (tmp_path / owner).mkdir()
        (tmp_path / owner / "net.pth").write_text(owner)
    for copy in (False, True):
        folder = tmp_path / f"team {copy}"
        folder.mkdir()
        team = TeamFolder(folder, copy=copy)
        places = [team.place(tmp_path / owner / "net.pth", "nets/net.pth") for owner in "aba"]
        assert places == ["nets/net.pth", "nets/net_2.pth", "nets/net.pth"]
        assert team.reserve("nets/net.pth")[0] == "nets/net_3.pth"
        assert [(folder / place).read_text() for place in places] == ["a", "b", "a"]
        assert (folder / "nets/net.pth").samefile(tmp_path / "a" / "net.pth") != copy


def test_a_link_becomes_the_file_itself(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_text("a")
    (tmp_path / "link.pth").symlink_to("net.pth")
    (tmp_path / "team").mkdir()
    TeamFolder(tmp_path / "team", copy=False).place(tmp_path / "link.pth", "net.pth")
    assert not (tmp_path / "team" / "net.pth").is_symlink() and (tmp_path / "team" / "net.pth").read_text() == "a"


def test_where_no_link_can_be_made_the_file_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "net.pth").write_text("a")
    TeamFolder(tmp_path, copy=False).place(tmp_path / "net.pth", "copy.pth")
    assert (tmp_path / "copy.pth").read_text() == "a"


def test_an_existing_folder_is_kept_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "team").mkdir()
    with pytest.raises(OutputError) as error, build_folder(tmp_path / "team"):
        pass
    assert str(error.value) == f"{tmp_path / 'team'}: exists; choose a new folder with --out"
    with pytest.raises(ValueError, match="broken"), build_folder(tmp_path / "new") as folder:
        (folder / "half").write_text("x")
        raise ValueError("broken")
    assert [path.name for path in tmp_path.iterdir()] == ["team"]
