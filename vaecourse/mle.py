"""Maximum likelihood: the Gaussian in closed form, any other family by gradient."""

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import Distribution, transform_to


def gaussian_log_likelihood(
    x: Float[Tensor, "*#N D"], loc: Float[Tensor, "*#N D"], var: Float[Tensor, "*#N D"]
) -> Float[Tensor, "*N"]:
    """Log-density of each row under a Gaussian with independent coordinates.

    ln p(x) = −½ Σ_d [ln 2π var_d + (x_d − loc_d)² / var_d], in nats. Axes before the last
    broadcast, so a grid of parameters can be scored at once.

    Raises ValueError when a variance is not positive.

    Equation: eq-mle-gaussian-log-likelihood
    """
    if not (var > 0).all():
        raise ValueError(
            f"var must be positive, but its smallest entry is {var.min():.4g}: a density has no "
            "value there, so add noise to the data or a floor to var."
        )
    return -0.5 * (torch.log(2 * math.pi * var) + (x - loc).square() / var).sum(-1)


def gaussian_mle(x: Float[Tensor, "N D"]) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
    """Mean and variance, coordinate by coordinate, that maximize the likelihood of the rows.

    loc = mean of x, var = mean of (x − loc)²: divided by N, so biased low by (N − 1)/N. A
    coordinate that never varies gets var 0, where the likelihood has no maximum.

    Raises ValueError when there are no rows.

    Equation: eq-mle-gaussian
    """
    _require_rows(x)
    loc = x.mean(0)
    return loc, (x - loc).square().mean(0)


def gaussian_mle_full(
    x: Float[Tensor, "N D"],
) -> tuple[Float[Tensor, " D"], Float[Tensor, "D D"]]:
    """Mean and full covariance that maximize the likelihood of the rows.

    covariance = mean of (x − loc)(x − loc)ᵀ, divided by N. Its rank is at most N − 1: with N ≤ D
    it is singular, and the likelihood has no maximum.

    Raises ValueError when there are no rows.

    Equation: eq-mle-gaussian-full
    """
    _require_rows(x)
    loc = x.mean(0)
    residual = x - loc
    return loc, residual.mT @ residual / len(x)


def _require_rows(x: Tensor) -> None:
    if len(x) == 0:
        raise ValueError("x has no rows: give at least one data point.")


def fit(
    family: Callable[..., Distribution],
    x: Num[Tensor, "N *event"],
    start: Mapping[str, Tensor | float],
    *,
    max_rounds: int = 20,
    tolerance: float = 1e-6,
) -> Distribution:
    """Fit a `torch.distributions` family to the rows of `x` by gradient ascent (L-BFGS).

    max over θ of (1/N) Σ_i ln p_θ(x_i). Each parameter lives on its constraint set, reached from
    an unconstrained one through `transform_to`; the work is done in float64.

    Args:
        family: a distribution class, or `functools.partial(StudentT, torch.tensor(4.0))` to hold
            a parameter fixed.
        x: data; the first axis is the data set's, the rest is what `family` takes.
        start: where each parameter to be fitted starts. A batch of parameters is fitted as a
            batch of separate problems.
        max_rounds: restarts of the search, of 200 steps each, at most.
        tolerance: the largest gradient, in nats a data point and unit of an unconstrained
            parameter, that counts as a maximum.

    Returns the fitted member of the family, in the dtype of `x` where that is a float.

    Raises ValueError when a parameter is not continuous, when a start or a data point lies outside
    its set (so for `Uniform`, whose support moves), or when no maximum is reached.

    Equation: eq-mle-objective
    """
    _require_rows(x)
    name = getattr(family, "__name__", "The family")
    data = x.double()
    values = {k: torch.as_tensor(v, dtype=torch.double, device=x.device) for k, v in start.items()}
    constraints = family(**values, validate_args=False).arg_constraints
    transforms, free = {}, {}
    for key, value in values.items():
        try:
            transforms[key] = transform_to(constraints[key])
        except NotImplementedError as error:
            raise ValueError(
                f"The {key} of {name} cannot be fitted by gradient, because it moves in steps or "
                "within other parameters: hold it fixed with functools.partial."
            ) from error
        if not constraints[key].check(value).all():
            raise ValueError(
                f"The start of {key} is outside its range ({constraints[key]}): move it inside."
            )
        free[key] = transforms[key].inv(value).detach().clone().requires_grad_()

    def member(validate_args: bool = False) -> Distribution:
        found = {key: transforms[key](free[key]) for key in free}
        return family(**found, validate_args=validate_args)

    def mean_nll() -> Tensor:
        p_x = member()
        if not p_x.support.check(data).all():  # type: ignore[union-attr]
            raise ValueError(
                f"Some of x lies outside the support of {name}: remove it, or choose a family "
                "whose support holds the data whatever its parameters."
            )
        return -p_x.log_prob(data).sum() / len(data)

    best = math.inf
    for _ in range(max_rounds):
        try:
            loss, slope = _descend(mean_nll, list(free.values()), tolerance)
        except torch.linalg.LinAlgError:
            loss = math.nan
        # A density with a kink (Laplace) has a maximum without a vanishing gradient: there, a
        # fresh start of the search finds nothing better.
        if not math.isfinite(loss) or slope <= tolerance or best - loss <= 1e-12:
            break
        best = loss
    else:
        loss = math.nan
    if not math.isfinite(loss):
        raise ValueError(
            f"{name} reached no maximum of the likelihood: start elsewhere, or check that the "
            "likelihood is bounded."
        )
    dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
    with torch.no_grad():
        return family(**{key: transforms[key](free[key]).to(dtype) for key in free})


def _descend(
    objective: Callable[[], Tensor], parameters: list[Tensor], tolerance: float
) -> tuple[float, float]:
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=200,
        tolerance_grad=tolerance / 100,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        return loss

    optimizer.step(closure)
    loss = closure().item()
    gradients = [p.grad for p in parameters if p.grad is not None]
    return loss, max(gradient.abs().max().item() for gradient in gradients)
