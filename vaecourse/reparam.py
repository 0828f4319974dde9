"""Gradients of an expected value E_{z ~ q_φ}[f(z)]: four surrogates, and how to measure them.

A surrogate is a tensor to differentiate: its gradient is the estimate. Its value estimates nothing
in general, and is never reported as a bound.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import (
    Distribution,
    Gumbel,
    Independent,
    Laplace,
    Normal,
    TransformedDistribution,
    Uniform,
)
from torch.distributions.transforms import (
    AffineTransform,
    ExpTransform,
    SigmoidTransform,
    Transform,
)

from vaecourse.sampling import rsample, sample

Integrand = Callable[[Tensor], Tensor]
Draw = Callable[[Distribution, tuple[int, ...], torch.Generator | None], Tensor]

FAMILIES = ("normal", "laplace", "logistic", "gumbel", "lognormal")


def location_scale(
    family: str, loc: Float[Tensor, "*B Z"], scale: Float[Tensor, "*B Z"]
) -> Independent:
    """The distribution of z = loc + scale·ε, for standard noise ε of one of `FAMILIES`.

    g_φ(ε) = loc + scale·ε, and exp(loc + scale·ε) for `lognormal`, whose logarithm is in the family
    rather than itself. The coordinates are independent: the result has batch shape (*B,) and event
    shape (Z,), and `rsample` with a pathwise gradient to `loc` and `scale`.

    Raises ValueError for an unknown family and for a scale that is not positive.

    Equation: eq-reparam-location-scale
    """
    if family not in FAMILIES:
        raise ValueError(f"Family {family!r} is unknown: choose one of {', '.join(FAMILIES)}.")
    if not bool((scale > 0).all()):
        raise ValueError(
            "scale must be positive: pass a variance's square root, or exp(log_var/2)."
        )
    zero, one = torch.zeros_like(loc), torch.ones_like(scale)
    noise: Distribution
    transforms: list[Transform] = [AffineTransform(loc, scale)]
    if family == "laplace":
        noise = Laplace(zero, one)
    elif family == "gumbel":
        noise = Gumbel(zero, one)
    elif family == "logistic":
        noise = Uniform(zero, one)
        transforms.insert(0, SigmoidTransform().inv)
    else:
        noise = Normal(zero, one)
    if family == "lognormal":
        transforms.append(ExpTransform())
    return Independent(TransformedDistribution(noise, transforms), 1)


def implicit_rsample(
    q_z: Distribution, shape: tuple[int, ...] = (), generator: torch.Generator | None = None
) -> Tensor:
    """Draw with a pathwise gradient found from the distribution function F_φ, not from a g_φ.

    ∂z/∂φ = −(∂F_φ(z)/∂φ) / q_φ(z), coordinate by coordinate: q_z is univariate (event shape ()) or
    an `Independent` of such, with a `cdf` that torch can differentiate. A mixture of Gaussians
    qualifies, in its weights too. For Gamma, Beta, Dirichlet and Student's t, torch's own `rsample`
    computes this gradient. Returns a tensor of shape `shape + batch_shape + event_shape`.

    Raises ValueError for a discrete or a jointly multivariate distribution, or one without `cdf`.

    Equation: eq-reparam-implicit
    """
    base = q_z
    while isinstance(base, Independent):
        base = base.base_dist
    name = type(base).__name__
    if base.event_shape or getattr(base.support, "is_discrete", False):
        raise ValueError(f"{name} has no implicit gradient here: give a continuous univariate q_z.")
    z = sample(base, shape, generator)
    try:
        cdf = base.cdf(z)
    except NotImplementedError:
        raise ValueError(f"{name} has no cdf: use its rsample, or the score function.") from None
    density = base.log_prob(z).exp().detach()
    return z - (cdf - cdf.detach()) / density  # the value is z, the gradient is the formula's


def frozen_log_prob(q_z: Distribution, z: Tensor) -> Tensor:
    """log q_φ(z) that lets gradients pass through z, but not into φ directly.

    The total derivative less the score, so that it works for any distribution. Returns what
    `q_z.log_prob(z)` does, in nats.

    Equation: eq-reparam-sticking
    """
    score = q_z.log_prob(z.detach())
    return q_z.log_prob(z) - (score - score.detach())


def pathwise_surrogate(
    q_z: Distribution,
    f: Integrand,
    K: int = 1,
    generator: torch.Generator | None = None,
    draw: Draw = rsample,
) -> Float[Tensor, "*B"]:
    """The mean of f(z_k) over draws z_k = g_φ(ε_k) through which gradients flow.

    ∇_φ E[f(z)] = E_ε[∇_φ f(g_φ(ε))]. `f` takes z of shape (K, *B, Z) to values (K, *B), and may
    itself depend on φ, as log p(x, z) − log q_φ(z|x) does. `draw` may be `implicit_rsample`.

    Raises ValueError where q_z cannot be reparametrized, and for K < 1.

    Equation: eq-reparam-pathwise
    """
    _require_draws(K, 1)
    if draw is rsample and not q_z.has_rsample:
        raise ValueError(
            f"{type(q_z).__name__} cannot be reparametrized: use score_function_surrogate, "
            "or draw=implicit_rsample for a continuous family with a cdf."
        )
    return f(draw(q_z, (K,), generator)).mean(0)


def score_function_surrogate(
    q_z: Distribution,
    f: Integrand,
    K: int = 1,
    generator: torch.Generator | None = None,
    baseline: Float[Tensor, "*B"] | float | Literal["leave-one-out"] = 0.0,
) -> Float[Tensor, "*B"]:
    """The mean of (f(z_k) − b) log q_φ(z_k) + f(z_k), with z_k and the factor held fixed.

    ∇_φ E[f(z)] = E[(f(z) − b) ∇_φ log q_φ(z)] + E[∂f/∂φ]. The last term vanishes unless f itself
    depends on what is differentiated. `f` takes z of shape (K, *B, Z), or (K, *B) for univariate
    q_z, to values (K, *B); it need not be differentiable in z, and z may be discrete. The baseline
    b must not depend on z_k: "leave-one-out" takes the mean of the other K − 1 values.

    Raises ValueError for K < 1, for K < 2 with "leave-one-out", and for an unknown baseline.

    Equation: eq-reparam-score
    """
    _require_draws(K, 2 if isinstance(baseline, str) else 1)
    z = sample(q_z, (K,), generator)
    values = f(z)
    signal = values.detach()
    if isinstance(baseline, str):
        if baseline != "leave-one-out":
            raise ValueError(f"Baseline {baseline!r} is unknown: use 'leave-one-out' or a number.")
        signal = (signal - signal.mean(0)) * (K / (K - 1))  # = f_k − mean of the others
    else:
        signal = signal - torch.as_tensor(baseline, device=signal.device).detach()
    return (signal * q_z.log_prob(z) + values).mean(0)


def sticking_the_landing_surrogate(
    q_z: Distribution,
    log_p_x_and_z: Integrand,
    K: int = 1,
    generator: torch.Generator | None = None,
    draw: Draw = rsample,
) -> Float[Tensor, "*B"]:
    """The pathwise surrogate of the ELBO without its score term, whose mean is zero.

    ∇_φ ELBO = E_ε[∇_z(log p(x, z) − log q_φ(z|x)) ∂g_φ(ε)/∂φ]: zero for every single draw where q
    is the posterior. `log_p_x_and_z` takes z of shape (K, *B, Z) to log p(x, z), (K, *B), in nats.

    Raises ValueError as `pathwise_surrogate` does.

    Equation: eq-reparam-sticking
    """
    return pathwise_surrogate(
        q_z, lambda z: log_p_x_and_z(z) - frozen_log_prob(q_z, z), K, generator, draw
    )


def naive_surrogate(
    q_z: Distribution, f: Integrand, K: int = 1, generator: torch.Generator | None = None
) -> Float[Tensor, "*B"]:
    """The mean of f(z_k) with the draws held fixed: a wrong φ-gradient, kept to show what it is.

    For f(z) = log p(x, z) − log q_φ(z|x) its φ-gradient is −∇_φ log q_φ(z_k|x), whose mean is zero
    whatever the data. The gradient to θ inside log p_θ(x, z) is right and unbiased.

    Raises ValueError for K < 1.

    Equation: eq-reparam-naive
    """
    _require_draws(K, 1)
    return f(sample(q_z, (K,), generator)).mean(0)


def gradient_samples(
    surrogate: Callable[..., Tensor], parameters: tuple[Tensor, ...], K: int
) -> tuple[Tensor, ...]:
    """K independent draws of a gradient estimate, so that its mean and variance can be measured.

    `surrogate(*parameters)` is called once, with K copies of each parameter along a new first axis
    of the batch, and must treat the copies independently. Returns one tensor (K, *shape) for each
    parameter of shape `shape`: entry k is the gradient of copy k's surrogate, summed over examples.

    Raises ValueError for K < 1.

    Equation: eq-reparam-variance
    """
    _require_draws(K, 1)
    copies = tuple(p.detach().expand(K, *p.shape).clone().requires_grad_(True) for p in parameters)
    return torch.autograd.grad(surrogate(*copies).sum(), copies)


def _require_draws(K: int, least: int) -> None:
    if least > K:
        raise ValueError(f"K = {K} draws are too few here: give at least {least}.")
