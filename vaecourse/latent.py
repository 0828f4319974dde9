"""Latent variable models whose marginal is known, and the naive estimate for the others."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)

from vaecourse.sampling import sample


def exponential_from_uniform(
    u: Float[Tensor, "*shape"], rate: Float[Tensor, ""] | float
) -> Float[Tensor, "*shape"]:
    """Turn uniform draws on [0, 1) into exponential ones with mean 1/rate.

    x = −ln(1 − u) / rate. Written with 1 − u, because a uniform draw can be 0 but not 1.

    Raises ValueError when the rate is not positive.

    Equation: eq-latent-exponential
    """
    if not rate > 0:
        raise ValueError(
            f"The rate must be positive, not {float(rate):.4g}: it is 1 over the mean."
        )
    return -torch.log1p(-u) / rate


def categorical_from_uniform(
    u: Float[Tensor, "*shape"], probs: Float[Tensor, " C"]
) -> Int[Tensor, "*shape"]:
    """Turn uniform draws on [0, 1) into category numbers with the given probabilities.

    f(u) = the first c with probs_0 + … + probs_c > u, so P(f(U) = c) = probs_c.

    Raises ValueError when the probabilities do not sum to 1.

    Equation: eq-latent-discrete-pushforward
    """
    cdf = probs.cumsum(0)
    if not torch.isclose(cdf[-1], torch.ones_like(cdf[-1]), rtol=0, atol=1e-5) or (probs < 0).any():
        raise ValueError(
            f"probs must be at least 0 and sum to 1, but sum to {cdf[-1]:.6g}: divide by the sum."
        )
    # Rounding can leave the last sum below a draw close to 1.
    return torch.searchsorted(cdf[:-1].contiguous(), u.contiguous(), right=True)


def from_uniform(
    u: Float[Tensor, "*shape"],
    cdf: Callable[[Float[Tensor, "*shape"]], Float[Tensor, "*shape"]],
    low: float,
    high: float,
) -> Float[Tensor, "*shape"]:
    """Turn uniform draws into draws with any continuous `cdf`, by bisection between two bounds.

    x solves cdf(x) = u, to the precision of the numbers; u strictly between 0 and 1.

    Raises ValueError when the bounds do not enclose the answer.

    Equation: eq-latent-inverse-cdf
    """
    left, right = torch.full_like(u, low), torch.full_like(u, high)
    if (cdf(left) > u).any() or (cdf(right) < u).any():
        raise ValueError(
            f"Some draws have their quantile outside [{low:.4g}, {high:.4g}]: widen the bounds."
        )
    for _ in range(torch.finfo(u.dtype).bits + 10):
        middle = (left + right) / 2
        below = cdf(middle) < u
        left, right = torch.where(below, middle, left), torch.where(below, right, middle)
    return (left + right) / 2


def pushforward_log_prob(
    x: Float[Tensor, "*shape"],
    p_z: Distribution,
    inverse: Callable[[Float[Tensor, "*shape"]], Float[Tensor, "*shape"]],
) -> Float[Tensor, "*shape"]:
    """Log-density of x = f(z), elementwise, from the density of z and the inverse of f.

    ln p_X(x) = ln p_Z(f⁻¹(x)) + ln |d f⁻¹(x) / dx|, in nats; the derivative is automatic. f must
    be increasing or decreasing, and x inside its range.

    Equation: eq-latent-change-of-variables
    """
    with torch.enable_grad():
        x_leaf = x.detach().requires_grad_()
        z = inverse(x_leaf)
        (slope,) = torch.autograd.grad(z.sum(), x_leaf)
    return p_z.log_prob(z.detach()) + slope.abs().log()


@dataclass(frozen=True, eq=False)
class MixtureOfGaussians:
    """The latent variable model with a category z and a Gaussian p(x | z) for each.

    p(x) = Σ_c probs_c N(x; loc_c, covariance_c).

    Equation: eq-latent-mixture
    """

    probs: Float[Tensor, " C"]
    loc: Float[Tensor, "C D"]
    covariance: Float[Tensor, "C D D"]

    def __post_init__(self) -> None:
        _, failed = torch.linalg.cholesky_ex(self.covariance)
        if failed.any() or not self.covariance.isfinite().all():
            raise ValueError(
                "A component's covariance is not positive definite, because it holds too few "
                "points: use fewer components, start elsewhere, or give em_step a floor."
            )

    @classmethod
    def start(
        cls, x: Float[Tensor, "N D"], components: int, generator: torch.Generator | None = None
    ) -> "MixtureOfGaussians":
        """Equal components with the covariance of the data, centred on random data points.

        Raises ValueError when there are more components than points.
        """
        if not 1 <= components <= len(x):
            raise ValueError(
                f"{len(x)} points cannot start {components} components: use between 1 and {len(x)}."
            )
        order = torch.randperm(len(x), generator=generator, device=x.device)
        residual = x - x.mean(0)
        covariance = residual.mT @ residual / len(x)
        return cls(
            torch.full_like(x[:components, 0], 1 / components),
            x[order[:components]],
            covariance.expand(components, -1, -1).clone(),
        )

    @property
    def _scale_tril(self) -> Tensor:
        return torch.linalg.cholesky(self.covariance)

    @property
    def p_z(self) -> Categorical:
        """The distribution of the category."""
        return Categorical(probs=self.probs)

    def p_x_given_z(self, z: Int[Tensor, "*N"]) -> MultivariateNormal:
        """The Gaussian of each given category."""
        return MultivariateNormal(self.loc[z], scale_tril=self._scale_tril[z])

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Int[Tensor, " N"], Float[Tensor, "N D"]]:
        """Draw n pairs (z, x): the category first, then the point."""
        z = sample(self.p_z, (n,), generator)
        noise = torch.randn(
            n, self.loc.shape[1], generator=generator, device=self.loc.device, dtype=self.loc.dtype
        )
        return z, self.loc[z] + (self._scale_tril[z] @ noise[..., None]).squeeze(-1)

    def log_joint(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """ln p(x, z) for every category, in nats."""
        p_x_given_z = MultivariateNormal(self.loc, scale_tril=self._scale_tril)
        return self.probs.log() + p_x_given_z.log_prob(x[:, None])

    def log_prob(self, x: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """The marginal ln p(x) = ln Σ_z p(x, z), in nats.

        Equation: eq-latent-mixture
        """
        return self.log_joint(x).logsumexp(-1)

    def responsibilities(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """The exact posterior p(z | x); each row sums to 1.

        Equation: eq-latent-responsibilities
        """
        return self.log_joint(x).softmax(-1)

    def em_step(self, x: Float[Tensor, "N D"], floor: float = 0.0) -> "MixtureOfGaussians":
        """One step of expectation maximization; without a floor it never lowers Σ ln p(x).

        E: responsibilities. M: weighted proportions, means and covariances; `floor` is added to
        the variances.

        Raises ValueError when a component is left with too few points.

        Equation: eq-latent-em
        """
        r = self.responsibilities(x)
        mass = r.sum(0)
        loc = r.mT @ x / mass[:, None]
        weighted = r.mT.sqrt()[..., None] * (x - loc[:, None])  # (C, N, D)
        covariance = weighted.mT @ weighted / mass[:, None, None]
        covariance = covariance + floor * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        return MixtureOfGaussians(mass / len(x), loc, covariance)

    def fit(
        self,
        x: Float[Tensor, "N D"],
        *,
        floor: float = 0.0,
        tolerance: float = 1e-10,
        max_steps: int = 10_000,
    ) -> "MixtureOfGaussians":
        """Repeat `em_step` from here until the mean of ln p(x) rises by less than `tolerance` nats.

        A rise below the rounding error of the numbers also counts as none.

        Raises ValueError when a component collapses, or when the steps do not suffice.
        """
        mixture, before = self, self.log_prob(x).mean()
        for _ in range(max_steps):
            mixture = mixture.em_step(x, floor)
            after = mixture.log_prob(x).mean()
            rounding = 4 * torch.finfo(x.dtype).eps * after.abs()
            if (after - before).abs() <= rounding.clamp_min(tolerance):
                return mixture
            before = after
        raise ValueError(
            f"EM still gains more than {tolerance} nats a step after {max_steps} steps: allow more "
            "steps or a larger tolerance."
        )


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """The latent variable model in which everything is known exactly.

    z ~ N(0, I), x | z ~ N(weight z + loc, diag(scale²)). One scale for all coordinates makes it
    probabilistic PCA, one for each factor analysis.

    Raises ValueError when the shapes do not fit or a scale is not positive.

    Equation: eq-latent-linear-gaussian
    """

    weight: Float[Tensor, "D Z"]
    loc: Float[Tensor, " D"]
    scale: Float[Tensor, ""] | Float[Tensor, " D"]

    def __post_init__(self) -> None:
        pixels = len(self.weight)
        if self.loc.shape != (pixels,) or self.scale.shape not in ((), (pixels,)):
            raise ValueError(
                f"weight has {pixels} rows, but loc has shape {tuple(self.loc.shape)} and scale "
                f"{tuple(self.scale.shape)}: give loc {pixels} entries, and scale as many or none."
            )
        if not (self.scale > 0).all():
            raise ValueError("scale must be positive: take its square root, or fewer latents.")

    @property
    def p_z(self) -> Independent:
        """The prior N(0, I)."""
        zero = self.weight.new_zeros(self.weight.shape[1])
        return Independent(Normal(zero, torch.ones_like(zero)), 1)

    def p_x_given_z(self, z: Float[Tensor, "*K Z"]) -> Independent:
        """The decoder N(weight z + loc, diag(scale²))."""
        return Independent(Normal(z @ self.weight.mT + self.loc, self.scale), 1)

    @property
    def p_x(self) -> LowRankMultivariateNormal:
        """The exact marginal N(loc, weight weightᵀ + diag(scale²)).

        Equation: eq-latent-linear-gaussian-marginal
        """
        var = self.scale.square().expand(self.loc.shape)
        return LowRankMultivariateNormal(self.loc, self.weight, var)

    def posterior(self, x: Float[Tensor, "*B D"]) -> MultivariateNormal:
        """The exact p(z | x), one Gaussian an example.

        precision = I + weightᵀ diag(scale⁻²) weight, the same for every x;
        mean = precision⁻¹ weightᵀ diag(scale⁻²) (x − loc).

        Equation: eq-latent-linear-gaussian-posterior
        """
        scaled = self.weight / self.scale.square().expand(self.loc.shape)[:, None]
        eye = torch.eye(scaled.shape[1], dtype=scaled.dtype, device=scaled.device)
        precision = eye + self.weight.mT @ scaled
        cholesky = torch.linalg.cholesky(precision)
        loc = torch.cholesky_solve(((x - self.loc) @ scaled)[..., None], cholesky).squeeze(-1)
        return MultivariateNormal(loc, precision_matrix=precision)

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "N Z"], Float[Tensor, "N D"]]:
        """Draw n pairs (z, x): the latent first, then the point."""
        z = sample(self.p_z, (n,), generator)
        return z, sample(self.p_x_given_z(z), (), generator)


def fit_ppca(x: Float[Tensor, "N D"], Z: int) -> LinearGaussian:
    """Maximum likelihood for probabilistic PCA, in closed form.

    With eigenvalues λ_1 ≥ … ≥ λ_D and eigenvectors u_d of the covariance of x (divided by N):
    scale² = mean of λ_{Z+1} … λ_D, column d of weight = u_d √(λ_d − scale²).

    Raises ValueError unless 1 ≤ Z < D, and when Z latents leave no noise.

    Source: Tipping & Bishop (1999). Equation: eq-latent-ppca
    """
    size = x.shape[1]
    if not 1 <= Z < size:
        raise ValueError(f"{Z} latents do not suit {size} coordinates: use 1 to {size - 1}.")
    data = x.double()
    loc = data.mean(0)
    residual = data - loc
    values, vectors = torch.linalg.eigh(residual.mT @ residual / len(data))  # ascending
    var = values[:-Z].mean()
    if not var > values[-1] * 1e-12:
        raise ValueError(
            f"{Z} latents leave no noise in {len(x)} points, so the likelihood is unbounded: use "
            "fewer latents or more points."
        )
    weight = vectors[:, -Z:] * (values[-Z:] - var).clamp_min(0).sqrt()
    return LinearGaussian(weight.flip(1).to(x.dtype), loc.to(x.dtype), var.sqrt().to(x.dtype))


def naive_log_p_x(
    log_p_x_given_z: Float[Tensor, "K B"],
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Naive Monte Carlo estimate of ln p(x) from K draws of the prior, with its standard error.

    ln p̂(x) = ln (1/K) Σ_k p(x | z_k), z_k ~ p(z), in nats. p̂ is unbiased for p(x), so ln p̂ is
    biased low. The standard error is sd(w) / (√K mean(w)) with w = p(x | z) (delta method). It is
    at most 1, so it says nothing as long as no draw explains x well.

    Raises ValueError with fewer than two draws.

    Equation: eq-latent-naive
    """
    K = len(log_p_x_given_z)
    if K < 2:
        raise ValueError("A standard error needs at least 2 draws: give log_p_x_given_z more rows.")
    log_p_x = log_p_x_given_z.logsumexp(0) - math.log(K)
    ratio = (log_p_x_given_z - log_p_x).exp()
    return log_p_x, ratio.std(0) / math.sqrt(K)


def samples_needed(
    model: LinearGaussian, x: Float[Tensor, "B D"], se: float = 1.0
) -> Float[Tensor, " B"]:
    """How many draws of the prior give ln p(x) the standard error `se` (nats), exactly.

    K = (E[p(x | z)²] / p(x)² − 1) / se², at least (e^{KL(posterior ‖ prior)} − 1) / se². The
    square of a Gaussian decoder is again one, with scale / √2, so the mean has a closed form.

    Raises ValueError when `se` is not positive.

    Equation: eq-latent-samples-needed
    """
    if not se > 0:
        raise ValueError(f"se must be positive, not {se}: it is the standard error in nats.")
    narrow = LinearGaussian(model.weight, model.loc, model.scale / math.sqrt(2))
    scales = model.scale.expand(model.loc.shape)
    log_factor = -(0.5 * math.log(4 * math.pi) + scales.log()).sum()
    log_second_moment = narrow.p_x.log_prob(x) + log_factor
    return torch.expm1(log_second_moment - 2 * model.p_x.log_prob(x)) / se**2
