"""What every test shares: an explicit generator and one z-test with one declared failure rate."""

from statistics import NormalDist

import pytest
import torch
from torch import Tensor

FAILURE_RATE = 1e-6  # of any one Monte Carlo comparison, when the code is right


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20140416)


def assert_within_se(draws: Tensor, expected: Tensor | float) -> None:
    """Assert that the mean of `draws` over axis 0 agrees with `expected`, elementwise.

    A z-test with the standard error of the draws themselves; the number of comparisons is allowed
    for (Bonferroni), so that the whole assertion fails by chance at `FAILURE_RATE`.
    """
    draws = draws.detach().double()
    expected = torch.as_tensor(expected, dtype=torch.double)
    mean = draws.mean(0)
    se = draws.std(0) / draws.shape[0] ** 0.5
    limit = NormalDist().inv_cdf(1 - FAILURE_RATE / (2 * mean.numel()))
    z = (mean - expected).abs() / se.clamp_min(1e-12)
    assert z.max() <= limit, f"mean {mean} ± {se} is {z.max():.1f} standard errors from {expected}"
