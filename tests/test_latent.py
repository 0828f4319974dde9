"""Latent variable models against scikit-learn, scipy, quadrature and known distributions."""

import math

import jaxtyping
import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.distributions import (
    Exponential,
    LogNormal,
    MultivariateNormal,
    Normal,
    Uniform,
    kl_divergence,
)

from tests.conftest import FAILURE_RATE, assert_within_se
from vaecourse.latent import (
    LinearGaussian,
    MixtureOfGaussians,
    categorical_from_uniform,
    exponential_from_uniform,
    fit_ppca,
    from_uniform,
    naive_log_p_x,
    pushforward_log_prob,
    samples_needed,
)


def linear_gaussian(
    generator: torch.Generator, D: int = 5, Z: int = 2, shared_scale: bool = False
) -> LinearGaussian:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.double)

    scale = torch.tensor(0.5).double() if shared_scale else normal(D).mul(0.3).exp()
    return LinearGaussian(normal(D, Z), normal(D), scale)


def clusters(generator: torch.Generator) -> Tensor:
    centres = torch.tensor([[0.0, 0.0], [4.0, 1.0], [1.0, 5.0]]).double()
    z = torch.randint(3, (400,), generator=generator)
    return centres[z] + torch.randn(400, 2, generator=generator, dtype=torch.double)


# Pushforwards


def test_pushforward_of_the_uniform_is_exponential_with_mean_one_over_the_rate(generator):
    rate = 4.0
    u = torch.rand(20_000, generator=generator, dtype=torch.double)
    x = exponential_from_uniform(u, rate)
    assert_within_se(x, 1 / rate)
    assert scipy.stats.kstest(x.numpy(), "expon", args=(0, 1 / rate)).pvalue > FAILURE_RATE


def test_exponential_of_the_smallest_and_largest_uniform_draw_is_finite():
    u = torch.tensor([0.0, 1 - 2**-24])
    x = exponential_from_uniform(u, 2.0)
    assert x[0] == 0 and x.isfinite().all()


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan])
def test_exponential_refuses_a_rate_that_is_not_positive(rate):
    with pytest.raises(ValueError, match="rate must be positive"):
        exponential_from_uniform(torch.rand(2), rate)


def test_categorical_pushforward_gives_each_category_its_share_of_the_interval():
    probs = torch.tensor([0.2, 0.0, 0.5, 0.3]).double()
    u = torch.linspace(0, 1, 1001).double()[:-1] + 0.0005
    shares = categorical_from_uniform(u, probs).bincount(minlength=4).double() / 1000
    torch.testing.assert_close(shares, probs)


def test_categorical_pushforward_stays_in_range_at_both_ends():
    rounded = torch.tensor([0.3, 0.699998])
    u = torch.tensor([0.0, 1 - 2**-24])
    assert categorical_from_uniform(u, rounded).tolist() == [0, 1]
    assert categorical_from_uniform(u[:1], torch.tensor([0.0, 1.0])).tolist() == [1]
    with pytest.raises(ValueError, match="sum to 1"):
        categorical_from_uniform(u, torch.tensor([1.0, 1.0]))


def test_inverse_cdf_by_bisection_agrees_with_the_closed_form():
    u = torch.linspace(0.001, 0.999, 50).double()
    normal = Normal(torch.tensor(1.0).double(), torch.tensor(2.0).double())
    torch.testing.assert_close(from_uniform(u, normal.cdf, -100.0, 100.0), normal.icdf(u))
    exponential = Exponential(torch.tensor(3.0).double())
    expected = exponential_from_uniform(u, 3.0)
    torch.testing.assert_close(from_uniform(u, exponential.cdf, 0.0, 100.0), expected)
    with pytest.raises(ValueError, match="widen the bounds"):
        from_uniform(u, normal.cdf, -1.0, 1.0)


def test_change_of_variables_gives_the_known_density():
    x = torch.linspace(0.1, 5, 20).double()
    unit = Uniform(torch.tensor(0.0).double(), torch.tensor(1.0).double())
    found = pushforward_log_prob(x, unit, lambda x: -torch.expm1(-3 * x))
    torch.testing.assert_close(found, Exponential(torch.tensor(3.0).double()).log_prob(x))

    normal = Normal(torch.tensor(0.5).double(), torch.tensor(2.0).double())
    found = pushforward_log_prob(x, normal, torch.log)
    torch.testing.assert_close(found, LogNormal(normal.loc, normal.scale).log_prob(x))

    falling = pushforward_log_prob(x, normal, lambda x: -x / 2)  # x = −2z
    torch.testing.assert_close(falling, Normal(-1.0, 4.0).log_prob(x))


# Mixture of Gaussians


def to_scikit(mixture: MixtureOfGaussians, **options: float) -> GaussianMixture:
    return GaussianMixture(
        len(mixture.probs),
        weights_init=mixture.probs.numpy(),
        means_init=mixture.loc.numpy(),
        precisions_init=np.linalg.inv(mixture.covariance.numpy()),
        reg_covar=0,
        **options,
    )


def test_em_reaches_the_optimum_of_scikit_learn_from_the_same_start(generator):
    x = clusters(generator)
    start = MixtureOfGaussians.start(x, 3, generator)
    fitted = start.fit(x, tolerance=1e-13)
    oracle = to_scikit(start, tol=1e-13, max_iter=10_000).fit(x.numpy())
    difference = np.abs(fitted.log_prob(x).numpy() - oracle.score_samples(x.numpy()))
    assert difference.max() < 1e-5
    np.testing.assert_allclose(fitted.responsibilities(x), oracle.predict_proba(x), atol=1e-4)
    assert (fitted.log_prob(x).mean() - start.log_prob(x).mean()) > 0.1


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_each_em_step_equals_scikit_learns(generator):
    x = clusters(generator)
    mixture = MixtureOfGaussians.start(x, 3, generator)
    # Its first step only makes a model of the start; the second is the first real one.
    oracle = to_scikit(mixture, tol=0, max_iter=1).fit(x.numpy())
    stepped = mixture.em_step(x)
    np.testing.assert_allclose(stepped.probs, oracle.weights_)
    np.testing.assert_allclose(stepped.loc, oracle.means_)
    np.testing.assert_allclose(stepped.covariance, oracle.covariances_)


def test_em_never_lowers_the_likelihood(generator):
    x = clusters(generator)
    mixture = MixtureOfGaussians.start(x, 4, generator)
    for _ in range(50):
        stepped = mixture.em_step(x)
        assert stepped.log_prob(x).mean() >= mixture.log_prob(x).mean() - 1e-12
        mixture = stepped


def test_em_step_with_one_component_is_the_gaussian_mle(generator):
    x = clusters(generator)
    mixture = MixtureOfGaussians.start(x, 1, generator).em_step(x)
    np.testing.assert_allclose(mixture.loc[0], x.mean(0))
    np.testing.assert_allclose(mixture.covariance[0], np.cov(x.T, ddof=0))


def test_mixture_marginal_is_the_sum_over_components_and_bayes_rule_holds(generator):
    x = clusters(generator)
    mixture = MixtureOfGaussians.start(x, 3, generator).em_step(x)
    joint = sum(
        mixture.probs[c].item()
        * scipy.stats.multivariate_normal(mixture.loc[c], mixture.covariance[c]).pdf(x)
        for c in range(3)
    )
    np.testing.assert_allclose(mixture.log_prob(x).exp(), joint)
    posterior = mixture.responsibilities(x)
    torch.testing.assert_close(posterior.sum(-1), torch.ones_like(posterior[:, 0]))
    z = torch.ones(400, dtype=torch.long)
    by_bayes = mixture.p_z.log_prob(z) + mixture.p_x_given_z(z).log_prob(x) - mixture.log_prob(x)
    torch.testing.assert_close(posterior[:, 1].log(), by_bayes)


def test_mixture_draws_have_the_mixtures_shares_and_moments(generator):
    mixture = MixtureOfGaussians(
        torch.tensor([0.3, 0.7]).double(),
        torch.tensor([[-2.0, 0.0], [1.0, 3.0]]).double(),
        torch.tensor([[[1.0, 0.6], [0.6, 2.0]], [[0.5, 0.0], [0.0, 0.1]]]).double(),
    )
    z, x = mixture.sample(50_000, generator)
    assert_within_se((z == 1).double(), 0.7)
    assert_within_se(x[z == 0], mixture.loc[0])
    residual = x[z == 0] - mixture.loc[0]
    assert_within_se(residual[:, :, None] * residual[:, None], mixture.covariance[0])
    again = mixture.sample(5, torch.Generator().manual_seed(1))[1]
    torch.testing.assert_close(again, mixture.sample(5, torch.Generator().manual_seed(1))[1])


def test_collapsed_component_is_refused_and_a_floor_mends_it(generator):
    x = torch.randn(30, 1, generator=generator, dtype=torch.double)
    on_a_point = MixtureOfGaussians(
        torch.tensor([0.5, 0.5]).double(),
        torch.stack([x[0], x.mean(0)]),
        torch.tensor([[[1e-12]], [[1.0]]]).double(),
    )
    with pytest.raises(ValueError, match="not positive definite"):
        on_a_point.fit(x)
    assert on_a_point.fit(x, floor=1e-3).log_prob(x).isfinite().all()
    with pytest.raises(ValueError, match="still gains"):
        MixtureOfGaussians.start(x, 2, generator).fit(x, max_steps=1)
    with pytest.raises(ValueError, match="cannot start 31 components"):
        MixtureOfGaussians.start(x, 31)


def test_em_works_in_single_precision(generator):
    x = clusters(generator)
    centres = torch.tensor([[1.0, 0.0], [3.0, 1.0], [1.0, 4.0]]).double()
    start = MixtureOfGaussians(
        torch.full((3,), 1 / 3).double(), centres, torch.eye(2).double().repeat(3, 1, 1)
    )
    single = MixtureOfGaussians(start.probs.float(), start.loc.float(), start.covariance.float())
    fitted = single.fit(x.float())
    assert fitted.log_prob(x.float()).dtype == torch.float32
    assert abs(fitted.log_prob(x.float()).mean() - start.fit(x).log_prob(x).mean()) < 1e-3


# Linear-Gaussian model


@pytest.mark.parametrize("shared_scale", [True, False])
def test_marginal_equals_the_integral_over_z(generator, shared_scale):
    model = linear_gaussian(generator, D=3, Z=1, shared_scale=shared_scale)
    _, x = model.sample(4, generator)
    z = torch.linspace(-12, 12, 4001).double()[:, None, None]  # (K, 1, Z)
    log_joint = model.p_x_given_z(z).log_prob(x) + model.p_z.log_prob(z)
    by_quadrature = torch.trapezoid(log_joint.exp(), z[:, 0, 0], dim=0).log()
    torch.testing.assert_close(model.p_x.log_prob(x), by_quadrature)


def test_marginal_and_posterior_equal_scikit_learns_factor_analysis(generator):
    _, x = linear_gaussian(generator, D=6, Z=2).sample(300, generator)
    oracle = FactorAnalysis(2, tol=1e-8, max_iter=5000).fit(x.numpy())
    model = LinearGaussian(
        torch.tensor(oracle.components_.T.copy()),
        torch.tensor(oracle.mean_),
        torch.tensor(oracle.noise_variance_).sqrt(),
    )
    np.testing.assert_allclose(model.p_x.log_prob(x), oracle.score_samples(x.numpy()))
    np.testing.assert_allclose(model.posterior(x).loc, oracle.transform(x.numpy()), atol=1e-10)


def test_posterior_equals_joint_over_marginal(generator):
    model = linear_gaussian(generator)
    z, x = model.sample(7, generator)
    log_joint = model.p_x_given_z(z).log_prob(x) + model.p_z.log_prob(z)
    by_bayes = log_joint - model.p_x.log_prob(x)
    torch.testing.assert_close(model.posterior(x).log_prob(z), by_bayes)


def test_decoder_takes_leading_sample_axes(generator):
    model = linear_gaussian(generator)
    z = torch.randn(4, 7, 2, generator=generator, dtype=torch.double)  # (K, B, Z)
    _, x = model.sample(7, generator)
    assert model.p_x_given_z(z).log_prob(x).shape == (4, 7)


def test_two_step_draws_have_the_marginals_moments(generator):
    model = linear_gaussian(generator, D=3)
    _, x = model.sample(50_000, generator)
    assert_within_se(x, model.p_x.mean)
    residual = x - model.loc
    assert_within_se(residual[:, :, None] * residual[:, None], model.p_x.covariance_matrix)


def test_marginal_with_scikit_learns_parameters_equals_pca_score(generator):
    _, x = linear_gaussian(generator, D=6, Z=2).sample(300, generator)
    pca = PCA(2).fit(x.numpy())
    scales = (pca.explained_variance_ - pca.noise_variance_) ** 0.5
    model = LinearGaussian(
        torch.tensor((pca.components_.T * scales).copy()),
        torch.tensor(pca.mean_),
        torch.tensor(pca.noise_variance_).sqrt(),
    )
    np.testing.assert_allclose(model.p_x.log_prob(x), pca.score_samples(x.numpy()))


def test_ppca_fit_is_scikit_learns_with_n_for_n_minus_1_and_scores_higher(generator):
    _, x = linear_gaussian(generator, D=6, Z=2).sample(300, generator)
    pca = PCA(2).fit(x.numpy())
    model = fit_ppca(x, 2)
    covariance = model.p_x.covariance_matrix
    np.testing.assert_allclose(covariance, pca.get_covariance() * 299 / 300, atol=1e-10)
    gain = model.p_x.log_prob(x).mean().item() - pca.score(x.numpy())
    assert 0 < gain < 1e-4


def test_ppca_fit_equals_factor_analysis_where_both_have_the_same_maximum(generator):
    # Data whose covariance is exactly that of a PPCA model: then one scale is as good as many.
    model = linear_gaussian(generator, D=6, Z=2, shared_scale=True)
    noise = torch.randn(300, 6, generator=generator, dtype=torch.double)
    white = torch.linalg.qr(noise - noise.mean(0)).Q * 300**0.5
    x = model.loc + white @ torch.linalg.cholesky(model.p_x.covariance_matrix).mT
    fitted = fit_ppca(x, 2)
    torch.testing.assert_close(fitted.p_x.covariance_matrix, model.p_x.covariance_matrix)
    oracle = FactorAnalysis(2, tol=1e-12, max_iter=50_000, svd_method="lapack").fit(x.numpy())
    np.testing.assert_allclose(
        fitted.p_x.log_prob(x), oracle.score_samples(x.numpy()), atol=1e-5, rtol=0
    )


def test_ppca_fit_is_a_stationary_maximum(generator):
    _, x = linear_gaussian(generator, D=6, Z=2).sample(300, generator)
    fitted = fit_ppca(x, 2)
    free = [t.clone().requires_grad_() for t in (fitted.weight, fitted.loc, fitted.scale)]
    LinearGaussian(*free).p_x.log_prob(x).mean().backward()
    assert all(t.grad.abs().max() < 1e-9 for t in free)
    best = fitted.p_x.log_prob(x).mean()
    for _ in range(20):
        moved = [t + 0.1 * torch.randn(t.shape, generator=generator) for t in free]
        assert LinearGaussian(*moved).p_x.log_prob(x).mean() < best


def test_wrong_linear_gaussian_models_are_refused_in_one_sentence(generator, monkeypatch):
    model = linear_gaussian(generator)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside the tests
    with pytest.raises(ValueError, match="weight has 5 rows"):
        LinearGaussian(model.weight, model.loc[:1], model.scale)
    with pytest.raises(ValueError, match="scale must be positive"):
        LinearGaussian(model.weight, model.loc, torch.tensor(0.0).double())
    x = torch.randn(3, 5, generator=generator)
    for Z in (0, 5):
        with pytest.raises(ValueError, match="use 1 to 4"):
            fit_ppca(x, Z)
    with pytest.raises(ValueError, match="no noise"):
        fit_ppca(x, 2)


# Naive Monte Carlo


def naive_draws(model: LinearGaussian, x: Tensor, K: int, generator: torch.Generator) -> Tensor:
    Z = model.weight.shape[1]
    z = torch.randn(K, len(x), Z, generator=generator, dtype=torch.double)
    return model.p_x_given_z(z).log_prob(x)


def test_naive_estimate_is_unbiased_for_p_x_and_biased_low_for_log_p_x(generator):
    model = linear_gaussian(generator, D=2, Z=2, shared_scale=True)
    _, x = model.sample(1, generator)
    repeated = x.expand(20_000, -1)  # as many estimates, each from K = 5 draws
    estimates, _ = naive_log_p_x(naive_draws(model, repeated, 5, generator))
    exact = model.p_x.log_prob(x).item()
    assert_within_se((estimates - exact).exp(), 1.0)
    error = estimates - exact
    se = error.std() / len(error) ** 0.5
    assert error.mean() < -10 * se


def test_naive_standard_error_matches_the_spread_of_estimates(generator):
    model = linear_gaussian(generator, D=2, Z=1, shared_scale=True)
    _, x = model.sample(1, generator)
    estimates, se = naive_log_p_x(naive_draws(model, x.expand(2000, -1), 500, generator))
    assert se.mean().item() == pytest.approx(estimates.std().item(), rel=0.1)


def test_naive_estimate_equals_the_mean_of_densities_and_survives_underflow(generator):
    log_p = torch.randn(6, 2, generator=generator, dtype=torch.double)
    estimate, se = naive_log_p_x(log_p)
    torch.testing.assert_close(estimate, log_p.exp().mean(0).log())
    torch.testing.assert_close(se, log_p.exp().std(0) / log_p.exp().mean(0) / 6**0.5)
    far, far_se = naive_log_p_x(log_p - 5000)
    torch.testing.assert_close(far, estimate - 5000)
    torch.testing.assert_close(far_se, se)


def test_naive_standard_error_never_exceeds_one_nat():
    one_draw_explains_x = torch.full((100, 1), -1000.0).double()
    one_draw_explains_x[3] = 0
    _, se = naive_log_p_x(one_draw_explains_x)
    assert se.item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least 2"):
        naive_log_p_x(one_draw_explains_x[:1])


def test_samples_needed_equals_the_integral_and_predicts_the_spread(generator):
    model = linear_gaussian(generator, D=3, Z=1)
    _, x = model.sample(4, generator)
    z = torch.linspace(-12, 12, 4001).double()[:, None, None]
    weight = (model.p_x_given_z(z).log_prob(x) - model.p_x.log_prob(x)).exp()
    density = model.p_z.log_prob(z).exp()
    variance = torch.trapezoid((weight - 1).square() * density, z[:, 0, 0], dim=0)
    torch.testing.assert_close(samples_needed(model, x, 0.1), variance / 0.01)

    K = round(samples_needed(model, x[:1], 0.05).item())
    estimates, _ = naive_log_p_x(naive_draws(model, x[:1].expand(1000, -1), K, generator))
    assert estimates.std().item() == pytest.approx(0.05, rel=0.15)


def test_samples_needed_is_at_least_the_exponential_of_the_kl_from_posterior_to_prior(generator):
    model = linear_gaussian(generator, D=8, Z=3)
    _, x = model.sample(50, generator)
    posterior = model.posterior(x)
    prior = MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    assert (samples_needed(model, x) >= kl_divergence(posterior, prior).expm1()).all()
    with pytest.raises(ValueError, match="se must be positive"):
        samples_needed(model, x, 0.0)
