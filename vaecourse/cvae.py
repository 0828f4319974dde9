"""Conditional VAEs that complete an image from the part of it that is visible.

A mask is True where a pixel is visible. Images are whole, (B, D); the models blank out what they
may not see, so that hidden pixels reach only the encoder q_φ(z | x), which test time does not use.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, kl_divergence

from vaecourse.vae import diagonal_normal, mlp, rsample_z

Mask = Bool[Tensor, " D"] | Bool[Tensor, "B D"]


def quadrant_mask(side: int, given: int) -> Bool[Tensor, " D"]:
    """Show 1, 2 or 3 quadrants: the lower left, then the upper left, then the upper right."""
    if given not in (1, 2, 3):
        raise ValueError(f"The number of given quadrants must be 1, 2 or 3, not {given}.")
    half = side // 2
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[half:, :half] = True
    if given >= 2:
        mask[:half, :half] = True
    if given == 3:
        mask[:half, half:] = True
    return mask.flatten()


def column_mask(side: int, start: int, width: int = 1) -> Bool[Tensor, " D"]:
    """Show `width` columns of pixels from column `start` on."""
    if width < 1 or not 0 <= start <= side - width:
        raise ValueError(
            f"Columns {start} to {start + width - 1} do not lie in an image of {side} columns."
        )
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[:, start : start + width] = True
    return mask.flatten()


def named_mask(name: str, side: int) -> Bool[Tensor, " D"]:
    """The mask called `quadrants-1`, `quadrants-2`, `quadrants-3` or `column` (a middle quarter).

    Raises ValueError for another name.
    """
    masks = {f"quadrants-{given}": quadrant_mask(side, given) for given in (1, 2, 3)}
    masks["column"] = column_mask(side, start=side * 3 // 8, width=side // 4)
    if name not in masks:
        raise ValueError(f"There is no mask {name!r}: choose one of {', '.join(masks)}.")
    return masks[name]


def random_mask(
    n: int, data_dim: int, visible: float, generator: torch.Generator | None = None
) -> Bool[Tensor, "n D"]:
    """Show each pixel of each of `n` images with probability `visible`, independently."""
    if not 0 <= visible <= 1:
        raise ValueError(f"The probability of a visible pixel must lie in [0, 1], not {visible}.")
    device = "cpu" if generator is None else generator.device
    return torch.rand(n, data_dim, generator=generator, device=device) < visible


def log_p_hidden(p_x: Independent, x: Float[Tensor, "B D"], mask: Mask) -> Float[Tensor, "*K B"]:
    """Log-probability of the hidden pixels alone: Σ_{d hidden} ln p(x_d | …).

    Equation: eq-cvae-hidden
    """
    return p_x.base_dist.log_prob(x).masked_fill(mask, 0).sum(-1)


def paste(
    x: Float[Tensor, "B D"], hidden: Float[Tensor, "*K B D"], mask: Mask
) -> Float[Tensor, "*K B D"]:
    """Images with the visible pixels of `x` and the hidden ones of `hidden`."""
    return torch.where(mask, x, hidden)


class _Visible(nn.Module):
    """A network of (visible pixels, mask, extra inputs); hidden pixels are blanked out first."""

    def __init__(self, data_dim: int, extra_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.net = mlp(2 * data_dim + extra_dim, hidden_dim, hidden_dim, out_dim)

    def forward(self, x: Tensor, mask: Tensor, *extra: Tensor) -> Tensor:
        if mask.shape[-1] != x.shape[-1]:
            raise ValueError(
                f"The mask has {mask.shape[-1]} pixels and the images {x.shape[-1]}: "
                "make the mask for this image size."
            )
        lead = extra[0].shape[:-1] if extra else x.shape[:-1]
        parts = [x.masked_fill(~mask, 0), mask.to(x.dtype), *extra]
        return self.net(torch.cat([part.expand(*lead, part.shape[-1]) for part in parts], -1))


def _pixels(logits: Tensor) -> Independent:
    return Independent(Bernoulli(logits=logits, validate_args=False), 1, validate_args=False)


class Baseline(nn.Module):
    """Deterministic completion: each hidden pixel is Bernoulli, independent given what is visible.

    It has no latent, so it must average over all completions that fit.

    Equation: eq-cvae-baseline
    """

    def __init__(self, data_dim: int, hidden_dim: int = 400) -> None:
        super().__init__()
        self.net = _Visible(data_dim, 0, hidden_dim, data_dim)

    def p_x(self, x: Float[Tensor, "B D"], mask: Mask) -> Independent:
        """Distribution of the pixels given the visible ones; hidden ones are not looked at."""
        return _pixels(self.net(x, mask))

    def log_p_hidden(self, x: Float[Tensor, "B D"], mask: Mask) -> Float[Tensor, " B"]:
        """Exact log-probability of the hidden pixels, in nats."""
        return log_p_hidden(self.p_x(x, mask), x, mask)

    def complete(self, x: Float[Tensor, "B D"], mask: Mask) -> Float[Tensor, "B D"]:
        """The image with every hidden pixel at its mean."""
        return paste(x, self.p_x(x, mask).mean, mask)


class CVAE(nn.Module):
    """p(x_hidden | x_visible) = ∫ p_θ(x_hidden | z, x_visible) p_θ(z | x_visible) dz.

    The conditional prior p_θ(z | x_visible) is learned. The encoder q_φ(z | x) sees the whole
    image and serves training and evaluation only; completion draws z from the prior.

    Source: Sohn et al. (2015).
    """

    def __init__(self, data_dim: int, latent_dim: int = 20, hidden_dim: int = 400) -> None:
        super().__init__()
        self.prior = _Visible(data_dim, 0, hidden_dim, 2 * latent_dim)
        self.encoder = mlp(2 * data_dim, hidden_dim, hidden_dim, 2 * latent_dim)
        self.decoder = _Visible(data_dim, latent_dim, hidden_dim, data_dim)

    def p_z(self, x: Float[Tensor, "B D"], mask: Mask) -> Independent:
        """Conditional prior p_θ(z | x_visible); hidden pixels are not looked at.

        Equation: eq-cvae-prior
        """
        loc, log_var = self.prior(x, mask).chunk(2, dim=-1)
        return diagonal_normal(loc, (0.5 * log_var).exp())

    def q_z(self, x: Float[Tensor, "B D"], mask: Mask) -> Independent:
        """Approximate posterior q_φ(z | x_visible, x_hidden), which sees the whole image."""
        inputs = torch.cat([x, mask.to(x.dtype).expand_as(x)], -1)
        loc, log_var = self.encoder(inputs).chunk(2, dim=-1)
        return diagonal_normal(loc, (0.5 * log_var).exp())

    def p_x_given_z(
        self, z: Float[Tensor, "*K B Z"], x: Float[Tensor, "B D"], mask: Mask
    ) -> Independent:
        """Pixels given the code and the visible pixels; hidden pixels are not looked at."""
        return _pixels(self.decoder(x, mask, z))

    def elbo(
        self,
        x: Float[Tensor, "B D"],
        mask: Mask,
        generator: torch.Generator | None = None,
        K: int = 1,
    ) -> Float[Tensor, " B"]:
        """Lower bound on ln p(x_hidden | x_visible), scored on hidden pixels only, in nats.

        Equation: eq-cvae-objective
        """
        q_z = self.q_z(x, mask)
        p_x = self.p_x_given_z(rsample_z(q_z, K, generator), x, mask)
        return log_p_hidden(p_x, x, mask).mean(0) - kl_divergence(q_z, self.p_z(x, mask))

    def log_w(
        self,
        x: Float[Tensor, "B D"],
        mask: Mask,
        K: int,
        generator: torch.Generator | None = None,
        proposal: Literal["encoder", "prior"] = "encoder",
    ) -> Float[Tensor, "K B"]:
        """Log-weights whose mean weight is an unbiased estimate of p(x_hidden | x_visible).

        With `"encoder"`, importance sampling: ln p(x_hidden, zₖ | x_visible) − ln q(zₖ | x).
        With `"prior"`, prior Monte Carlo: ln p(x_hidden | zₖ, x_visible).

        Equation: eq-cvae-estimators
        """
        p_z = self.p_z(x, mask)
        q_z = p_z if proposal == "prior" else self.q_z(x, mask)
        z = rsample_z(q_z, K, generator)
        log_p_x_given_z = log_p_hidden(self.p_x_given_z(z, x, mask), x, mask)
        return log_p_x_given_z + p_z.log_prob(z) - q_z.log_prob(z)

    def complete(
        self,
        x: Float[Tensor, "B D"],
        mask: Mask,
        n: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n B D"]:
        """`n` completions an image: z from the conditional prior, hidden pixels at their mean."""
        z = rsample_z(self.p_z(x, mask), n, generator)
        return paste(x, self.p_x_given_z(z, x, mask).mean, mask)
