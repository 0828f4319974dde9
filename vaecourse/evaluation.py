"""What a trained model is worth, in nats and with standard errors."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Estimate(NamedTuple):
    """A Monte Carlo mean and its standard error."""

    mean: float
    se: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.se:.2f}"


def mean_and_se(values: Float[Tensor, " N"]) -> Estimate:
    """Mean of independent values and its standard error, the sample deviation over √N.

    Raises ValueError for fewer than two values, whose spread is not defined.
    """
    if values.numel() < 2:
        raise ValueError(f"A standard error needs at least 2 values, not {values.numel()}.")
    values = values.double()
    return Estimate(values.mean().item(), (values.std() / values.numel() ** 0.5).item())


@torch.no_grad()
def in_batches(
    f: Callable[[Float[Tensor, "B D"]], Float[Tensor, " B"]],
    x: Float[Tensor, "N D"],
    batch_size: int = 1000,
) -> Float[Tensor, " N"]:
    """Apply a per-example function to many rows without gradient, `batch_size` rows at a time."""
    return torch.cat([f(batch) for batch in x.split(batch_size)])


LogW = Callable[[Tensor, int, torch.Generator | None], Tensor]


@torch.no_grad()
def log_likelihood(
    log_w: LogW,
    x: Float[Tensor, "N D"],
    K: int,
    generator: torch.Generator | None = None,
    *,
    batch_size: int = 100,
    draws_per_pass: int = 100,
) -> Float[Tensor, " N"]:
    """Importance-sampled log-likelihood of each example, in bounded memory.

    log p̂(x) = log (1/K) Σₖ wₖ, computed in log space. In expectation it is a lower bound on
    log p(x) that rises with K.

    Args:
        log_w: gives log-weights (K, B) for `(x, K, generator)`, as `VAE.log_w` does.
        x: rows to score.
        K: importance samples an example.

    Returns nats, (N,). Equation: eq-elbo-iwae
    """
    if K < 1:
        raise ValueError(f"The number of importance samples must be at least 1, not {K}.")
    scores = []
    for batch in x.split(batch_size):
        total = batch.new_full((len(batch),), -torch.inf)
        for start in range(0, K, draws_per_pass):
            draws = log_w(batch, min(draws_per_pass, K - start), generator)
            total = torch.logaddexp(total, draws.logsumexp(0))
        scores.append(total - torch.tensor(float(K)).log().to(total))
    return torch.cat(scores)


def active_units(q_loc: Float[Tensor, "N Z"], threshold: float = 0.01) -> int:
    """Number of latents whose posterior mean varies over the data by more than `threshold`.

    Source: Burda et al. (2016), Var(E[z | x]) > 0.01.
    """
    return int((q_loc.var(0) > threshold).sum())


def pixel_entropy(x: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
    """Entropy of the Bernoulli draws that binarize an image, in nats.

    H(x) = −Σ_d [x_d ln x_d + (1 − x_d) ln(1 − x_d)]. No model of grey pixels under the Bernoulli
    (cross-entropy) loss has an expected loss below it.
    """
    return (torch.special.entr(x) + torch.special.entr(1 - x)).sum(-1)
