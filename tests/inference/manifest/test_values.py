"""Single values: image sizes and the grammar of views."""

import re

import pytest

from inference.manifest.values import CORNERS, ORIENTATIONS, ViewParts, is_size, is_view, read_size, split_view

GOOD = {
    "identity": ViewParts("identity"),
    "rot270": ViewParts("rot270"),
    "top_left": ViewParts("identity", "top_left"),
    "bottom_right+hflip": ViewParts("hflip", "bottom_right"),
    "scale_101": ViewParts("identity", scale=101),
    "scale_400+transverse": ViewParts("transverse", scale=400),
}
BAD = ["", "flip", "hflip+vflip", "top_left+", "top_left+identity", "scale_100", "scale_401", "scale_99", "scale_0125"]
BAD += ["scale_125top_left", "top_left+scale_125", "scale_125hflip", " hflip", "hflip\n"]


@pytest.mark.parametrize(("view", "parts"), GOOD.items())
def test_a_view_is_a_corner_or_a_scale_and_an_orientation(view: str, parts: ViewParts) -> None:
    assert split_view(view) == parts
    assert is_view(view)


@pytest.mark.parametrize("view", BAD)
def test_other_texts_are_no_views(view: str) -> None:
    assert not is_view(view)
    with pytest.raises(ValueError, match=f"^{re.escape(view)}$"):
        split_view(view)


def test_each_view_has_one_spelling_and_its_cut_is_a_view_without_a_scale() -> None:
    places = ["", *CORNERS, "scale_125"]
    views = [(f"{place}+{turn}" if place else turn) for place in places for turn in ORIENTATIONS]
    views = [view.removesuffix("+identity") for view in views]
    assert len({split_view(view) for view in views}) == len(views) == 48
    for view in views:
        cut = split_view(view).cut
        assert split_view(cut) == ViewParts(split_view(view).orientation, split_view(view).corner)
        assert cut == view or split_view(view).scale == 125


def test_a_size_is_a_side_or_height_and_width() -> None:
    assert read_size(96) == read_size((96, 96)) == (96, 96)
    assert read_size((1520, 912)) == (1520, 912)
    assert [is_size(size) for size in (8, 4096, (8, 4096))] == [True] * 3
    assert [is_size(size) for size in (7, 4097, (8,), (8, 8, 3), (8, 5000))] == [False] * 5
