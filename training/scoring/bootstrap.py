"""Bootstrap intervals."""

import numpy as np
from numpy.typing import NDArray

from zoo.metrics.scoring import Scoring, Summary

RESAMPLES = 9999
"""Of the mean of a figure per image."""
FEWEST, MOST = 99, 999
"""Of other metrics, as each resample costs a whole computation of the metric."""
MOST_CELLS = 2_000_000_000
"""Numbers in all resamples of one summary; about 20 s."""
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


def bootstrap_difference(scoring: Scoring, one: Summary, other: Summary, seed: int) -> tuple[float, float, float]:
    """Return by how much `one` is better than `other`, and the 95 % confidence interval, by a paired bootstrap.

    `one`, `other`: summaries of the same images. For a metric that is no mean, the interval is from the percentiles of
    the differences of 999 resamples of the images, or fewer (`count_resamples`). Equal summaries differ by 0.
    """
    if np.array_equal(one, other):
        return 0.0, 0.0, 0.0
    if scoring.is_mean:
        gains = one - other if scoring.higher_is_better else other - one
        return float(gains.mean()), *bootstrap_mean(gains, seed)
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count_resamples(scoring, one)):
        drawn = random.integers(len(one), size=len(one))
        found.append(scoring.find_gain(scoring.total(one[drawn]), scoring.total(other[drawn])))
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(found, [tail, 100 - tail])
    return scoring.find_gain(scoring.total(one), scoring.total(other)), float(low), float(high)


def count_resamples(scoring: Scoring, summary: Summary) -> int:
    """Return the number of resamples of `bootstrap_difference`, fewer for large summaries."""
    return RESAMPLES if scoring.is_mean else int(np.clip(MOST_CELLS // summary.size, FEWEST, MOST))
