"""The bound and its relatives against models whose marginal is known exactly."""

import itertools

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

from tests.conftest import assert_within_se
from vaecourse.elbo import (
    ais,
    ais_sandwich,
    elbo_from_entropy,
    elbo_from_kl,
    elbo_from_log_w,
    gap,
    iwae_bound,
    log_p_x_importance,
    log_weights,
    sigma_points,
)
from vaecourse.kl import kl
from vaecourse.latent import LinearGaussian
from vaecourse.sampling import sample

B, Z, D = 4, 3, 6


def close(a, b, atol=1e-9):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


@pytest.fixture
def model(generator):
    weight, loc = torch.randn(D, Z + 1, generator=generator, dtype=torch.double).split([Z, 1], -1)
    scale = torch.rand(D, generator=generator, dtype=torch.double) + 0.5
    return LinearGaussian(weight, loc.squeeze(-1), scale)


@pytest.fixture
def x(model, generator):
    return model.sample(B, generator)[1]


@pytest.fixture
def p_x(model):
    """The marginal, built here from the covariance alone."""
    covariance = model.weight @ model.weight.T + model.scale.square().diag()
    return MultivariateNormal(model.loc, covariance)


@pytest.fixture(params=["diagonal", "full"])
def q_z(request, generator):
    loc = torch.randn(B, Z, generator=generator, dtype=torch.double)
    factor = torch.randn(B, Z, Z, generator=generator, dtype=torch.double) / 2
    if request.param == "diagonal":
        return Independent(Normal(loc, factor.diagonal(dim1=-2, dim2=-1).exp()), 1)
    return MultivariateNormal(loc, factor @ factor.mT + 0.3 * torch.eye(Z))


def tril(q_z):
    return q_z.scale_tril if isinstance(q_z, MultivariateNormal) else q_z.stddev.diag_embed()


def near_posterior(model, x, widen=1.1):
    """A diagonal q beside the posterior's mean and somewhat too wide for it."""
    posterior = model.posterior(x)
    return Independent(Normal(posterior.mean + 0.1, widen * posterior.stddev), 1)


# --- the bound and its gap --------------------------------------------------------------------


def test_three_forms_are_equal_and_right_on_the_linear_gaussian_model(model, x, q_z):
    z = sigma_points(q_z.mean, tril(q_z))
    from_log_w = elbo_from_log_w(log_weights(x, z, model.p_z, model.p_x_given_z, q_z))
    log_p_x_given_z = model.p_x_given_z(z).log_prob(x)
    from_kl = elbo_from_kl(log_p_x_given_z, kl(q_z, model.p_z))
    from_entropy = elbo_from_entropy(log_p_x_given_z + model.p_z.log_prob(z), q_z.entropy())

    scaled = model.weight / model.scale[:, None]
    spread = (scaled.T @ scaled @ tril(q_z) @ tril(q_z).mT).diagonal(dim1=-2, dim2=-1).sum(-1)
    mean_fit = Normal(q_z.mean @ model.weight.T + model.loc, model.scale).log_prob(x).sum(-1)
    prior = MultivariateNormal(torch.zeros(Z).double(), torch.eye(Z).double())
    full = MultivariateNormal(q_z.mean, scale_tril=tril(q_z))
    expected = mean_fit - spread / 2 - torch.distributions.kl_divergence(full, prior)

    for form in (from_log_w, from_kl, from_entropy):
        assert form.shape == (B,)
        close(form, expected)


def test_gap_is_the_divergence_from_the_posterior(model, x, q_z, p_x):
    z = sigma_points(q_z.mean, tril(q_z))
    elbo = elbo_from_log_w(log_weights(x, z, model.p_z, model.p_x_given_z, q_z))
    missing = gap(p_x.log_prob(x), elbo)
    assert (missing > 0.01).all()
    close(missing, kl(q_z, model.posterior(x)))


def test_elbo_equals_log_marginal_at_the_true_posterior_without_any_noise(model, x, p_x, generator):
    posterior = model.posterior(x)
    z = sample(posterior, (5,), generator)
    log_w = log_weights(x, z, model.p_z, model.p_x_given_z, posterior)
    close(log_w, p_x.log_prob(x).expand(5, B))
    close(elbo_from_log_w(log_w), p_x.log_prob(x))
    close(iwae_bound(log_w), p_x.log_prob(x))


def test_forms_are_unbiased_with_plain_draws(model, x, q_z, generator):
    points = sigma_points(q_z.mean, tril(q_z))
    exact = elbo_from_log_w(log_weights(x, points, model.p_z, model.p_x_given_z, q_z))
    z = sample(q_z, (20_000,), generator)
    log_p_x_given_z = model.p_x_given_z(z).log_prob(x)
    log_p_z = model.p_z.log_prob(z)
    terms = {
        "log_w": log_weights(x, z, model.p_z, model.p_x_given_z, q_z),
        "kl": log_p_x_given_z - kl(q_z, model.p_z),
        "entropy": log_p_x_given_z + log_p_z + q_z.entropy(),
    }
    for draws in terms.values():
        assert_within_se(draws, exact)
    close(elbo_from_kl(log_p_x_given_z, kl(q_z, model.p_z)), terms["kl"].mean(0))
    close(elbo_from_entropy(log_p_x_given_z + log_p_z, q_z.entropy()), terms["entropy"].mean(0))


def test_sigma_points_have_the_mean_and_covariance_of_the_gaussian(q_z):
    z = sigma_points(q_z.mean, tril(q_z))
    assert z.shape == (2 * Z, B, Z)
    residual = z - z.mean(0)
    close(z.mean(0), q_z.mean)
    close(torch.einsum("kbi,kbj->bij", residual, residual) / len(z), tril(q_z) @ tril(q_z).mT)


# --- importance weights -----------------------------------------------------------------------


def test_iwae_bound_never_falls_with_k_and_stays_below_log_p_x_exactly():
    # Three latent states: the expectation over all K-tuples is a finite sum.
    p_joint = torch.tensor([0.02, 0.3, 0.08], dtype=torch.double)  # p(x, z) for one x
    q = torch.tensor([0.6, 0.3, 0.1], dtype=torch.double)
    log_w = p_joint.log() - q.log()
    expected = []
    for K in range(1, 8):
        tuples = torch.tensor(list(itertools.product(range(3), repeat=K))).T  # (K, 3^K)
        expected.append((q[tuples].prod(0) * iwae_bound(log_w[tuples])).sum())
    bounds = torch.stack(expected)
    close(bounds[0], (q * log_w).sum())  # the ELBO
    assert (bounds.diff() > 1e-3).all()
    assert bounds[-1] < p_joint.sum().log()


def test_iwae_bound_is_at_least_the_mean_of_its_leave_one_out_bounds(generator):
    # The inequality behind the monotonicity holds for every draw, not only in expectation.
    log_w = 3 * torch.randn(6, 200, generator=generator, dtype=torch.double)
    rest = torch.stack([iwae_bound(torch.cat([log_w[:k], log_w[k + 1 :]])) for k in range(6)])
    assert (iwae_bound(log_w) >= rest.mean(0) - 1e-12).all()


def test_iwae_bound_rises_towards_log_p_x_on_the_linear_gaussian_model(model, x, p_x, generator):
    q_z = near_posterior(model, x)
    z = sample(q_z, (64_000,), generator)
    log_w = log_weights(x, z, model.p_z, model.p_x_given_z, q_z)
    gaps = []
    for K in (1, 4, 16, 64):
        groups = iwae_bound(log_w.reshape(-1, K, B).movedim(0, 1).reshape(K, -1)).reshape(-1, B)
        gaps.append(p_x.log_prob(x) - groups.mean(0))
    gaps = torch.stack(gaps)
    assert (gaps.diff(dim=0) < 0).all()
    assert (gaps[-1].abs() < gaps[0] / 10).all()


def test_iwae_bound_of_one_draw_is_its_log_weight_and_large_weights_do_not_overflow():
    log_w = torch.tensor([[-2000.0, 5000.0]])
    assert torch.equal(iwae_bound(log_w), elbo_from_log_w(log_w))
    close(iwae_bound(log_w.expand(7, 2)), log_w[0], atol=1e-3)


def test_importance_sampling_is_unbiased_for_p_x_and_its_standard_error_is_right(
    model, x, p_x, generator
):
    q_z = near_posterior(model, x)
    runs, K = 2000, 50
    z = sample(q_z, (runs * K,), generator)
    log_w = log_weights(x, z, model.p_z, model.p_x_given_z, q_z)
    truth = p_x.log_prob(x)
    assert_within_se((log_w - truth).exp(), 1.0)

    log_w = log_w.reshape(runs, K, B).movedim(1, 0).reshape(K, runs * B)
    estimate, se = (v.reshape(runs, B) for v in log_p_x_importance(log_w))
    assert_within_se((estimate - truth).exp(), 1.0)
    spread = estimate.std(0)
    torch.testing.assert_close(se.square().mean(0).sqrt(), spread, rtol=0.15, atol=0)
    whole, whole_se = log_p_x_importance(log_w.reshape(K, runs, B).reshape(-1, B))
    assert ((whole - truth).abs() < 5 * whole_se).all() and (whole_se < 0.01).all()
    assert (estimate.mean(0) < truth).all()  # biased low


def test_standard_error_reaches_one_when_a_single_draw_carries_the_weight():
    log_w = torch.zeros(100, 1, dtype=torch.double)
    log_w[0] = 80.0
    estimate, se = log_p_x_importance(log_w)
    close(se, torch.ones(1).double(), atol=1e-6)
    with pytest.raises(ValueError, match="at least 2 draws"):
        log_p_x_importance(log_w[:1])


# --- annealed importance sampling -------------------------------------------------------------


@pytest.fixture
def densities(model, x):
    def log_p_x_z(z):
        return model.p_x_given_z(z).log_prob(x) + model.p_z.log_prob(z)

    return model.p_z.log_prob, log_p_x_z


def test_ais_is_unbiased_forward_for_p_x_and_backward_for_its_inverse(
    model, x, p_x, densities, generator
):
    K, truth, q_z = 5000, p_x.log_prob(x), near_posterior(model, x, widen=1.5)
    betas = torch.linspace(0, 1, 9).double() ** 2
    log_f = q_z.log_prob, densities[1]
    forward = ais(*log_f, sample(q_z, (K,), generator), betas, generator=generator)
    assert forward.shape == (K, B)
    assert_within_se((forward - truth).exp(), 1.0)
    from_posterior = sample(model.posterior(x), (K,), generator)
    backward = ais(*log_f, from_posterior, betas.flip(0), generator=generator)
    assert_within_se((backward + truth).exp(), 1.0)


@pytest.mark.parametrize("step_size", [1e-3, 50.0])
def test_a_poor_step_size_leaves_ais_unbiased(step_size, model, x, p_x, densities, generator):
    q_z = near_posterior(model, x)
    z = sample(q_z, (5000,), generator)
    betas = torch.linspace(0, 1, 6).double()
    log_w = ais(q_z.log_prob, densities[1], z, betas, step_size=step_size, generator=generator)
    assert_within_se((log_w - p_x.log_prob(x)).exp(), 1.0)


def test_moves_leave_the_posterior_invariant(model, x, densities, generator):
    # Twenty moves at a temperature that is the posterior's but for one part in a million.
    path = []

    def spy(z):
        path.append(z.detach())
        return densities[0](z)

    start = sample(model.posterior(x), (3000,), generator)
    betas = torch.tensor([1.0] + [0.999999] * 20 + [0.0], dtype=torch.double)
    ais(spy, densities[1], start, betas, step_size=0.15, generator=generator)
    end = path[-1]  # where the last weight was taken
    assert (end != start).any(-1).double().mean() > 0.99
    posterior = model.posterior(x)
    assert_within_se(end, posterior.mean)
    assert_within_se((end - posterior.mean).square(), posterior.variance)


def test_sandwich_brackets_the_exact_value_and_closes(model, x, p_x, densities, generator):
    truth, K = p_x.log_prob(x), 400
    from_prior = sample(model.p_z.expand([B]), (K,), generator)
    from_posterior = sample(model.posterior(x), (K,), generator)
    widths = []
    for steps in (6, 60):
        betas = torch.linspace(0, 1, steps + 1).double() ** 2
        bounds = ais_sandwich(*densities, from_prior, from_posterior, betas, generator=generator)
        assert ((bounds.lower - truth) < 5 * bounds.lower_se).all()
        assert ((bounds.upper - truth) > -5 * bounds.upper_se).all()
        widths.append(bounds.upper - bounds.lower)
    assert (widths[0] > 2).all() and (widths[1] < widths[0] / 3).all()


def test_sandwich_of_one_step_is_the_elbo_and_its_upper_counterpart(
    model, x, p_x, densities, generator
):
    q_z, posterior = near_posterior(model, x), model.posterior(x)
    z, posterior_z = (sample(d, (5000,), generator) for d in (q_z, posterior))
    log_w = log_weights(x, z, model.p_z, model.p_x_given_z, q_z)
    close(ais(q_z.log_prob, densities[1], z, torch.tensor([0.0, 1.0]).double()), log_w)
    one_step = torch.tensor([0.0, 1.0]).double()
    bounds = ais_sandwich(q_z.log_prob, densities[1], z, posterior_z, one_step)
    close(bounds.lower, log_w.mean(0))
    exact = kl(q_z, posterior), kl(posterior, q_z)
    assert_within_se(p_x.log_prob(x) - log_w, exact[0])
    z_score = (bounds.upper - p_x.log_prob(x) - exact[1]) / bounds.upper_se
    assert z_score.abs().max() < 5.5


def test_ais_agrees_with_quadrature_on_a_nonlinear_model(generator):
    x = torch.tensor([0.3, -0.8], dtype=torch.double)  # two examples, one latent, one pixel
    prior = Normal(torch.zeros(()).double(), torch.ones(()).double())

    def log_p_x_z(z):  # (K, B, 1) -> (K, B)
        return prior.log_prob(z[..., 0]) + Normal((3 * z[..., 0]).sin(), 0.2).log_prob(x)

    def log_q_z(z):
        return prior.log_prob(z[..., 0])

    grid = torch.linspace(-9, 9, 20_001).double()
    truth = torch.trapezoid(log_p_x_z(grid[:, None, None].expand(-1, 2, 1)).exp(), grid, dim=0)
    z = torch.randn(4000, 2, 1, generator=generator, dtype=torch.double)
    log_w = ais(log_q_z, log_p_x_z, z, torch.linspace(0, 1, 20).double(), generator=generator)
    assert_within_se(log_w.exp() / truth, 1.0)


def test_ais_is_reproducible_and_carries_no_gradient(model, x, densities):
    weight = model.weight.clone().requires_grad_()
    learned = LinearGaussian(weight, model.loc, model.scale)

    def log_p_x_z(z):
        return learned.p_x_given_z(z).log_prob(x) + learned.p_z.log_prob(z)

    z = torch.zeros(3, B, Z, dtype=torch.double)
    state = torch.get_rng_state()
    runs = [
        ais(
            densities[0],
            log_p_x_z,
            z,
            torch.linspace(0, 1, 5),
            generator=torch.Generator().manual_seed(3),
        )
        for _ in range(2)
    ]
    assert torch.equal(*runs) and not runs[0].requires_grad and weight.grad is None
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "betas", [[0.0], [0.0, 0.5], [1.0, 1.0], [0.0, 0.7, 0.4, 1.0], [0.1, 1.0], [0.0, 0.0]]
)
def test_schedules_that_do_not_join_q_and_the_joint_are_refused(betas, densities):
    with pytest.raises(ValueError, match="rise from 0 to 1 or fall from 1 to 0"):
        ais(*densities, torch.zeros(2, B, Z).double(), torch.tensor(betas))


def test_sandwich_needs_two_chains(densities):
    z, betas = torch.zeros(1, B, Z).double(), torch.tensor([0.0, 1.0])
    with pytest.raises(ValueError, match="at least 2 chains"):
        ais_sandwich(*densities, z, z, betas)
