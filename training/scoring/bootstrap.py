"""Bootstrap intervals."""

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 9999
CONFIDENCE = 0.95


def bootstrap_mean(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of the mean, from the percentiles of the means of 9,999 resamples.

    Method: Efron, Bootstrap Methods, 1979. Percentiles, because the mean of thousands of values has no bias or skew for
    BCa to correct, and the time of BCa's jackknife grows with the square of their number.
    """
    from scipy.stats import bootstrap

    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, 4_000_000 // len(values)),  # 32 MB of resamples at a time
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
