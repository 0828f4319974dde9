"""The divergence against torch.distributions, quadrature and hand-made infinities."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize
from torch.distributions import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Cauchy,
    Exponential,
    Gamma,
    Independent,
    Laplace,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    Uniform,
    kl_divergence,
)

from tests.conftest import assert_within_se
from vaecourse.kl import fit_forward, fit_reverse, kl, kl_monte_carlo, kl_normal, kl_terms

INF = torch.inf


def t(*values):
    return torch.tensor(values, dtype=torch.double)


def normal(loc, scale):
    return Normal(*(torch.tensor(v, dtype=torch.double) for v in (loc, scale)))


def two_modes():
    return MixtureSameFamily(Categorical(t(0.6, 0.4)), normal([-2.5, 2.5], [0.6, 0.9]))


def by_quadrature(q, p, low, high):
    """∫ q ln(q/p) on [low, high] by adaptive quadrature."""

    def integrand(x):
        x = torch.tensor(x, dtype=torch.double)
        log_q = q.log_prob(x)
        return (log_q.exp() * (log_q - p.log_prob(x))).item()

    points = [low + (high - low) * k / 8 for k in range(1, 8)]
    return quad(integrand, low, high, epsabs=1e-10, limit=400, points=points)[0]


# --- closed forms -----------------------------------------------------------------------------


def test_kl_normal_equals_torch_and_broadcasts(generator):
    q_loc, p_loc = torch.randn(2, 5, 3, generator=generator, dtype=torch.double)
    q_scale, p_scale = torch.rand(2, 5, 3, generator=generator, dtype=torch.double) + 0.1
    ours = kl_normal(q_loc, q_scale, p_loc, p_scale)
    expected = kl_divergence(Normal(q_loc, q_scale), Normal(p_loc, p_scale))
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-13)
    standard = kl_normal(q_loc, q_scale, t(0.0), t(1.0))
    torch.testing.assert_close(standard, kl(Normal(q_loc, q_scale), normal(0.0, 1.0)))


@pytest.mark.parametrize("q_scale", [0.3, 1.0, 2.0])
def test_kl_normal_equals_quadrature(q_scale):
    q, p = normal(0.7, q_scale), normal(-0.2, 1.3)
    expected = by_quadrature(q, p, -20, 20)
    assert kl_normal(q.loc, q.scale, p.loc, p.scale).item() == pytest.approx(expected, abs=1e-8)
    assert kl(q, p).item() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
    ("q", "p", "low", "high"),
    [
        (Gamma(t(2.0), t(1.5)), Gamma(t(3.0), t(1.0)), 1e-12, 60),
        (Laplace(t(0.0), t(1.0)), normal(0.5, 2.0), -60, 60),
        (Beta(t(2.0), t(3.0)), Uniform(t(0.0), t(1.0)), 1e-12, 1 - 1e-12),
        (Exponential(t(1.0)), Gamma(t(2.0), t(1.0)), 1e-12, 60),
    ],
    ids=lambda d: type(d).__name__,
)
def test_other_closed_forms_equal_quadrature(q, p, low, high):
    assert kl(q, p).item() == pytest.approx(by_quadrature(q, p, low, high), abs=1e-6)


def test_full_gaussian_equals_the_matrix_formula(generator):
    a, b = torch.randn(2, 3, 3, generator=generator, dtype=torch.double)
    q_cov, p_cov = a @ a.T + torch.eye(3), b @ b.T + torch.eye(3)
    q_loc, p_loc = torch.randn(2, 3, generator=generator, dtype=torch.double)
    inverse, offset = torch.linalg.inv(p_cov), p_loc - q_loc
    expected = (
        (inverse @ q_cov).trace()
        + offset @ inverse @ offset
        - 3
        + torch.logdet(p_cov)
        - torch.logdet(q_cov)
    ) / 2
    ours = kl(MultivariateNormal(q_loc, q_cov), MultivariateNormal(p_loc, p_cov))
    torch.testing.assert_close(ours, expected)


def test_diagonal_and_full_gaussians_combine(generator):
    loc = torch.randn(4, 3, generator=generator, dtype=torch.double)
    scale = torch.rand(4, 3, generator=generator, dtype=torch.double) + 0.2
    diagonal = Independent(Normal(loc, scale), 1)
    full = MultivariateNormal(loc, covariance_matrix=scale.square().diag_embed())
    other = MultivariateNormal(torch.ones(3).double(), torch.eye(3).double() + 0.3)
    torch.testing.assert_close(kl(diagonal, other), kl_divergence(full, other))
    torch.testing.assert_close(kl(other, diagonal), kl_divergence(other.expand([4]), full))
    torch.testing.assert_close(kl(diagonal, full), torch.zeros(4).double(), rtol=0, atol=1e-12)


def test_independent_coordinates_add_up():
    q, p = normal([[0.0, 1.0], [2.0, 3.0]], 1.0), normal(0.0, 2.0).expand([2, 2])
    each = kl(q, p)
    assert each.shape == (2, 2)
    torch.testing.assert_close(kl(Independent(q, 1), Independent(p, 1)), each.sum(-1))
    pixels = Bernoulli(t(0.2, 0.7)), Bernoulli(t(0.4, 0.4))
    together = kl(*(Independent(d, 1) for d in pixels))
    torch.testing.assert_close(together, kl_divergence(*pixels).sum())


def test_discrete_families_equal_torch(generator):
    a, b = torch.rand(2, 6, 4, generator=generator, dtype=torch.double)
    for family in (Categorical, OneHotCategorical):
        torch.testing.assert_close(
            kl(family(a), family(b)), kl_divergence(Categorical(a), Categorical(b))
        )
    torch.testing.assert_close(
        kl(Bernoulli(a), Bernoulli(b)), kl_divergence(Bernoulli(a), Bernoulli(b))
    )
    torch.testing.assert_close(
        kl(Binomial(5, a), Binomial(5, b)), kl_divergence(Binomial(5, a), Binomial(5, b))
    )


def test_kl_is_zero_between_equals_and_positive_otherwise(generator):
    a, b = torch.rand(2, 50, 4, generator=generator, dtype=torch.double)
    assert kl(Categorical(a), Categorical(a)).abs().max() < 1e-15
    assert (kl(Categorical(a), Categorical(b)) > 0).all()


def test_kl_has_the_gradient_of_its_closed_form_even_beside_impossible_outcomes():
    logits = t(0.3, -0.2, 0.1).requires_grad_()
    q = Categorical(logits=torch.cat([logits, t(-INF)]))
    kl(q, Categorical(t(0.2, 0.3, 0.4, 0.1))).backward()
    probs = logits.detach().softmax(0)
    inner = probs.log() - t(0.2, 0.3, 0.4).log()
    torch.testing.assert_close(logits.grad, probs * (inner - (probs * inner).sum()))


def test_pairs_without_closed_form_are_refused():
    with pytest.raises(ValueError, match="use kl_monte_carlo"):
        kl(two_modes(), normal(0.0, 1.0))


# --- infinities -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("q", "p", "expected"),
    [
        (Bernoulli(t(0.0)), Bernoulli(t(0.3)), -t(0.7).log()),
        (Bernoulli(t(1.0)), Bernoulli(t(0.3)), -t(0.3).log()),
        (Bernoulli(t(0.0)), Bernoulli(t(0.0)), t(0.0)),
        (Bernoulli(t(0.3)), Bernoulli(t(0.0)), t(INF)),
        (Bernoulli(t(0.3)), Bernoulli(t(1.0)), t(INF)),
        (Bernoulli(t(1.0)), Bernoulli(t(0.0)), t(INF)),
    ],
)
def test_bernoulli_with_certain_outcomes(q, p, expected):
    torch.testing.assert_close(kl(q, p), expected)


def test_categorical_with_impossible_outcomes():
    half, third = Categorical(t(0.5, 0.5, 0.0)), Categorical(t(1.0, 1.0, 1.0))
    torch.testing.assert_close(kl(half, third), t(1.5).log().squeeze())
    assert kl(third, half) == INF
    assert kl(half, Categorical(t(0.0, 0.5, 0.5))) == INF
    assert kl(half, half) == 0
    assert kl(third, Categorical(t(0.5, 0.5))) == INF  # p has no third outcome at all


def test_saturated_logits_are_not_called_impossible():
    # torch.distributions says inf to all three.
    fair = Bernoulli(torch.tensor(0.5))
    for logit, expected in ((20.0, 9.3068528), (-120.0, 59.3068528)):
        assert kl(fair, Bernoulli(logits=torch.tensor(logit))).item() == pytest.approx(expected)
    p = Categorical(logits=torch.tensor([0.0, -120.0]))
    assert kl(Categorical(torch.ones(2)), p).item() == pytest.approx(59.3068528)


def test_tiny_probabilities_keep_their_logarithm():
    expected = 0.5 * (t(0.5).log() + t(0.5 / 1e-30).log())
    ours = kl(Bernoulli(t(0.5)), Bernoulli(t(1e-30)))
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    ("q", "p", "expected"),
    [
        (Uniform(t(0.0), t(1.0)), Uniform(t(0.0), t(2.0)), 0.6931471805599453),
        (Uniform(t(0.0), t(2.0)), Uniform(t(0.0), t(1.0)), INF),
        (Uniform(t(0.0), t(1.0)), Uniform(t(2.0), t(3.0)), INF),
        (normal([0.0], 1.0), Uniform(t(-9.0), t(9.0)), INF),
        (normal([0.0], 1.0), Exponential(t(1.0)), INF),
        (Uniform(t(-1.0), t(1.0)), Exponential(t(1.0)), INF),
    ],
)
def test_continuous_supports_decide_what_is_infinite(q, p, expected):
    assert kl(q, p).item() == pytest.approx(expected)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize(
    ("q", "p"),
    [
        (Uniform(t(0.0), t(2.0)), Uniform(t(0.0), t(1.0))),
        (normal([0.0], 1.0), Exponential(t(1.0))),
        (Bernoulli(t(0.5)), Bernoulli(t(0.0))),
        (Categorical(t(0.5, 0.5)), Categorical(t(0.0, 1.0))),
        (Categorical(t(0.5, 0.5)), Categorical(t(1.0))),
        (
            Independent(normal([0.0, 0.0], 1.0), 1),
            Independent(Exponential(torch.ones(2).double()), 1),
        ),
    ],
    ids=lambda d: type(d).__name__,
)
def test_monte_carlo_is_infinite_where_a_draw_is_impossible_under_p(q, p, estimator, generator):
    value, se = kl_monte_carlo(q, p, 100, estimator, generator)
    assert (value == INF).all() and se.isnan().all()


# --- Monte Carlo ------------------------------------------------------------------------------

Q, P = normal(0.4, 0.9), normal(0.0, 1.2)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(estimator, generator):
    assert_within_se(kl_terms(Q, P, 200_000, estimator, generator), kl_divergence(Q, P))


def test_k2_is_biased_by_what_quadrature_says(generator):
    def half_square(x):
        x = torch.tensor(x, dtype=torch.double)
        return (Q.log_prob(x).exp() * (Q.log_prob(x) - P.log_prob(x)).square() / 2).item()

    expected = quad(half_square, -20, 20, epsabs=1e-10)[0]
    assert abs(expected - kl_divergence(Q, P).item()) > 0.01
    assert_within_se(kl_terms(Q, P, 200_000, "k2", generator), expected)


@pytest.mark.parametrize(
    ("q", "p", "k3_is_better"),
    [(normal(0.4, 1.1), normal(0.0, 1.2), True), (normal(0.4, 0.9), normal(0.0, 1.2), False)],
    ids=["close", "narrow"],
)
def test_variances_agree_with_quadrature_and_k3_wins_only_when_close(q, p, k3_is_better, generator):
    variance = {}
    for estimator in ("k1", "k2", "k3"):

        def moment(x, power, estimator=estimator):
            x = torch.tensor(x, dtype=torch.double)
            k1 = (q.log_prob(x) - p.log_prob(x)).item()
            term = {"k1": k1, "k2": k1**2 / 2, "k3": math.exp(-k1) - 1 + k1}[estimator]
            return q.log_prob(x).exp().item() * term**power

        first, second = (quad(moment, -20, 20, args=(k,), epsabs=1e-10)[0] for k in (1, 2))
        variance[estimator] = second - first**2
        squares = (kl_terms(q, p, 100_000, estimator, generator) - first).square()
        # The fourth power of a likelihood ratio has no mean in the narrow case: no z-test there.
        if k3_is_better or estimator != "k3":
            assert_within_se(squares, variance[estimator])
    assert (variance["k3"] < variance["k1"] / 2) == k3_is_better
    assert k3_is_better or variance["k3"] > 2 * variance["k1"]


def test_only_k1_has_negative_terms(generator):
    terms = {k: kl_terms(Q, P, 1000, k, generator) for k in ("k1", "k2", "k3")}
    assert (terms["k1"] < 0).any()
    assert (terms["k2"] >= 0).all() and (terms["k3"] >= 0).all()


def test_k3_is_biased_where_q_misses_part_of_p(generator):
    # E_q[r] = ½ there, so k3 estimates KL − ½ and its every term is ½ − 1 + ln 2.
    q, p = Uniform(t(0.0), t(1.0)), Uniform(t(0.0), t(2.0))
    terms = kl_terms(q, p, 10, "k3", generator)
    torch.testing.assert_close(terms, torch.full_like(terms, kl(q, p).item() - 0.5))


def test_standard_error_is_that_of_the_mean(generator):
    value, se = kl_monte_carlo(Q.expand([2000]), P.expand([2000]), 100, "k1", generator)
    assert_within_se((value - kl_divergence(Q, P)).square() - se.square(), 0.0)


def test_monte_carlo_works_where_no_closed_form_does(generator):
    q, p = two_modes(), normal(0.0, 3.0)
    terms = kl_terms(q, p, 100_000, "k1", generator)
    assert_within_se(terms, by_quadrature(q, p, -12, 12))


def test_monte_carlo_broadcasts_and_is_reproducible():
    q, p = Bernoulli(t(0.3)), Bernoulli(torch.rand(5, 2, dtype=torch.double))
    first, again = (
        kl_monte_carlo(q, p, 50, "k1", torch.Generator().manual_seed(1))[0] for _ in range(2)
    )
    assert first.shape == (5, 2) and torch.equal(first, again)


def test_wrong_requests_are_refused():
    with pytest.raises(ValueError, match="choose k1, k2 or k3"):
        kl_terms(Q, P, 10, "k4")
    with pytest.raises(ValueError, match="K ≥ 1"):
        kl_terms(Q, P, 0)
    with pytest.raises(ValueError, match="K ≥ 2"):
        kl_monte_carlo(Q, P, 1)


# --- fits -------------------------------------------------------------------------------------


def best_by_quadrature(p, direction, start):
    """loc and scale of the closest Gaussian, by Nelder–Mead over a trapezoid on a fine grid."""
    x = torch.linspace(-15, 15, 6001, dtype=torch.double)
    log_p = p.log_prob(x)

    def loss(parameters):
        log_q = Normal(t(parameters[0]), t(parameters[1]).exp()).log_prob(x)
        a, b = (log_p, log_q) if direction == "forward" else (log_q, log_p)
        return torch.trapezoid(a.exp() * (a - b), x).item()

    found = minimize(
        loss,
        [start, 0.0],
        method="Nelder-Mead",
        options={"xatol": 1e-7, "fatol": 1e-12, "maxiter": 2000},
    )
    return found.x[0], t(found.x[1]).exp().item()


def test_forward_fit_is_the_optimum_of_quadrature():
    loc, scale = best_by_quadrature(two_modes(), "forward", 0.0)
    fitted = fit_forward(two_modes())
    assert fitted.loc.item() == pytest.approx(loc, abs=1e-5)
    assert fitted.scale.item() == pytest.approx(scale, abs=1e-5)


@pytest.mark.parametrize("start", [-2.5, 2.5])
def test_reverse_fit_is_the_optimum_of_quadrature_at_either_mode(start):
    loc, scale = best_by_quadrature(two_modes(), "reverse", start)
    fitted = fit_reverse(two_modes(), torch.tensor(start), torch.tensor(1.0))
    assert abs(loc - start) < 0.3
    assert fitted.loc.item() == pytest.approx(loc, abs=1e-4)
    assert fitted.scale.item() == pytest.approx(scale, abs=1e-4)


def test_fits_to_a_full_gaussian_have_its_marginal_and_its_conditional_variances():
    covariance = t(1.0, 0.9, 0.9, 1.5).reshape(2, 2)
    p = MultivariateNormal(t(1.0, -2.0), covariance)
    forward = fit_forward(p)
    reverse = fit_reverse(p, torch.zeros(2).double(), torch.ones(2).double())
    torch.testing.assert_close(forward.mean, p.loc)
    torch.testing.assert_close(forward.variance, covariance.diagonal())
    torch.testing.assert_close(reverse.mean, p.loc)
    torch.testing.assert_close(reverse.variance, 1 / torch.linalg.inv(covariance).diagonal())


def test_fits_keep_dtype_and_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    fitted = fit_reverse(Normal(1.0, 2.0), torch.tensor(0.0), torch.tensor(1.0))
    kl(Bernoulli(0.5), Bernoulli(0.5))
    assert fitted.loc.dtype == torch.float32
    assert torch.equal(state, torch.get_rng_state())
    with torch.no_grad():
        fit_reverse(Normal(1.0, 2.0), torch.tensor(0.0), torch.tensor(1.0))


def test_targets_that_no_gaussian_fits_are_refused():
    with pytest.raises(ValueError, match="no finite mean and variance"):
        fit_forward(Cauchy(t(0.0), t(1.0)))
    with pytest.raises(ValueError, match="infinite for every Gaussian"):
        fit_reverse(Exponential(torch.tensor(1.0)), torch.tensor(2.0), torch.tensor(0.1))
    with pytest.raises(ValueError, match="in the target's shape"):
        fit_reverse(Normal(0.0, 1.0), torch.zeros(2), torch.ones(2))
    with pytest.raises(ValueError, match="at most two"):
        p = MultivariateNormal(torch.zeros(3), torch.eye(3))
        fit_reverse(p, torch.zeros(3), torch.ones(3))
