"""The transforms of a batch."""

from typing import get_args

import numpy as np
import pytest

from inference.manifest.values import View
from inference.models.views import VIEWS

BATCH = np.random.default_rng(1).integers(0, 256, (2, 3, 4, 3), dtype=np.uint8)


def test_every_view_of_the_manifest_has_a_transform_in_the_graphs_order() -> None:
    assert tuple(VIEWS) == get_args(View)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_of_a_view_is_the_image(view: View) -> None:
    np.testing.assert_array_equal(VIEWS[view](VIEWS[view](BATCH)), BATCH)
    assert VIEWS[view](BATCH).flags.c_contiguous


def test_a_horizontal_flip_exchanges_left_and_right() -> None:
    np.testing.assert_array_equal(VIEWS["hflip"](BATCH), np.flip(BATCH, axis=2))
    np.testing.assert_array_equal(VIEWS["identity"](BATCH), BATCH)
