"""The gradient estimators against quadrature, enumeration and the exact linear-Gaussian ELBO."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Distribution,
    Gamma,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
    kl_divergence,
)

from tests.conftest import assert_within_se
from vaecourse.reparam import (
    FAMILIES,
    frozen_log_prob,
    gradient_samples,
    implicit_rsample,
    location_scale,
    naive_surrogate,
    pathwise_surrogate,
    score_function_surrogate,
    sticking_the_landing_surrogate,
)

SCIPY = {
    "normal": stats.norm,
    "laplace": stats.laplace,
    "logistic": stats.logistic,
    "gumbel": stats.gumbel_r,
    "lognormal": lambda loc, scale: stats.lognorm(s=scale, scale=np.exp(loc)),
}


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.double)


def bumpy(z: Tensor) -> Tensor:
    return (torch.tanh(z) + torch.cos(2 * z)).squeeze(-1)


def numerical_gradient(
    q: Callable[..., stats.rv_continuous], f: Callable[[float], float], *parameters: float
) -> list[float]:
    """Central differences of E[f(z)], the expected value taken by quadrature over quantiles."""

    def expected(values: np.ndarray) -> float:
        frozen = q(*values)
        low, high = frozen.ppf([1e-13, 1 - 1e-13])
        points = frozen.ppf(np.linspace(0.001, 0.999, 25))
        value, _ = integrate.quad(
            lambda z: f(z) * frozen.pdf(z), low, high, points=points, limit=400, epsabs=1e-12
        )
        return value

    step = 1e-4
    eye = np.eye(len(parameters)) * step
    return [
        (expected(np.array(parameters) + e) - expected(np.array(parameters) - e)) / (2 * step)
        for e in eye
    ]


# Location-scale families


@pytest.mark.parametrize("family", FAMILIES)
def test_location_scale_density_equals_scipys(family: str) -> None:
    z = torch.linspace(0.1, 4, 30, dtype=torch.double)[:, None]
    log_q_z = location_scale(family, double(0.4), double(0.7)).log_prob(z)
    expected = SCIPY[family](0.4, 0.7).logpdf(z[:, 0].numpy())
    assert torch.allclose(log_q_z, torch.as_tensor(expected), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("estimator", ["pathwise", "score", "constant", "leave-one-out"])
def test_location_scale_gradients_are_unbiased(
    family: str, estimator: str, generator: torch.Generator
) -> None:
    exact = numerical_gradient(SCIPY[family], lambda z: float(np.tanh(z) + np.cos(2 * z)), 0.4, 0.7)

    def surrogate(loc: Tensor, scale: Tensor) -> Tensor:
        q_z = location_scale(family, loc, scale)
        if estimator == "pathwise":
            return pathwise_surrogate(q_z, bumpy, 1, generator)
        if estimator == "score":
            return score_function_surrogate(q_z, bumpy, 1, generator)
        if estimator == "constant":
            return score_function_surrogate(q_z, bumpy, 1, generator, baseline=0.5)
        return score_function_surrogate(q_z, bumpy, 3, generator, baseline="leave-one-out")

    gradients = gradient_samples(surrogate, (double(0.4), double(0.7)), 30_000)
    assert_within_se(torch.cat(gradients, -1), double(*exact))


# The ELBO of a linear-Gaussian model, whose gradient and posterior are exact

WEIGHT = torch.tensor([[1.0, 0.5], [-0.3, 0.8], [0.2, -1.1]], dtype=torch.double)
NOISE = 0.6
X = torch.tensor([[0.7, -0.4, 1.2], [-1.0, 0.1, 0.3]], dtype=torch.double)  # (B, D)
LOC = torch.tensor([[0.3, -0.2], [0.1, 0.6]], dtype=torch.double)  # (B, Z)
TRIL = torch.tensor([[[0.5, 0.0], [0.2, 0.4]], [[0.7, 0.0], [-0.1, 0.3]]], dtype=torch.double)


def log_p_x_and_z(z: Tensor, weight: Tensor = WEIGHT) -> Tensor:
    log_p_x_given_z = Normal(z @ weight.mT, NOISE).log_prob(X).sum(-1)
    return log_p_x_given_z + Normal(0, 1).log_prob(z).sum(-1)


def exact_elbo(loc: Tensor, tril: Tensor, weight: Tensor = WEIGHT) -> Tensor:
    spread = (weight @ tril).square().sum((-2, -1)) / (2 * NOISE**2)
    expected_log_p_x_given_z = Normal(loc @ weight.mT, NOISE).log_prob(X).sum(-1) - spread
    p_z = MultivariateNormal(torch.zeros_like(loc), torch.eye(2, dtype=torch.double))
    return expected_log_p_x_given_z - kl_divergence(MultivariateNormal(loc, scale_tril=tril), p_z)


def elbo_surrogate(estimator: str, generator: torch.Generator) -> Callable[..., Tensor]:
    def surrogate(loc: Tensor, tril: Tensor) -> Tensor:
        q_z = MultivariateNormal(loc, scale_tril=tril)

        def log_w(z: Tensor) -> Tensor:
            return log_p_x_and_z(z) - q_z.log_prob(z)

        if estimator == "pathwise":
            return pathwise_surrogate(q_z, log_w, 1, generator)
        if estimator == "sticking":
            return sticking_the_landing_surrogate(q_z, log_p_x_and_z, 1, generator)
        if estimator == "naive":
            return naive_surrogate(q_z, log_w, 1, generator)
        if estimator == "score":
            return score_function_surrogate(q_z, log_w, 1, generator)
        return score_function_surrogate(q_z, log_w, 4, generator, baseline="leave-one-out")

    return surrogate


def lower_triangle(gradient: Tensor) -> Tensor:
    return gradient[..., *torch.tril_indices(2, 2)]  # the upper one is no parameter


def exact_elbo_gradient() -> tuple[Tensor, Tensor]:
    loc, tril = LOC.clone().requires_grad_(), TRIL.clone().requires_grad_()
    return torch.autograd.grad(exact_elbo(loc, tril).sum(), (loc, tril))


@pytest.mark.parametrize("estimator", ["pathwise", "sticking", "score", "leave-one-out"])
def test_elbo_gradient_is_unbiased(estimator: str, generator: torch.Generator) -> None:
    loc, tril = gradient_samples(elbo_surrogate(estimator, generator), (LOC, TRIL), 30_000)
    exact_loc, exact_tril = exact_elbo_gradient()
    assert_within_se(loc, exact_loc)
    assert_within_se(lower_triangle(tril), lower_triangle(exact_tril))


def test_naive_detached_gradient_has_mean_zero_whatever_the_data(
    generator: torch.Generator,
) -> None:
    loc, tril = gradient_samples(elbo_surrogate("naive", generator), (LOC, TRIL), 30_000)
    assert_within_se(loc, torch.zeros_like(LOC))
    assert_within_se(lower_triangle(tril), torch.zeros(2, 3))
    assert loc.std(0).min() > 1  # noise, not zeros
    assert exact_elbo_gradient()[0].abs().min() > 0.1  # which it should have had for its mean


@pytest.mark.parametrize("estimator", [naive_surrogate, score_function_surrogate])
def test_gradient_to_the_models_own_parameters_is_unbiased(
    estimator: Callable[..., Tensor], generator: torch.Generator
) -> None:
    weight = WEIGHT.clone().requires_grad_()
    (exact,) = torch.autograd.grad(exact_elbo(LOC, TRIL, weight).sum(), (weight,))

    def surrogate(weights: Tensor) -> Tensor:
        q_z = MultivariateNormal(LOC.expand(len(weights), 2, 2), scale_tril=TRIL)
        return estimator(q_z, lambda z: log_p_x_and_z(z, weights), 1, generator)

    (gradient,) = gradient_samples(surrogate, (WEIGHT,), 30_000)
    assert_within_se(gradient, exact)


def exact_posterior() -> tuple[Tensor, Tensor]:
    covariance = torch.linalg.inv(torch.eye(2) + WEIGHT.mT @ WEIGHT / NOISE**2)
    tril = torch.linalg.cholesky(covariance).expand(2, 2, 2)
    return X @ WEIGHT @ covariance / NOISE**2, tril


def test_sticking_the_landing_has_zero_variance_at_the_exact_posterior(
    generator: torch.Generator,
) -> None:
    gradients = gradient_samples(elbo_surrogate("sticking", generator), exact_posterior(), 1_000)
    assert all(gradient.abs().max() < 1e-11 for gradient in gradients)


def test_pathwise_keeps_its_variance_at_the_exact_posterior(generator: torch.Generator) -> None:
    loc, _ = gradient_samples(elbo_surrogate("pathwise", generator), exact_posterior(), 1_000)
    assert loc.std(0).min() > 0.5


def test_frozen_log_prob_equals_the_density_with_detached_parameters() -> None:
    loc, scale = double(0.3).requires_grad_(), double(0.8).requires_grad_()
    noise = double(-0.4)
    by_hand = Normal(loc.detach(), scale.detach()).log_prob(loc + scale * noise)
    frozen = frozen_log_prob(Normal(loc, scale), loc + scale * noise)
    assert torch.equal(by_hand, frozen)
    for ours, theirs in zip(
        torch.autograd.grad(frozen.sum(), (loc, scale), retain_graph=True),
        torch.autograd.grad(by_hand.sum(), (loc, scale)),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, rtol=1e-12)


def test_surrogates_have_one_value_per_example(generator: torch.Generator) -> None:
    for estimator in ("pathwise", "sticking", "naive", "score", "leave-one-out"):
        assert elbo_surrogate(estimator, generator)(LOC, TRIL).shape == (2,)


# Which estimator has the smaller variance depends on f


def exact_variances(f: Callable, derivative: Callable) -> tuple[float, float]:
    """Variances of the pathwise and the score-function gradient to loc at N(0, 1)."""
    grid = np.linspace(-12, 12, 200_001)
    weight = stats.norm.pdf(grid) * (grid[1] - grid[0])  # the trapezium rule: exact to rounding

    def variance(values: np.ndarray) -> float:
        return float(weight @ values**2 - (weight @ values) ** 2)

    return variance(derivative(grid)), variance(f(grid) * grid)


def measured_variances(f: Callable[[Tensor], Tensor], generator: torch.Generator) -> list[Tensor]:
    """Squared deviations of either gradient: their means are the variances."""
    deviations = []
    for surrogate in (pathwise_surrogate, score_function_surrogate):
        (gradient,) = gradient_samples(
            lambda loc, s=surrogate: s(Normal(loc, torch.ones_like(loc)), f, 1, generator),
            (double(0.0)[0],),
            100_000,
        )
        deviations.append((gradient - gradient.mean()) ** 2)
    return deviations


def test_score_function_wins_for_a_fast_sine(generator: torch.Generator) -> None:
    pathwise, score = exact_variances(lambda z: np.sin(20 * z), lambda z: 20 * np.cos(20 * z))
    assert round(pathwise, 6) == 200 and round(score, 6) == 0.5
    measured = measured_variances(lambda z: torch.sin(20 * z), generator)
    assert_within_se(torch.stack(measured, -1), double(pathwise, score))
    assert measured[1].mean() < measured[0].mean() / 100


def test_pathwise_wins_for_a_parabola(generator: torch.Generator) -> None:
    pathwise, score = exact_variances(lambda z: (z - 2) ** 2, lambda z: 2 * (z - 2))
    measured = measured_variances(lambda z: (z - 2) ** 2, generator)
    assert_within_se(torch.stack(measured, -1), double(pathwise, score))
    assert measured[0].mean() < measured[1].mean() / 10


def test_leave_one_out_equals_its_definition(generator: torch.Generator) -> None:
    loc = double(0.3, -1.0).requires_grad_()
    q_z = Independent(Normal(loc, torch.ones_like(loc)), 1)
    state = generator.get_state()
    surrogate = score_function_surrogate(
        q_z, lambda z: z.exp().sum(-1), 5, generator, baseline="leave-one-out"
    )
    (ours,) = torch.autograd.grad(surrogate, (loc,))
    generator.set_state(state)
    noise_kept = []
    pathwise_surrogate(q_z, lambda z: noise_kept.append(z.detach()) or z.sum(-1), 5, generator)
    z = noise_kept[0]  # (K, Z), the same draws
    by_hand = torch.zeros(2, dtype=torch.double)
    for k in range(5):
        others = torch.stack([z[j].exp().sum() for j in range(5) if j != k]).mean()
        by_hand += (z[k].exp().sum() - others) * (z[k] - loc.detach()) / 5
    assert torch.allclose(ours, by_hand, rtol=1e-12)


def test_leave_one_out_removes_the_variance_that_a_constant_causes(
    generator: torch.Generator,
) -> None:
    def spread(baseline: float | str) -> Tensor:
        (gradient,) = gradient_samples(
            lambda loc: score_function_surrogate(
                Normal(loc, torch.ones_like(loc)), lambda z: z + 100, 4, generator, baseline
            ),
            (double(0.0)[0],),
            5_000,
        )
        return gradient.std()

    assert spread("leave-one-out") < spread(0.0) / 30


# Implicit reparametrization


@pytest.mark.parametrize(
    ("family", "reference", "parameters"),
    [
        (Gamma, lambda a, b: stats.gamma(a, scale=1 / b), (1.7, 2.0)),
        (Gamma, lambda a, b: stats.gamma(a, scale=1 / b), (0.4, 0.5)),
        (Beta, stats.beta, (2.5, 1.3)),
        (StudentT, lambda nu, loc, scale: stats.t(nu, loc, scale), (4.0, 0.3, 0.8)),
    ],
)
def test_implicit_gradient_equals_the_numerical_derivative_of_the_expected_value(
    family: type[Distribution],
    reference: Callable,
    parameters: tuple[float, ...],
    generator: torch.Generator,
) -> None:
    exact = numerical_gradient(reference, lambda z: float(np.tanh(z)), *parameters)
    gradients = gradient_samples(
        lambda *copies: pathwise_surrogate(family(*copies), torch.tanh, 1, generator),
        tuple(double(*parameters)),
        30_000,
    )
    assert_within_se(torch.stack(gradients, -1), double(*exact))


def mixture(logits: Tensor, loc: Tensor, scale: Tensor) -> MixtureSameFamily:
    return MixtureSameFamily(Categorical(logits=logits), Normal(loc, scale))


def test_implicit_gradient_of_a_mixture_equals_its_closed_form(generator: torch.Generator) -> None:
    logits, loc, scale = double(0.2, 1.0), double(-2.0, 1.0), double(0.5, 0.8)
    weight = logits.softmax(0)
    second_moment = loc**2 + scale**2  # E[z²] of either component
    gradients = gradient_samples(
        lambda *copies: pathwise_surrogate(
            mixture(*copies), torch.square, 1, generator, draw=implicit_rsample
        ),
        (logits, loc, scale),
        30_000,
    )
    assert_within_se(gradients[0], weight * (second_moment - weight @ second_moment))
    assert_within_se(gradients[1], 2 * weight * loc)
    assert_within_se(gradients[2], 2 * weight * scale)


def test_implicit_gradient_equals_the_explicit_one_for_a_normal_draw_by_draw(
    generator: torch.Generator,
) -> None:
    loc, scale = double(0.3, -1.0).requires_grad_(), double(0.8, 2.0).requires_grad_()
    z = implicit_rsample(Independent(Normal(loc, scale), 1), (7,), generator)
    d_loc, d_scale = torch.autograd.grad(z.sum(), (loc, scale))
    assert torch.allclose(d_loc, torch.full_like(loc, 7), rtol=1e-9)
    assert torch.allclose(d_scale, ((z - loc) / scale).sum(0), rtol=1e-9)


# Where a condition fails


def test_pathwise_misses_the_gradient_of_a_step_and_the_score_function_finds_it(
    generator: torch.Generator,
) -> None:
    exact = 2 * stats.norm.pdf(0.5)  # of E[sign(z)] = 2 Φ(loc) − 1
    q_z = lambda loc: Normal(loc, torch.ones_like(loc))  # noqa: E731
    (pathwise,) = gradient_samples(
        lambda loc: pathwise_surrogate(q_z(loc), torch.sign, 1, generator), (double(0.5),), 1_000
    )
    (score,) = gradient_samples(
        lambda loc: score_function_surrogate(q_z(loc), torch.sign, 1, generator),
        (double(0.5),),
        30_000,
    )
    assert pathwise.abs().max() == 0
    assert_within_se(score, exact)


def test_score_function_is_unbiased_for_discrete_z(generator: torch.Generator) -> None:
    values = double(3.0, -1.0)  # f(0), f(1)
    logits = double(0.4)[0]
    p = torch.sigmoid(logits)
    (gradient,) = gradient_samples(
        lambda copies: score_function_surrogate(
            Bernoulli(logits=copies), lambda z: values[z.long()], 2, generator, "leave-one-out"
        ),
        (logits,),
        30_000,
    )
    assert_within_se(gradient, (values[1] - values[0]) * p * (1 - p))


# What is measured, and what is refused


def test_gradient_samples_are_gradients_of_independent_copies() -> None:
    weight = torch.arange(1.0, 4.0, dtype=torch.double)
    (gradient,) = gradient_samples(lambda a: weight[:, None] * a**2, (double(1.0, 5.0),), 3)
    assert torch.equal(gradient, 2 * weight[:, None] * double(1.0, 5.0))


def test_float32_stays_float32(generator: torch.Generator) -> None:
    loc, scale = torch.zeros(3, 2), torch.ones(3, 2)
    f = lambda z: z.sum(-1)  # noqa: E731
    for family in FAMILIES:
        surrogate = pathwise_surrogate(location_scale(family, loc, scale), f, 2, generator)
        assert surrogate.dtype == torch.float32


def test_wrong_use_is_refused_in_one_sentence(generator: torch.Generator) -> None:
    normal = Normal(double(0.0), double(1.0))
    with pytest.raises(ValueError, match="cauchyish"):
        location_scale("cauchyish", double(0.0), double(1.0))
    with pytest.raises(ValueError, match="scale must be positive"):
        location_scale("normal", double(0.0), double(0.0))
    with pytest.raises(ValueError, match="score_function_surrogate"):
        pathwise_surrogate(Bernoulli(double(0.3)), torch.square, 1, generator)
    with pytest.raises(ValueError, match="K = 0"):
        naive_surrogate(normal, torch.square, 0, generator)
    with pytest.raises(ValueError, match="K = 1 draws"):
        score_function_surrogate(normal, torch.square, 1, generator, baseline="leave-one-out")
    with pytest.raises(ValueError, match="continuous univariate"):
        implicit_rsample(Bernoulli(double(0.3)), (2,), generator)
    with pytest.raises(ValueError, match="no cdf"):
        implicit_rsample(StudentT(double(3.0)), (2,), generator)
