import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional as F

from tests.conftest import assert_within_se
from vaecourse.sampling import sample
from vaecourse.training import Config, train
from vaecourse.vae import VAE, GaussianDecoder, diagonal_normal, mlp, rsample_z

D, Z, B = 6, 2, 5


@pytest.fixture
def x() -> Tensor:
    grey = torch.rand(B, D, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    return grey.round()


def build(kind: str, **options: object) -> VAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        make = {"bernoulli": VAE.bernoulli, "gaussian": VAE.gaussian}[kind]
        return make(D, Z, 7, **options).double()


@pytest.fixture(params=["bernoulli", "fixed scale", "shared scale", "scale per pixel"])
def vae(request: pytest.FixtureRequest) -> VAE:
    if request.param == "bernoulli":
        return build("bernoulli")
    scales = {"fixed scale": 0.7, "shared scale": "shared", "scale per pixel": "per_pixel"}
    return build("gaussian", scale=scales[request.param])


def test_mlp_has_no_activation_at_the_end() -> None:
    net = mlp(3, 4, 5)
    assert [type(layer).__name__ for layer in net] == ["Linear", "ReLU", "Linear"]


def test_encoder_halves_are_mean_and_log_variance(x: Tensor) -> None:
    vae = build("bernoulli")
    out = vae.encoder.net(x).detach().numpy()
    q_z = vae.q_z(x)
    assert np.allclose(q_z.mean.detach(), out[:, :Z])
    assert np.allclose(q_z.variance.detach(), np.exp(out[:, Z:]))


def test_draws_of_z_follow_q(generator: torch.Generator) -> None:
    loc, scale = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 3.0]])
    z = rsample_z(diagonal_normal(loc, scale), 20_000, generator)
    assert z.shape == (20_000, 1, 2)
    assert_within_se(z, loc)
    assert_within_se((z - loc) ** 2, scale**2)


def test_draws_of_z_carry_gradients_to_loc_and_scale(generator: torch.Generator) -> None:
    loc = torch.zeros(1, 2, requires_grad=True)
    scale = torch.ones(1, 2, requires_grad=True)
    z = rsample_z(diagonal_normal(loc, scale), 50, generator)
    z.sum().backward()
    assert torch.equal(loc.grad, torch.full((1, 2), 50.0))
    assert torch.allclose(scale.grad, z.detach().sum(0))  # dz/dscale = ε, which is z here


@pytest.mark.parametrize("K", [1, 3])
def test_bernoulli_elbo_is_cross_entropy_plus_closed_form_kl(x: Tensor, K: int) -> None:
    vae = build("bernoulli")
    elbo = vae.elbo(x, torch.Generator().manual_seed(4), K)
    loc, log_var = vae.encoder.net(x).chunk(2, -1)
    epsilon = torch.randn(K, B, Z, generator=torch.Generator().manual_seed(4), dtype=torch.double)
    logits = vae.decoder.net(loc + (0.5 * log_var).exp() * epsilon)
    bce = F.binary_cross_entropy(logits.sigmoid(), x.expand(K, B, D), reduction="none")
    kl = 0.5 * (loc**2 + log_var.exp() - 1 - log_var).sum(-1)
    assert elbo.shape == (B,)
    assert torch.allclose(elbo, -bce.sum(-1).mean(0) - kl, atol=1e-12)


@pytest.mark.parametrize("scale", [0.7, "shared", "per_pixel"])
def test_gaussian_decoder_has_scipys_log_density(scale: float | str) -> None:
    decoder = build("gaussian", scale=scale).decoder
    z = torch.randn(3, B, Z, generator=torch.Generator().manual_seed(2), dtype=torch.double)
    x = torch.randn(B, D, generator=torch.Generator().manual_seed(3), dtype=torch.double)
    out = decoder.net(z).detach().numpy()
    if scale == "per_pixel":
        sigma = 0.01 + np.log1p(np.exp(out[..., D:]))
    else:
        sigma = 0.7 if scale == 0.7 else 0.01 + math.log(2)  # softplus(0) = ln 2
    expected = stats.norm(out[..., :D], sigma).logpdf(x.numpy()).sum(-1)
    assert np.allclose(decoder(z).log_prob(x).detach(), expected, atol=1e-10)


def test_scale_never_falls_below_its_floor() -> None:
    decoder = GaussianDecoder(D, Z, 7, "shared", floor=0.05)
    torch.nn.init.constant_(decoder.raw_scale, -1000.0)
    assert decoder(torch.zeros(1, Z)).stddev.min().item() == pytest.approx(0.05)


@pytest.mark.parametrize("scale", ["both", 0.0, -1.0])
def test_unusable_scale_is_refused(scale: float | str) -> None:
    with pytest.raises((ValueError, TypeError), match="scale"):
        GaussianDecoder(D, Z, 7, scale)


def test_mean_log_weight_is_the_elbo(vae: VAE, x: Tensor, generator: torch.Generator) -> None:
    with torch.no_grad():
        log_w = vae.log_w(x, 20_000, generator)
        elbo = vae.elbo(x.repeat(20_000, 1), generator).reshape(20_000, B)
    assert log_w.shape == (20_000, B)
    assert_within_se(log_w - elbo, 0.0)


def test_mean_weight_is_the_marginal_likelihood_by_quadrature(
    vae: VAE, x: Tensor, generator: torch.Generator
) -> None:
    grid = torch.linspace(-8, 8, 201, dtype=torch.double)
    z = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        log_p_z = torch.from_numpy(stats.norm.logpdf(z.numpy()).sum(-1))
        joint = vae.p_x_given_z(z[:, None]).log_prob(x) + log_p_z[:, None]
        log_p_x = joint.logsumexp(0) + 2 * math.log(16 / 200)
        log_w = vae.log_w(x, 20_000, generator)
    assert_within_se((log_w - log_p_x).exp(), 1.0)


def test_elbo_of_a_row_does_not_depend_on_the_rest_of_the_batch(vae: VAE, x: Tensor) -> None:
    vae.encoder.net[-1].weight.data[Z:] = 0
    vae.encoder.net[-1].bias.data[Z:] = -60  # so narrow that draws do not matter
    whole = vae.elbo(x)
    alone = torch.cat([vae.elbo(row[None]) for row in x])
    assert torch.allclose(whole, alone, atol=1e-9)


def test_grey_pixels_score_the_expected_elbo_of_their_binarizations(
    generator: torch.Generator,
) -> None:
    vae = build("bernoulli")
    grey = torch.rand(1, D, generator=generator, dtype=torch.double)
    p_x = vae.p_x_given_z(torch.zeros(1, Z, dtype=torch.double))
    binary = torch.bernoulli(grey.expand(20_000, D), generator=generator)
    assert_within_se(p_x.log_prob(binary), p_x.log_prob(grey)[0])


def test_samples_are_means_at_prior_draws() -> None:
    vae = build("bernoulli")
    samples = vae.sample(9, torch.Generator().manual_seed(8))
    z = torch.randn(9, Z, generator=torch.Generator().manual_seed(8), dtype=torch.double)
    assert torch.allclose(samples, vae.decoder.net(z).sigmoid())


def test_a_mean_is_not_a_draw(generator: torch.Generator) -> None:
    vae = build("bernoulli")
    means = vae.sample(50, generator)
    draws = sample(vae.p_x_given_z(torch.zeros(50, Z, dtype=torch.double)), (), generator)
    assert len(means.unique()) > 2 and set(draws.unique().tolist()) == {0.0, 1.0}


def test_reconstruction_uses_the_posterior_mean(x: Tensor) -> None:
    vae = build("gaussian", scale=0.3)
    expected = vae.decoder.net(vae.encoder.net(x)[:, :Z])
    assert torch.equal(vae.reconstruct(x), expected)
    assert torch.equal(vae.reconstruct(x), vae.reconstruct(x))


def test_linear_vae_reaches_the_probabilistic_pca_likelihood(
    generator: torch.Generator,
) -> None:
    weight = torch.randn(D, Z, generator=generator)
    x = 1 + torch.randn(500, Z, generator=generator) @ weight.T
    x += 0.5 * torch.randn(500, D, generator=generator)
    ppca = PCA(Z).fit(x.numpy()).score(x.numpy())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = VAE.linear(D, Z)
    for lr in (3e-2, 3e-3):
        config = Config(epochs=300, batch_size=500, lr=lr)
        train(vae, lambda b, g: -vae.elbo(b, g, K=4), x, config=config)
    elbo = vae.elbo(x, generator, K=1000).mean().item()
    assert elbo == pytest.approx(ppca, abs=0.05)
    assert elbo < ppca + 0.01  # a bound: above it only by Monte Carlo error


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: the CUDA path is not tested")
def test_elbo_on_cuda_agrees_with_cpu(x: Tensor) -> None:
    vae = build("bernoulli")
    vae.encoder.net[-1].bias.data[Z:] = -60
    cpu = vae.elbo(x)
    cuda = vae.cuda().elbo(x.cuda(), torch.Generator("cuda").manual_seed(0))
    assert torch.allclose(cpu, cuda.cpu(), atol=1e-6)
