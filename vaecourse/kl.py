"""Kullback–Leibler divergence: closed forms, Monte Carlo estimates, and fits in both directions.

Everywhere `KL(q‖p)` averages over its first argument: E_q[ln q(z) − ln p(z)], in nats.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    kl_divergence,
)

from vaecourse.sampling import sample


def kl_normal(
    q_loc: Float[Tensor, "*#shape"],
    q_scale: Float[Tensor, "*#shape"],
    p_loc: Float[Tensor, "*#shape"],
    p_scale: Float[Tensor, "*#shape"],
) -> Float[Tensor, "..."]:
    """KL between two univariate Gaussians, elementwise.

    ln(σ_p/σ_q) + (σ_q² + (μ_q − μ_p)²) / (2σ_p²) − ½

    The arguments broadcast. For diagonal Gaussians, sum the result over the axis `Z`.

    Equation: eq-kl-normal
    """
    ratio = q_scale / p_scale
    return (ratio.square() + ((q_loc - p_loc) / p_scale).square() - 1) / 2 - ratio.log()


def kl(q: Distribution, p: Distribution) -> Float[Tensor, "..."]:
    """KL(q‖p) in closed form, one value for each member of the batch.

    E_q[ln q(z) − ln p(z)]; +∞ where q puts probability on what p excludes.

    Discrete q with finitely many outcomes: the sum over them. Gaussians, diagonal and full in any
    combination, and the other pairs that `torch.distributions` knows: their formula. A batch of
    `Normal` gives a value for each coordinate; wrap it in `Independent(…, 1)` to have the sum.

    Raises ValueError for a pair without closed form.

    Equation: eq-kl-definition
    """
    if isinstance(q, Independent) and isinstance(p, Independent):
        axes = q.reinterpreted_batch_ndims
        if axes == p.reinterpreted_batch_ndims:
            inner = kl(q.base_dist, p.base_dist)
            return inner.sum(tuple(range(-axes, 0))) if axes else inner
    if isinstance(q, MultivariateNormal) != isinstance(p, MultivariateNormal):
        q, p = _as_full(q), _as_full(p)
    try:
        return _kl_sum(q, p) if q.has_enumerate_support else kl_divergence(q, p)
    except NotImplementedError as error:
        raise ValueError(
            f"KL from {type(q).__name__} to {type(p).__name__} has no closed form here: use "
            "kl_monte_carlo."
        ) from error


def kl_terms(
    q: Distribution,
    p: Distribution,
    K: int,
    estimator: str = "k1",
    generator: torch.Generator | None = None,
) -> Float[Tensor, "K ..."]:
    """K terms whose mean estimates KL(q‖p), from z drawn from q, with r = p(z)/q(z).

    k1 = −ln r: unbiased; a term, and even the mean, may be negative.
    k2 = ½(ln r)²: never negative, but biased: its mean is KL only to leading order as p → q.
    k3 = r − 1 − ln r: never negative, and unbiased where q covers the support of p (E_q[r] = 1).

    A draw that p excludes gives +∞. No gradient flows to the parameters of q through the draws.

    Raises ValueError for an unknown estimator or K < 1.

    Equation: eq-kl-estimators
    """
    if K < 1:
        raise ValueError(f"K is {K}, but an estimate needs at least one sample: take K ≥ 1.")
    q = q.expand(torch.broadcast_shapes(q.batch_shape, p.batch_shape))
    z = sample(q, (K,), generator)
    log_ratio = _log_prob(p, z) - _log_prob(q, z)
    match estimator:
        case "k1":
            return -log_ratio
        case "k2":
            return log_ratio.square() / 2
        case "k3":
            return torch.expm1(log_ratio) - log_ratio
    raise ValueError(f"There is no estimator {estimator!r}: choose k1, k2 or k3.")


def kl_monte_carlo(
    q: Distribution,
    p: Distribution,
    K: int,
    estimator: str = "k1",
    generator: torch.Generator | None = None,
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Monte Carlo estimate of KL(q‖p) and its standard error, each of q's batch shape.

    (1/K) Σ_k t_k and std(t)/√K, for the terms t of `kl_terms`. An infinite estimate has no
    standard error: it is nan.

    Raises ValueError for an unknown estimator or K < 2.

    Equation: eq-kl-monte-carlo
    """
    if K < 2:
        raise ValueError(f"K is {K}, but a standard error needs two samples: take K ≥ 2.")
    terms = kl_terms(q, p, K, estimator, generator)
    return terms.mean(0), terms.std(0) / math.sqrt(K)


def fit_forward(p: Distribution) -> Normal | Independent:
    """The Gaussian q that minimizes the forward divergence KL(p‖q), diagonal where p is a vector.

    Its mean and variances are those of p. The mean is taken over p, so q has to cover all of it.

    Raises ValueError where p has no finite mean and variance.

    Equation: eq-kl-forward
    """
    loc, scale = p.mean, p.variance.sqrt()
    if not (loc.isfinite().all() and scale.isfinite().all()):
        raise ValueError(
            f"{type(p).__name__} has no finite mean and variance, so no Gaussian is closest to it "
            "in forward KL: choose a target that has both."
        )
    return _diagonal(loc, scale, len(p.event_shape))


def fit_reverse(
    p: Distribution,
    loc: Float[Tensor, "*Z"],
    scale: Float[Tensor, "*Z"],
    nodes: int = 101,
) -> Normal | Independent:
    """A Gaussian q that minimizes the reverse divergence KL(q‖p), diagonal where p is a vector.

    −Σ ln σ − E_ε[ln p(μ + σ ε)], its mean over ε ~ N(0, I) by quadrature with `nodes` points an
    axis, minimized from the start `loc`, `scale` of shape `p.event_shape`. The mean is taken over
    q, so q avoids what p excludes. The answer is the local optimum near the start: a target with
    two modes may have two.

    Raises ValueError where p excludes part of the space (KL is then +∞ for every Gaussian), where
    the start's shape is not p's, or for more than two axes (the grid has `nodes ** Z` points).

    Equation: eq-kl-reverse
    """
    if not loc.shape == scale.shape == p.event_shape:
        raise ValueError(
            f"The start has shapes {tuple(loc.shape)} and {tuple(scale.shape)}, the target "
            f"{tuple(p.event_shape)}: give loc and scale in the target's shape."
        )
    if loc.numel() > 2:
        raise ValueError(f"A grid over {loc.numel()} axes is too large: fit at most two.")
    free_loc = loc.detach().double().clone().requires_grad_()
    log_scale = scale.detach().double().log().requires_grad_()
    noise, weight = _noise_grid(nodes, free_loc)

    def loss() -> Tensor:
        z = free_loc + log_scale.exp() * noise
        return -log_scale.sum() - (weight * _log_prob(p, z)).sum()

    if not p.support.check(1e6 * noise.to(loc)).all():  # type: ignore[union-attr]
        raise ValueError(
            f"{type(p).__name__} excludes part of the space, so KL(q‖p) is infinite for every "
            "Gaussian q: choose a target that is positive everywhere."
        )
    optimizer = torch.optim.LBFGS(
        [free_loc, log_scale],
        max_iter=500,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    fitted = free_loc.detach().to(loc), log_scale.detach().exp().to(scale)
    return _diagonal(*fitted, len(p.event_shape))


def _kl_sum(q: Distribution, p: Distribution) -> Tensor:
    # Not torch's own formula: it calls a Bernoulli of logit 20 in float32 certain, and KL infinite.
    q = q.expand(torch.broadcast_shapes(q.batch_shape, p.batch_shape))
    z = q.enumerate_support()
    log_q, log_p = _log_prob(q, z), _log_prob(p, z)
    never = log_q == -torch.inf  # 0 ln 0 = 0
    difference = torch.where(never, 0, log_q - log_p)
    return (torch.where(never, 0, log_q.exp()) * difference).sum(0)


def _log_prob(d: Distribution, z: Tensor) -> Tensor:
    """ln d(z), −∞ outside the support; torch raises there, or goes on with the formula."""
    inside = d.support.check(z)  # type: ignore[union-attr]
    if not inside.all():
        # Points that d accepts stand in for those outside.
        shape = z.shape[: z.dim() - len(d.event_shape) - len(d.batch_shape)]
        accepted = sample(d, shape, torch.Generator(z.device).manual_seed(0))
        z = torch.where(inside.reshape(inside.shape + (1,) * len(d.event_shape)), z, accepted)
    log_prob = d.log_prob(z)
    if isinstance(d, Bernoulli | Categorical | OneHotCategorical):
        # torch clamps given probabilities to the rounding unit before it takes their logarithm.
        unit = torch.finfo(log_prob.dtype).eps
        probs = _outcome_probs(d, z)
        clamped = (probs < unit) & (log_prob > 1.001 * math.log(unit))
        # The inner where keeps 0 · ∞ out of the gradient.
        log_prob = torch.where(
            clamped, torch.where(clamped & (probs > 0), probs, 1).log(), log_prob
        )
        inside = inside & ~(clamped & (probs == 0))
    return torch.where(inside, log_prob, -torch.inf)


def _outcome_probs(d: Distribution, z: Tensor) -> Tensor:
    if isinstance(d, Bernoulli):
        return torch.where(z == 1, d.probs, 1 - d.probs)
    if isinstance(d, OneHotCategorical):
        return (d.probs * z).sum(-1)
    assert isinstance(d, Categorical)
    index = z.long().unsqueeze(-1)
    probs = d.probs.expand(*torch.broadcast_shapes(z.shape, d.batch_shape), d.probs.shape[-1])
    return probs.gather(-1, index.expand(*probs.shape[:-1], 1)).squeeze(-1)


def _as_full(d: Distribution) -> Distribution:
    """A diagonal Gaussian as a MultivariateNormal; any other distribution as it is."""
    if isinstance(d, Independent) and isinstance(d.base_dist, Normal) and len(d.event_shape) == 1:
        return MultivariateNormal(d.mean, scale_tril=d.stddev.diag_embed())
    return d


def _diagonal(loc: Tensor, scale: Tensor, event_dims: int) -> Normal | Independent:
    q = Normal(loc, scale)
    return Independent(q, event_dims) if event_dims else q


def _noise_grid(nodes: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Points in the shape of `like`, with weights that average over N(0, I): trapezium rule."""
    points = torch.linspace(-8, 8, nodes, dtype=like.dtype, device=like.device)
    axes = [points] * like.numel()
    grid = torch.cartesian_prod(*axes).reshape(-1, *like.shape)
    weight = torch.exp(-grid.reshape(len(grid), -1).square().sum(-1) / 2)
    return grid, weight / weight.sum()
