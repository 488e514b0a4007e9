"""Quantiles are those of scipy.stats and of NumPy."""

import numpy as np
import pytest
from scipy.stats import chi2

from localizer_ros.core.statistics import chi2_quantile, median, percentile


@pytest.mark.parametrize("degrees", [1, 2, 3, 6, 100])
def test_quantiles_of_chi_squared(degrees: int) -> None:
    for probability in (0.0, 0.5, 0.9, 0.9999, 1.0 - 1e-9):
        # The same function of scipy.special.
        assert chi2_quantile(probability, degrees) == pytest.approx(chi2.ppf(probability, degrees), rel=1e-12)
    assert np.isinf(chi2_quantile(1.0, degrees))


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_percentiles_are_those_of_numpy(kind: type, rng: np.random.Generator) -> None:
    for count in (1, 2, 3, 10, 101, 1000):
        values = (50.0 * rng.uniform(size=count)).astype(kind)
        assert median(values) == pytest.approx(float(np.median(values)), rel=1e-6)
        for percent in (0.0, 20.0, 99.0, 100.0):
            assert percentile(values, percent) == pytest.approx(
                float(np.percentile(values, percent)), rel=1e-6
            )


def test_what_is_infinite_counts_where_it_is_among_the_middle_ones() -> None:
    assert median(np.array([1.0, np.inf, 3.0])) == 3.0
    assert median(np.array([1.0, np.inf])) == np.inf
