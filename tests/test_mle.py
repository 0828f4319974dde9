"""Maximum likelihood against torch.distributions, scipy and scikit-learn."""

import functools

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from sklearn.covariance import EmpiricalCovariance
from torch.distributions import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Distribution,
    Gamma,
    Gumbel,
    Laplace,
    MultivariateNormal,
    Normal,
    Poisson,
    StudentT,
    Uniform,
    VonMises,
    Weibull,
)

from tests.conftest import assert_within_se
from vaecourse.mle import fit, gaussian_log_likelihood, gaussian_mle, gaussian_mle_full


def data(generator: torch.Generator, rows: int = 50, columns: int = 3) -> torch.Tensor:
    noise = torch.randn(rows, columns, generator=generator, dtype=torch.double)
    mixing = torch.randn(columns, columns, generator=generator, dtype=torch.double)
    return 2 + noise @ mixing


def test_gaussian_log_likelihood_equals_torch_distributions(generator):
    x, loc = data(generator), torch.tensor([1.0, 2.0, 3.0]).double()
    var = torch.tensor([0.3, 1.0, 4.0]).double()
    expected = Normal(loc, var.sqrt()).log_prob(x).sum(-1)
    torch.testing.assert_close(gaussian_log_likelihood(x, loc, var), expected)


def test_gaussian_log_likelihood_broadcasts_over_a_grid_of_parameters(generator):
    x = data(generator, rows=5, columns=1)
    loc, var = torch.meshgrid(torch.arange(3.0), torch.arange(1.0, 5.0), indexing="ij")
    loc, var = loc[..., None, None].double(), var[..., None, None].double()  # (3, 4, 1, 1)
    surface = gaussian_log_likelihood(x, loc, var)
    assert surface.shape == (3, 4, 5)
    expected = scipy.stats.norm(2.0, 3.0**0.5).logpdf(x[:, 0].numpy())
    np.testing.assert_allclose(surface[2, 2], expected)


def test_gaussian_mle_agrees_with_a_numerical_optimizer(generator):
    x = data(generator, columns=1)

    def nll(parameters: np.ndarray) -> float:
        return -scipy.stats.norm(parameters[0], np.exp(parameters[1])).logpdf(x.numpy()).sum()

    found = scipy.optimize.minimize(nll, [0.0, 0.0], tol=1e-12).x
    loc, var = gaussian_mle(x)
    np.testing.assert_allclose([loc.item(), var.sqrt().log().item()], found, atol=1e-5)


def test_gaussian_mle_is_the_maximum_of_the_likelihood_surface(generator):
    x = data(generator, columns=2)
    loc, var = gaussian_mle(x)
    best = gaussian_log_likelihood(x, loc, var).sum()
    for step in (1e-4, 0.1, 1.0):
        for direction in torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).double():
            assert gaussian_log_likelihood(x, loc + step * direction, var).sum() < best
            assert gaussian_log_likelihood(x, loc, var * (step * direction).exp()).sum() < best


def test_variance_estimate_is_biased_by_the_factor_n_minus_1_over_n(generator):
    n = 4
    x = 3 * torch.randn(n, 100_000, generator=generator, dtype=torch.double)
    _, var = gaussian_mle(x)  # one data set of n points a column
    assert_within_se(var, 9 * (n - 1) / n)


def test_full_covariance_mle_agrees_with_scikit_learn(generator):
    x = data(generator)
    loc, covariance = gaussian_mle_full(x)
    oracle = EmpiricalCovariance().fit(x.numpy())
    np.testing.assert_allclose(loc, oracle.location_)
    np.testing.assert_allclose(covariance, oracle.covariance_)
    np.testing.assert_allclose(covariance.diagonal(), gaussian_mle(x)[1])


rng = np.random.default_rng(7)
CONTINUOUS = {
    "gamma": (
        Gamma,
        rng.gamma(3, 2, 500),
        {"concentration": 1.0, "rate": 1.0},
        lambda x: scipy.stats.gamma(*scipy.stats.gamma.fit(x, floc=0)),
    ),
    "beta": (
        Beta,
        rng.beta(2, 5, 500),
        {"concentration1": 1.0, "concentration0": 1.0},
        lambda x: scipy.stats.beta(*scipy.stats.beta.fit(x, floc=0, fscale=1)),
    ),
    "weibull": (
        Weibull,
        2 * rng.weibull(1.5, 500),
        {"scale": 1.0, "concentration": 1.0},
        lambda x: scipy.stats.weibull_min(*scipy.stats.weibull_min.fit(x, floc=0)),
    ),
    "gumbel": (
        Gumbel,
        rng.gumbel(3, 2, 500),
        {"loc": 0.0, "scale": 1.0},
        lambda x: scipy.stats.gumbel_r(*scipy.stats.gumbel_r.fit(x)),
    ),
    "laplace, whose density has a kink": (
        Laplace,
        rng.laplace(3, 2, 501),
        {"loc": 0.0, "scale": 1.0},
        lambda x: scipy.stats.laplace(*scipy.stats.laplace.fit(x)),
    ),
    "student": (
        StudentT,
        1 + 2 * rng.standard_t(4, 500),
        {"df": 10.0, "loc": 0.0, "scale": 1.0},
        lambda x: scipy.stats.t(*scipy.stats.t.fit(x)),
    ),
    "student with df held": (
        functools.partial(StudentT, torch.tensor(4.0)),
        1 + 2 * rng.standard_t(4, 500),
        {"loc": 0.0, "scale": 1.0},
        lambda x: scipy.stats.t(*scipy.stats.t.fit(x, f0=4)),
    ),
    "von Mises": (
        VonMises,
        rng.vonmises(1, 2, 500),
        {"loc": 0.0, "concentration": 1.0},
        lambda x: scipy.stats.vonmises(*scipy.stats.vonmises.fit(x, fscale=1)),
    ),
    "normal, far from the start and narrow": (
        Normal,
        rng.normal(1000, 1e-2, 500),
        {"loc": 0.0, "scale": 1.0},
        lambda x: scipy.stats.norm(*scipy.stats.norm.fit(x)),
    ),
}


@pytest.mark.parametrize("case", CONTINUOUS.values(), ids=CONTINUOUS.keys())
def test_gradient_mle_reaches_the_likelihood_of_scipys_fit(case):
    family, x, start, oracle = case
    fitted = fit(family, torch.from_numpy(x), start)
    ours = fitted.log_prob(torch.from_numpy(x)).mean().item()
    scipys = oracle(x).logpdf(x).mean()
    # Scipy's optimizers stop early; ours may win by a little but never loses.
    assert -1e-7 < ours - scipys < 1e-6


def test_gradient_mle_of_counts_equals_the_closed_forms():
    counts = torch.from_numpy(rng.poisson(3, 300))
    mean = counts.double().mean().item()
    assert fit(Poisson, counts, {"rate": 1.0}).mean.item() == pytest.approx(mean)

    bits = torch.from_numpy(rng.integers(0, 2, (300, 4))).double()
    fitted = fit(Bernoulli, bits, {"logits": torch.zeros(4)})
    torch.testing.assert_close(fitted.mean, bits.mean(0), atol=1e-5, rtol=0)

    labels = torch.from_numpy(rng.integers(0, 3, 300))
    shares = labels.bincount().double() / 300
    fitted = fit(Categorical, labels, {"probs": torch.full((3,), 1 / 3)})
    torch.testing.assert_close(fitted.probs.double(), shares, atol=1e-5, rtol=0)

    wins = torch.from_numpy(rng.binomial(10, 0.3, 300)).double()
    fitted = fit(functools.partial(Binomial, 10), wins, {"probs": 0.5})
    assert fitted.probs.item() == pytest.approx(wins.mean().item() / 10, abs=1e-5)


def test_gradient_mle_of_the_full_gaussian_equals_the_closed_form(generator):
    x = data(generator)
    start = {"loc": torch.zeros(3), "covariance_matrix": torch.eye(3)}
    fitted = fit(MultivariateNormal, x, start)
    loc, covariance = gaussian_mle_full(x)
    torch.testing.assert_close(fitted.loc, loc, atol=1e-6, rtol=0)
    torch.testing.assert_close(fitted.covariance_matrix, covariance, atol=1e-5, rtol=0)


def test_gradient_mle_fits_a_batch_as_separate_problems():
    x = torch.from_numpy(rng.gamma([1.0, 4.0], [1.0, 0.1], (400, 2)))
    together = fit(Gamma, x, {"concentration": torch.ones(2), "rate": torch.ones(2)})
    for d in range(2):
        alone = fit(Gamma, x[:, d], {"concentration": 1.0, "rate": 1.0})
        assert alone.concentration.item() == pytest.approx(together.concentration[d].item(), 1e-5)
        assert alone.rate.item() == pytest.approx(together.rate[d].item(), 1e-5)


def test_gradient_mle_keeps_the_dtype_and_gives_no_graph():
    x = torch.tensor([1.0, 2.0, 4.0])
    fitted = fit(Normal, x, {"loc": 0.0, "scale": 1.0})
    assert fitted.loc.dtype == torch.float32 and not fitted.loc.requires_grad
    assert fit(Normal, x.double(), {"loc": 0.0, "scale": 1.0}).loc.dtype == torch.float64


def refuses(family: type[Distribution], x: torch.Tensor, start: dict[str, float], words: str):
    with pytest.raises(ValueError, match=words):
        fit(family, x, start)


def test_what_has_no_maximum_is_refused_in_one_sentence():
    start = {"loc": 0.0, "scale": 1.0}
    refuses(Normal, torch.ones(5), start, "reached no maximum")
    refuses(Normal, torch.ones(0), start, "no rows")
    refuses(Gamma, torch.tensor([-1.0]), {"concentration": 1.0, "rate": 1.0}, "outside the support")
    refuses(Gamma, torch.ones(2), {"concentration": -1.0, "rate": 1.0}, "start of concentration")
    refuses(Uniform, torch.tensor([0.1, 0.8]), {"low": 0.0, "high": 1.0}, "outside the support")
    refuses(Binomial, torch.ones(2), {"total_count": 2.0, "probs": 0.5}, "total_count of Binomial")
    two_points = torch.eye(3)[:2]
    gaussian = {"loc": torch.zeros(3), "covariance_matrix": torch.eye(3)}
    refuses(MultivariateNormal, two_points, gaussian, "reached no maximum")


def test_likelihood_of_a_zero_variance_is_refused():
    x = torch.ones(4, 2)
    loc, var = gaussian_mle(x)
    assert (var == 0).all()
    with pytest.raises(ValueError, match="var must be positive"):
        gaussian_log_likelihood(x, loc, var)


@pytest.mark.parametrize("closed_form", [gaussian_mle, gaussian_mle_full])
def test_no_data_has_no_mle(closed_form):
    with pytest.raises(ValueError, match="no rows"):
        closed_form(torch.zeros(0, 2))
