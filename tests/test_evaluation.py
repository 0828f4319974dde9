import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.distributions import Bernoulli, Normal

from tests.conftest import assert_within_se
from vaecourse.evaluation import (
    Estimate,
    active_units,
    in_batches,
    log_likelihood,
    mean_and_se,
    pixel_entropy,
)


def test_mean_and_se_by_hand() -> None:
    estimate = mean_and_se(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert estimate.mean == 3 and estimate.se == pytest.approx(math.sqrt(14 / 3 / 4))
    assert str(Estimate(-100.126, 0.254)) == "-100.13 ± 0.25"


def test_a_single_value_has_no_standard_error() -> None:
    with pytest.raises(ValueError, match="at least 2 values, not 1"):
        mean_and_se(torch.ones(1))


def test_in_batches_gives_what_one_call_gives_and_no_gradient() -> None:
    x = torch.rand(97, 3, requires_grad=True)
    values = in_batches(lambda batch: batch.sum(1), x, batch_size=10)
    assert torch.equal(values, x.sum(1)) and not values.requires_grad


def linear_gaussian_log_w(x: Tensor, K: int, generator: torch.Generator | None) -> Tensor:
    """z ~ N(0, 1), x | z ~ N(z, 1), proposal the prior: log-weights are ln p(x | z)."""
    z = torch.randn(K, len(x), generator=generator, dtype=x.dtype)
    return Normal(z, 1.0).log_prob(x[:, 0])


def test_log_likelihood_converges_to_the_exact_marginal(generator: torch.Generator) -> None:
    x = torch.tensor([[-1.0], [0.3], [2.0]], dtype=torch.double)
    exact = Normal(0.0, math.sqrt(2)).log_prob(x[:, 0])
    repeats = torch.stack(
        [log_likelihood(linear_gaussian_log_w, x, 150, generator).exp() for _ in range(300)]
    )
    assert_within_se(repeats, exact.exp())


def test_log_likelihood_does_not_depend_on_how_draws_are_split_into_passes() -> None:
    x = torch.randn(5, 1, generator=torch.Generator().manual_seed(0))
    draws = torch.randn(230, 5, generator=torch.Generator().manual_seed(1))
    for draws_per_pass in (1, 100, 230, 1000):
        used = iter(draws)

        def log_w(x: Tensor, K: int, generator: object, used: object = used) -> Tensor:
            return torch.stack([next(used) for _ in range(K)])

        value = log_likelihood(log_w, x, 230, draws_per_pass=draws_per_pass)
        assert torch.allclose(value, draws.logsumexp(0) - math.log(230), atol=1e-5)


def test_log_likelihood_is_stable_far_below_what_exp_can_hold() -> None:
    value = log_likelihood(lambda x, K, g: torch.full((K, len(x)), -1e4), torch.zeros(2, 1), 10)
    assert torch.allclose(value, torch.tensor(-1e4))


def test_log_likelihood_needs_a_draw() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        log_likelihood(linear_gaussian_log_w, torch.zeros(2, 1), 0)


def test_active_units_counts_latents_whose_mean_moves() -> None:
    loc = torch.zeros(100, 3)
    loc[:, 0] = torch.linspace(-1, 1, 100)
    loc[:, 1] = torch.linspace(-0.1, 0.1, 100)
    assert active_units(loc) == 1


def test_pixel_entropy_is_the_entropy_of_independent_bernoullis() -> None:
    x = torch.from_numpy(load_digits().data[:50] / 16)
    expected = Bernoulli(probs=x).entropy().sum(-1)
    assert torch.allclose(pixel_entropy(x), expected, atol=1e-4)
    assert pixel_entropy(torch.tensor([[0.0, 1.0, 0.5]])).item() == pytest.approx(math.log(2))
