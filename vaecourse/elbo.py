"""The evidence lower bound and what is built from its log-weights; larger is better everywhere.

A log-weight is ln w = ln p(x, z) − ln q(z | x) for a draw z from q(z | x): its mean is the bound
on ln p(x), and the mean of w is p(x) itself.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

LogDensity = Callable[[Float[Tensor, "K B Z"]], Float[Tensor, "K B"]]


def log_weights(
    x: Float[Tensor, "B D"],
    z: Float[Tensor, "K B Z"],
    p_z: Distribution,
    p_x_given_z: Callable[[Float[Tensor, "K B Z"]], Distribution],
    q_z: Distribution,
) -> Float[Tensor, "K B"]:
    """Log-weights of the draws z ~ q(z | x).

    ln w = ln p(x | z) + ln p(z) − ln q(z | x), in nats; `q_z` has one member for each example.

    Equation: eq-elbo-log-w
    """
    return p_x_given_z(z).log_prob(x) + p_z.log_prob(z) - q_z.log_prob(z)


def elbo_from_log_w(log_w: Float[Tensor, "K B"]) -> Float[Tensor, " B"]:
    """The bound as a mean log-weight.

    (1/K) Σ_k [ln p(x, z_k) − ln q(z_k | x)], in nats: unbiased for the bound.

    Equation: eq-elbo-bound
    """
    return log_w.mean(0)


def elbo_from_kl(
    log_p_x_given_z: Float[Tensor, "K B"], kl: Float[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """The bound as reconstruction minus divergence, where KL(q(z | x)‖p(z)) is known exactly.

    (1/K) Σ_k ln p(x | z_k) − KL(q(z | x)‖p(z)), in nats: unbiased for the bound.

    Equation: eq-elbo-kl
    """
    return log_p_x_given_z.mean(0) - kl


def elbo_from_entropy(
    log_p_x_z: Float[Tensor, "K B"], entropy: Float[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """The bound as expected log-joint plus entropy, where the entropy of q(z | x) is known exactly.

    (1/K) Σ_k ln p(x, z_k) + H(q(z | x)), in nats: unbiased for the bound.

    Equation: eq-elbo-entropy
    """
    return log_p_x_z.mean(0) + entropy


def gap(log_p_x: Float[Tensor, " B"], elbo: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """What the bound misses; it equals KL(q(z | x)‖p(z | x)).

    ln p(x) − ELBO(x), in nats, where the marginal is known.

    Equation: eq-elbo-gap
    """
    return log_p_x - elbo


def sigma_points(
    loc: Float[Tensor, "B Z"], scale_tril: Float[Tensor, "B Z Z"]
) -> Float[Tensor, "K B Z"]:
    """K = 2Z points that stand in for draws of N(loc, scale_tril scale_trilᵀ).

    loc ± √Z times each column of scale_tril. Their mean and covariance are those of the Gaussian,
    so the average of any quadratic over them, such as a linear-Gaussian log-joint, is exact.

    Equation: eq-elbo-sigma-points
    """
    steps = math.sqrt(loc.shape[-1]) * scale_tril.movedim(-1, 0)
    return torch.cat([loc + steps, loc - steps])


def iwae_bound(log_w: Float[Tensor, "K B"]) -> Float[Tensor, " B"]:
    """Importance-weighted bound: the logarithm of the mean weight.

    ln (1/K) Σ_k w_k, in nats. Its expectation is the ELBO at K = 1, never falls as K grows, and
    never exceeds ln p(x).

    Source: Burda et al. (2016). Equation: eq-elbo-iwae
    """
    return log_w.logsumexp(0) - math.log(len(log_w))


def log_p_x_importance(
    log_w: Float[Tensor, "K B"],
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Importance-sampled ln p(x) and its standard error, in nats.

    ln p̂(x) = ln (1/K) Σ_k w_k; p̂ is unbiased for p(x), ln p̂ is biased low. The standard error is
    sd(w) / (√K mean(w)) (delta method). It cannot exceed 1: near 1, a single draw carries nearly
    all the weight, and the estimate is not to be trusted.

    Raises ValueError for fewer than two draws.

    Equation: eq-elbo-importance
    """
    K = len(log_w)
    if K < 2:
        raise ValueError("A standard error needs at least 2 draws: give log_w more rows.")
    log_p_x = iwae_bound(log_w)
    return log_p_x, (log_w - log_p_x).exp().std(0) / math.sqrt(K)


def ais(
    log_q_z: LogDensity,
    log_p_x_z: LogDensity,
    z: Float[Tensor, "K B Z"],
    betas: Float[Tensor, " T"],
    *,
    step_size: float = 0.2,
    leapfrog_steps: int = 5,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "K B"]:
    """Log-weights of annealed importance sampling, one for each chain.

    ln w = Σ_t (β_t − β_{t−1}) [ln p(x, z_{t−1}) − ln q(z_{t−1})], where between the terms z moves
    by a Hamiltonian Monte Carlo step that leaves q^{1−β_t} p(x, ·)^{β_t} invariant.

    Forward, `betas` rises from 0 to 1 and z comes from q: E[w] = p(x), so E[ln w] ≤ ln p(x).
    Backward, `betas` falls from 1 to 0 and z comes from the exact posterior: E[w] = 1/p(x), so
    E[−ln w] ≥ ln p(x). Both hold for any step size; a poor one only loosens them. With two betas
    the forward weights are those of plain importance sampling.

    Args:
        log_q_z: ln q(z), normalized, for z of shape (K, B, Z), differentiable in z.
        log_p_x_z: ln p(x, z), likewise.
        z: where the chains start.
        betas: the schedule, from 0 to 1 or from 1 to 0; steps that are shorter near 0, such as
            `torch.linspace(0, 1, 20) ** 2`, suit a q much wider than the posterior.
        step_size: of the leapfrog integrator, in units of z.
        leapfrog_steps: of each Hamiltonian step.

    Raises ValueError for a schedule that does not run from 0 to 1 or from 1 to 0.

    Source: Neal (2001). Equation: eq-elbo-ais
    """
    ends = (betas[0].item(), betas[-1].item()) if len(betas) > 1 else None
    monotone = (betas.diff() >= 0).all() or (betas.diff() <= 0).all()
    if ends not in ((0.0, 1.0), (1.0, 0.0)) or not monotone:
        raise ValueError(
            "betas must rise from 0 to 1 or fall from 1 to 0: start from torch.linspace(0, 1, 20)."
        )

    z = z.detach()
    log_w = z.new_zeros(z.shape[:-1])
    schedule = betas.to(z)
    for before, beta in zip(schedule[:-1], schedule[1:], strict=True):
        with torch.no_grad():
            log_w = log_w + (beta - before) * (log_p_x_z(z) - log_q_z(z))
        if beta == schedule[-1]:
            break  # a further step would not change the weights

        def log_f(z: Tensor, beta: Tensor = beta) -> Tensor:
            return (1 - beta) * log_q_z(z) + beta * log_p_x_z(z)

        z = _hamiltonian_step(log_f, z, step_size, leapfrog_steps, generator)
    return log_w


class Sandwich(NamedTuple):
    """Stochastic bounds with lower ≤ ln p(x) ≤ upper in expectation, and their standard errors."""

    lower: Float[Tensor, " B"]
    lower_se: Float[Tensor, " B"]
    upper: Float[Tensor, " B"]
    upper_se: Float[Tensor, " B"]


def ais_sandwich(
    log_q_z: LogDensity,
    log_p_x_z: LogDensity,
    q_draws: Float[Tensor, "K B Z"],
    posterior_draws: Float[Tensor, "K B Z"],
    betas: Float[Tensor, " T"],
    *,
    step_size: float = 0.2,
    leapfrog_steps: int = 5,
    generator: torch.Generator | None = None,
) -> Sandwich:
    """Bounds on ln p(x) from both sides, by annealing forward from q and back from the posterior.

    E[ln w_forward] ≤ ln p(x) ≤ E[−ln w_backward], in nats, each with its standard error over the
    K chains; the two close as the schedule `betas`, rising from 0 to 1, gets finer. The upper
    bound needs exact posterior draws: where the model drew x itself, the z it came from is one.

    Raises ValueError for another schedule, or fewer than two chains.

    Source: Grosse et al. (2015). Equation: eq-elbo-sandwich
    """
    K = len(q_draws)
    if K < 2:
        raise ValueError("A standard error needs at least 2 chains: give q_draws more rows.")
    bounds = []
    for sign, z, schedule in ((1, q_draws, betas), (-1, posterior_draws, betas.flip(0))):
        log_w = sign * ais(
            log_q_z,
            log_p_x_z,
            z,
            schedule,
            step_size=step_size,
            leapfrog_steps=leapfrog_steps,
            generator=generator,
        )
        bounds += [log_w.mean(0), log_w.std(0) / math.sqrt(K)]
    return Sandwich(*bounds)


def _hamiltonian_step(
    log_f: LogDensity,
    z: Tensor,
    step_size: float,
    leapfrog_steps: int,
    generator: torch.Generator | None,
) -> Tensor:
    """One Metropolis-corrected Hamiltonian move of every chain on its own."""

    def value_and_slope(z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value = log_f(z)
            (slope,) = torch.autograd.grad(value.sum(), z)
        return value.detach(), slope

    momentum = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
    value, slope = value_and_slope(z)
    energy = momentum.square().sum(-1) / 2 - value
    proposal = z
    for _ in range(leapfrog_steps):
        momentum = momentum + step_size / 2 * slope
        proposal = proposal + step_size * momentum
        value, slope = value_and_slope(proposal)
        momentum = momentum + step_size / 2 * slope
    proposed_energy = momentum.square().sum(-1) / 2 - value
    uniform = torch.rand(energy.shape, generator=generator, device=z.device, dtype=z.dtype)
    # Where the energy is not a number the comparison is false: the move is rejected.
    accepted = uniform.log() < energy - proposed_energy
    return torch.where(accepted[..., None], proposal, z)
