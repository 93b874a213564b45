import math

import numpy as np
import pytest

from inference.basics.logarithms import SMALLEST, take_logarithms


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_logarithms_are_those_of_math_and_finite_for_0(dtype: type) -> None:
    scores = np.array([[0.0, 1e-9, 0.5], [1.0, 0.03125, 0.75]], dtype)
    found = take_logarithms(scores)
    wanted = [[math.log(max(float(score), float(SMALLEST))) for score in row] for row in scores]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
