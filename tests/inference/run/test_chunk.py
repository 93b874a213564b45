import numpy as np
import pytest

from inference.run.chunk import add_to_mean


@pytest.mark.parametrize("before", [0, 1, 3])
def test_further_views_join_the_mean_with_their_number(before: int) -> None:
    random = np.random.default_rng(before)
    views = random.random((6, 4, 2)).astype(np.float32)  # (views, rows, labels)
    predictions = np.full((9, 2), np.nan, np.float16)
    rows = [1, 3, 4, 8]
    if before:
        predictions[rows] = views[:before].mean(axis=0)
    parts = [(1, views[before]), (5 - before, views[before + 1 :].mean(axis=0))]
    add_to_mean(predictions, rows, parts, before)
    np.testing.assert_allclose(predictions[rows], views.mean(axis=0), atol=1e-3)
    assert np.isnan(predictions[[0, 2, 5, 6, 7]]).all()
