"""Quantiles are those of scipy.stats."""

import numpy as np
import pytest
from scipy.stats import chi2

from localizer_ros.core.statistics import chi2_quantile


@pytest.mark.parametrize("degrees", [1, 2, 3, 6, 100])
def test_quantiles_of_chi_squared(degrees: int) -> None:
    for probability in (0.0, 0.5, 0.9, 0.9999, 1.0 - 1e-9):
        # The same function of scipy.special.
        assert chi2_quantile(probability, degrees) == pytest.approx(chi2.ppf(probability, degrees), rel=1e-12)
    assert np.isinf(chi2_quantile(1.0, degrees))
