import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference.basics.errors import OutputError, TrainingError
from inference.images.geometry import Draft, Geometry
from inference.images.read import decode_image, read_picture, read_squares
from inference.manifest.model import Resize
from training.data.pictures import Pictures, check_pictures, find_pictures, locate_images, open_cache
from training.second_stage.member_scores import MemberScores, measure_evidence

GEOMETRY = Geometry((24, 24), Resize(), "bilinear")


def list_ids(museum: Path) -> list[str]:
    return sorted(path.stem for path in (museum / "train").iterdir())


@pytest.fixture
def train(museum: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(museum / "train", tmp_path / "train"))


def test_the_cache_holds_the_kernels_squares(museum: Path, tmp_path: Path) -> None:
    ids = list_ids(museum)
    paths = find_pictures(museum / "train", ids)
    squares, readable, faults = open_cache(paths, ids, GEOMETRY, tmp_path / "cache")
    assert isinstance(squares, np.memmap)
    assert readable.all() and not faults
    for row in (0, 31, 59):
        expected = read_squares(museum / "train" / f"{ids[row]}.png", [GEOMETRY])[GEOMETRY]
        assert np.array_equal(squares[row], expected)
        assert np.array_equal(np.asarray(Pictures(paths, squares).read(row)), expected)


def test_a_cache_is_reused_and_a_new_one_made_for_changed_images(train: Path, tmp_path: Path) -> None:
    ids = list_ids(train.parent)
    paths = find_pictures(train, ids)
    for _ in range(2):
        open_cache(paths, ids, GEOMETRY, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1
    Image.new("RGB", (9, 9), "white").save(train / f"{ids[0]}.png")
    squares, _, _ = open_cache(paths, ids, GEOMETRY, tmp_path / "cache")
    assert (squares[0] == 255).all()
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2


def test_a_reused_cache_still_names_broken_images(train: Path, tmp_path: Path) -> None:
    ids = list_ids(train.parent)
    (train / f"{ids[3]}.png").write_bytes(b"no picture")
    paths = find_pictures(train, ids)
    for _ in range(2):
        _, readable, faults = open_cache(paths, ids, GEOMETRY, tmp_path / "cache")
        assert list(np.flatnonzero(~readable)) == [3]
        assert len(faults) == 1 and faults[0].startswith(f"{ids[3]}.png: found text; wanted one of")
    assert list(np.flatnonzero(~check_pictures(paths)[0])) == [3]


def test_an_unfinished_cache_leaves_no_file(museum: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", refuse)
    ids = list_ids(museum)
    with pytest.raises(OutputError, match=r"24x24-\w+\.npy: cannot be written: No space left on device"):
        open_cache(find_pictures(museum / "train", ids), ids, GEOMETRY, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_the_error_counts_missing_images_and_names_five(train: Path) -> None:
    ids = list_ids(train.parent)
    for name in ids[10:17]:
        (train / f"{name}.png").unlink()
    message = f"{train}: no file for 7 of the 60 images of train.csv, such as {', '.join(ids[10:15])}; "
    with pytest.raises(TrainingError, match=re.escape(message + "add them, or skip them with --allow-missing")):
        find_pictures(train, ids)
    paths = find_pictures(train, ids, allow_missing=True)
    assert [place for place, path in enumerate(paths) if path is None] == list(range(10, 17))
    readable, faults = check_pictures(paths)
    assert list(np.flatnonzero(~readable)) == list(range(10, 17))
    assert not faults


def test_files_are_found_by_name_or_stem_also_through_links(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    for name in ("a b.jpg", "a b.png", "c.JPG", "notes.txt"):
        (tmp_path / "far" / name).touch()
        (tmp_path / "near" / name).symlink_to(tmp_path / "far" / name)
    near = tmp_path / "near"
    found = locate_images(near, ["a b", "a b.jpg", "c", "c.JPG", "notes", "d"])
    assert found == [near / "a b.png", near / "a b.jpg", near / "c.JPG", near / "c.JPG", None, None]
    assert locate_images(tmp_path / "none", ["a"]) == [None]


def test_squares_and_traits_come_from_reduced_jpegs_and_training_crops_do_not(museum: Path, tmp_path: Path) -> None:
    ids = list_ids(museum)[:3]
    for image in ids:
        with Image.open(museum / "train" / f"{image}.png") as drawn:
            drawn.convert("RGB").resize((160, 200)).save(tmp_path / f"{image}.jpg", quality=90)
    paths = find_pictures(tmp_path, ids)
    draft = Draft(1.0, frozenset([GEOMETRY]))
    pictures = Pictures(paths, draft=draft)
    scores = np.zeros((3, 1, 1), np.float16)
    evidence = MemberScores(("one",), (("tag",),), np.arange(3), scores, scores[0] > 0, np.zeros((3, 4), np.float32))
    traits = measure_evidence(evidence, ids, tmp_path, draft).traits
    for row, path in enumerate(paths):
        assert path is not None
        kernel, whole = (read_picture(path, [GEOMETRY], draft=allowed) for allowed in (draft, None))
        assert np.array_equal(pictures.show(row, [GEOMETRY])[GEOMETRY], kernel.squares[GEOMETRY])
        assert not np.array_equal(pictures.show(row, [GEOMETRY])[GEOMETRY], whole.squares[GEOMETRY])
        assert np.array_equal(Pictures(paths).show(row, [GEOMETRY])[GEOMETRY], whole.squares[GEOMETRY])
        assert np.array_equal(np.asarray(pictures.read(row)), np.asarray(decode_image(path).image))
        assert traits[row].tolist() == kernel.traits.tolist() != whole.traits.tolist()
