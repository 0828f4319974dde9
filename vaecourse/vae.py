"""Variational auto-encoders: encoder, decoders, the bound, and samples."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence
from torch.nn import functional as F

from vaecourse.elbo import log_weights

Scale = float | Literal["shared", "per_pixel"]


def mlp(*widths: int) -> nn.Sequential:
    """Fully connected layers of the given widths with ReLU between them, none at the end."""
    layers: list[nn.Module] = []
    for width_in, width_out in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def diagonal_normal(loc: Float[Tensor, "... Z"], scale: Float[Tensor, "... Z"]) -> Independent:
    """N(loc, diag(scale²)) whose log-density sums over the last axis."""
    return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)


def rsample_z(
    q_z: Independent, K: int, generator: torch.Generator | None = None
) -> Float[Tensor, "K B Z"]:
    """Reparametrized draws z = loc + scale · ε with ε ~ N(0, I).

    Equation: eq-vae-code
    """
    loc, scale = q_z.base_dist.loc, q_z.base_dist.scale
    epsilon = torch.randn((K, *loc.shape), generator=generator, device=loc.device, dtype=loc.dtype)
    return loc + scale * epsilon


class Encoder(nn.Module):
    """q_φ(z | x) = N(z; loc_φ(x), diag(exp(log_var_φ(x)))), one network for all x.

    Equation: eq-vae-encoder
    """

    def __init__(self, data_dim: int, latent_dim: int, hidden_dim: int = 400) -> None:
        super().__init__()
        self.net = mlp(data_dim, hidden_dim, 2 * latent_dim)

    def forward(self, x: Float[Tensor, "B D"]) -> Independent:
        loc, log_var = self.net(x).chunk(2, dim=-1)
        return diagonal_normal(loc, (0.5 * log_var).exp())


class BernoulliDecoder(nn.Module):
    """p_θ(x | z) = Π_d Bernoulli(x_d; sigmoid(logits_θ(z)_d)), for binary pixels.

    A grey x in [0, 1] is scored by the expected log-likelihood of its binarizations.

    Equation: eq-vae-bernoulli
    """

    def __init__(self, data_dim: int, latent_dim: int, hidden_dim: int = 400) -> None:
        super().__init__()
        self.net = mlp(latent_dim, hidden_dim, data_dim)

    def forward(self, z: Float[Tensor, "*K B Z"]) -> Independent:
        return Independent(
            Bernoulli(logits=self.net(z), validate_args=False), 1, validate_args=False
        )


class GaussianDecoder(nn.Module):
    """p_θ(x | z) = N(x; loc_θ(z), diag(scale²)), for real pixels.

    Args:
        data_dim: D.
        latent_dim: Z.
        hidden_dim: width of the one hidden layer.
        scale: a number keeps the scale fixed; `"shared"` learns one for all pixels;
            `"per_pixel"` computes scale_θ(z) for each pixel.
        floor: learned scales are floor + softplus(·): without a floor a pixel that can be
            predicted exactly drives the likelihood to infinity.

    Equation: eq-vae-gaussian
    """

    def __init__(
        self,
        data_dim: int,
        latent_dim: int,
        hidden_dim: int = 400,
        scale: Scale = "shared",
        floor: float = 1e-2,
    ) -> None:
        super().__init__()
        if isinstance(scale, str) and scale not in ("shared", "per_pixel"):
            raise ValueError(
                f"The scale {scale!r} is unknown: give a number, 'shared' or 'per_pixel'."
            )
        if not isinstance(scale, str) and scale <= 0:
            raise ValueError(f"The scale must be positive, not {scale}.")
        self.scale, self.floor = scale, floor
        self.net = mlp(latent_dim, hidden_dim, data_dim * (2 if scale == "per_pixel" else 1))
        if scale == "shared":
            self.raw_scale = nn.Parameter(torch.zeros(()))

    def forward(self, z: Float[Tensor, "*K B Z"]) -> Independent:
        out = self.net(z)
        if self.scale == "per_pixel":
            loc, raw_scale = out.chunk(2, dim=-1)
            return diagonal_normal(loc, self.floor + F.softplus(raw_scale))
        if self.scale == "shared":
            scale = self.floor + F.softplus(self.raw_scale)
        else:
            scale = out.new_tensor(self.scale)
        return diagonal_normal(out, scale.expand_as(out))


class _LinearNormal(nn.Module):
    def __init__(self, dim_in: int, dim_out: int, scales: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim_in, dim_out)
        self.log_var = nn.Parameter(torch.zeros(scales))

    def forward(self, inputs: Tensor) -> Independent:
        loc = self.linear(inputs)
        return diagonal_normal(loc, (0.5 * self.log_var).exp().expand_as(loc))


class VAE(nn.Module):
    """A latent variable model p(z) p_θ(x | z) and its amortized posterior q_φ(z | x).

    The prior is N(0, I). Bounds and weights are in nats, one value per example.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.latent_dim = encoder, decoder, latent_dim

    @classmethod
    def bernoulli(cls, data_dim: int, latent_dim: int = 20, hidden_dim: int = 400) -> "VAE":
        """Bernoulli VAE with one hidden layer a side (784-400-20 for MNIST)."""
        return cls(
            Encoder(data_dim, latent_dim, hidden_dim),
            BernoulliDecoder(data_dim, latent_dim, hidden_dim),
            latent_dim,
        )

    @classmethod
    def gaussian(
        cls, data_dim: int, latent_dim: int = 20, hidden_dim: int = 400, scale: Scale = "shared"
    ) -> "VAE":
        """Gaussian VAE with one hidden layer a side."""
        return cls(
            Encoder(data_dim, latent_dim, hidden_dim),
            GaussianDecoder(data_dim, latent_dim, hidden_dim, scale),
            latent_dim,
        )

    @classmethod
    def linear(cls, data_dim: int, latent_dim: int) -> "VAE":
        """A VAE with linear encoder and decoder: probabilistic PCA, fitted by its bound.

        p(x | z) = N(Wz + b, σ²I) and q(z | x) = N(Vx + c, diag(s²)), with s the same for all x. At
        its optimum the bound equals probabilistic PCA's log-likelihood.

        Source: Lucas et al. (2019).
        """
        return cls(
            _LinearNormal(data_dim, latent_dim, scales=latent_dim),
            _LinearNormal(latent_dim, data_dim, scales=1),
            latent_dim,
        )

    @property
    def p_z(self) -> Independent:
        """The prior N(0, I) over z (Z,), on the model's device."""
        parameter = next(self.parameters())
        zeros = parameter.new_zeros(self.latent_dim)
        return diagonal_normal(zeros, zeros + 1)

    def q_z(self, x: Float[Tensor, "B D"]) -> Independent:
        """Approximate posterior q_φ(z | x)."""
        return self.encoder(x)

    def p_x_given_z(self, z: Float[Tensor, "*K B Z"]) -> Independent:
        """Conditional distribution p_θ(x | z) of an image given its code."""
        return self.decoder(z)

    def elbo(
        self, x: Float[Tensor, "B D"], generator: torch.Generator | None = None, K: int = 1
    ) -> Float[Tensor, " B"]:
        """Evidence lower bound, with its KL term in closed form and K draws for the rest.

        (1/K) Σₖ ln p_θ(x | zₖ) − KL(q_φ(z | x) ‖ p(z)), summed over pixels.

        Equation: eq-vae-objective
        """
        q_z = self.q_z(x)
        log_p_x_given_z = self.p_x_given_z(rsample_z(q_z, K, generator)).log_prob(x)
        return log_p_x_given_z.mean(0) - kl_divergence(q_z, self.p_z)

    def log_w(
        self, x: Float[Tensor, "B D"], K: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "K B"]:
        """Log importance weights ln p_θ(x, zₖ) − ln q_φ(zₖ | x) of K draws from the encoder."""
        q_z = self.q_z(x)
        z = rsample_z(q_z, K, generator)
        return log_weights(x, z, self.p_z, self.p_x_given_z, q_z)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n D"]:
        """Mean images E[x | z] at n draws z ~ p(z): what is usually shown as samples.

        They are not draws of x. A draw is `sampling.sample(vae.p_x_given_z(z))`.
        """
        loc = self.p_z.base_dist.loc
        z = torch.randn(n, self.latent_dim, generator=generator, device=loc.device, dtype=loc.dtype)
        return self.p_x_given_z(z).mean

    def reconstruct(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Mean image E[x | z] at the posterior mean of z."""
        return self.p_x_given_z(self.q_z(x).mean).mean
