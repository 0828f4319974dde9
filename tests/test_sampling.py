import pytest
import torch
from torch.distributions import Categorical, Gamma, Normal

from tests.conftest import assert_within_se
from vaecourse.sampling import rsample, sample


@pytest.mark.parametrize("family", [Normal(0.0, 1.0), Gamma(2.0, 1.0), Categorical(torch.ones(9))])
def test_same_generator_state_gives_same_draws(family: torch.distributions.Distribution) -> None:
    draws = [sample(family, (50,), torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)


def test_successive_draws_differ(generator: torch.Generator) -> None:
    q = Normal(0.0, 1.0)
    assert not torch.equal(sample(q, (50,), generator), sample(q, (50,), generator))


def test_global_generator_is_left_as_it_was(generator: torch.Generator) -> None:
    before = torch.get_rng_state()
    sample(Normal(0.0, 1.0), (5,), generator)
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_follow_the_distribution(generator: torch.Generator) -> None:
    draws = sample(Gamma(torch.tensor([2.0, 5.0]), 1.0), (20_000,), generator)
    assert_within_se(draws, torch.tensor([2.0, 5.0]))
    assert_within_se((draws - torch.tensor([2.0, 5.0])) ** 2, torch.tensor([2.0, 5.0]))


def test_rsample_carries_the_pathwise_gradient(generator: torch.Generator) -> None:
    loc = torch.zeros((), requires_grad=True)
    rsample(Normal(loc, 1.0), (7,), generator).sum().backward()
    assert loc.grad == 7


def test_rsample_refuses_what_cannot_be_reparametrized(generator: torch.Generator) -> None:
    with pytest.raises(NotImplementedError):
        rsample(Categorical(torch.ones(3)), (), generator)
