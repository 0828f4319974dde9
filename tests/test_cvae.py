import math

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import kl_divergence

from tests.conftest import assert_within_se
from vaecourse.cvae import (
    CVAE,
    Baseline,
    column_mask,
    log_p_hidden,
    named_mask,
    quadrant_mask,
    random_mask,
)

SIDE, Z, B = 4, 2, 5
D = SIDE**2


@pytest.fixture
def x() -> Tensor:
    draws = torch.rand(B, D, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    return draws.round()


@pytest.fixture
def cvae() -> CVAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CVAE(D, Z, 9).double()


@pytest.fixture
def baseline() -> Baseline:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Baseline(D, 9).double()


def masks() -> list:
    generator = torch.Generator().manual_seed(2)
    return [
        pytest.param(quadrant_mask(SIDE, 1), id="one quadrant"),
        pytest.param(column_mask(SIDE, 1), id="column"),
        pytest.param(random_mask(B, D, 0.5, generator), id="another for each image"),
        pytest.param(torch.zeros(D, dtype=torch.bool), id="nothing visible"),
        pytest.param(torch.ones(D, dtype=torch.bool), id="everything visible"),
    ]


def hidden_perturbed(x: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, x, 1 - x)


def test_quadrants_nest_from_lower_left_to_all_but_lower_right() -> None:
    one, two, three = (quadrant_mask(SIDE, given).reshape(SIDE, SIDE) for given in (1, 2, 3))
    assert one.tolist() == [[False] * 4] * 2 + [[True, True, False, False]] * 2
    assert two.tolist() == [[True, True, False, False]] * 4
    assert three.tolist() == [[True] * 4] * 2 + [[True, True, False, False]] * 2


def test_column_mask_shows_whole_columns() -> None:
    assert column_mask(SIDE, 1, 2).reshape(SIDE, SIDE).tolist() == [[False, True, True, False]] * 4


def test_random_mask_shows_pixels_at_its_rate(generator: torch.Generator) -> None:
    assert_within_se(random_mask(5000, D, 0.3, generator).double(), 0.3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: quadrant_mask(SIDE, 4), "1, 2 or 3, not 4"),
        (lambda: column_mask(SIDE, 3, 2), "Columns 3 to 4 do not lie"),
        (lambda: column_mask(SIDE, 0, 0), "Columns 0 to -1"),
        (lambda: random_mask(1, D, 1.5), r"in \[0, 1\], not 1.5"),
        (lambda: named_mask("diagonal", SIDE), "no mask 'diagonal'"),
    ],
)
def test_impossible_masks_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["quadrants-1", "quadrants-2", "quadrants-3", "column"])
@pytest.mark.parametrize("side", [8, 28])
def test_named_masks_show_a_quarter_to_three_quarters(name: str, side: int) -> None:
    visible = named_mask(name, side).double().mean()
    assert visible == {"quadrants-2": 0.5, "quadrants-3": 0.75}.get(name, 0.25)


@pytest.mark.parametrize("mask", masks())
def test_conditional_prior_never_sees_hidden_pixels(cvae: CVAE, x: Tensor, mask: Tensor) -> None:
    p_z, perturbed = cvae.p_z(x, mask), cvae.p_z(hidden_perturbed(x, mask), mask)
    assert torch.equal(p_z.mean, perturbed.mean) and torch.equal(p_z.stddev, perturbed.stddev)


@pytest.mark.parametrize("mask", masks())
def test_conditional_prior_stands_even_hidden_nan(cvae: CVAE, x: Tensor, mask: Tensor) -> None:
    unknown = x.masked_fill(~mask, math.nan)
    assert torch.equal(cvae.p_z(unknown, mask).mean, cvae.p_z(x, mask).mean)


@pytest.mark.parametrize("mask", masks())
def test_decoder_and_baseline_never_see_hidden_pixels(
    cvae: CVAE, baseline: Baseline, x: Tensor, mask: Tensor
) -> None:
    other, z = hidden_perturbed(x, mask), torch.ones(3, B, Z, dtype=torch.double)
    assert torch.equal(cvae.p_x_given_z(z, x, mask).mean, cvae.p_x_given_z(z, other, mask).mean)
    assert torch.equal(baseline.p_x(x, mask).mean, baseline.p_x(other, mask).mean)


def test_prior_decoder_and_baseline_do_see_visible_pixels(
    cvae: CVAE, baseline: Baseline, x: Tensor
) -> None:
    mask, z = quadrant_mask(SIDE, 1), torch.ones(B, Z, dtype=torch.double)
    other = torch.where(mask, 1 - x, x)
    assert not torch.equal(cvae.p_z(x, mask).mean, cvae.p_z(other, mask).mean)
    assert not torch.equal(cvae.p_x_given_z(z, x, mask).mean, cvae.p_x_given_z(z, other, mask).mean)
    assert not torch.equal(baseline.p_x(x, mask).mean, baseline.p_x(other, mask).mean)


def test_encoder_sees_hidden_pixels(cvae: CVAE, x: Tensor) -> None:
    mask = quadrant_mask(SIDE, 1)
    other = hidden_perturbed(x, mask)
    assert not torch.equal(cvae.q_z(x, mask).mean, cvae.q_z(other, mask).mean)


@pytest.mark.parametrize("mask", masks())
def test_only_hidden_pixels_are_scored(baseline: Baseline, x: Tensor, mask: Tensor) -> None:
    probs = baseline.p_x(x, mask).mean.detach().numpy()
    log_p = torch.from_numpy(stats.bernoulli(probs).logpmf(x.numpy()))
    expected = (log_p * ~mask).sum(-1)
    assert torch.allclose(baseline.log_p_hidden(x, mask), expected, atol=1e-10)


def test_all_visible_leaves_nothing_to_score(baseline: Baseline, x: Tensor) -> None:
    assert (baseline.log_p_hidden(x, torch.ones(D, dtype=torch.bool)) == 0).all()


@pytest.mark.parametrize("mask", masks())
def test_elbo_is_hidden_log_likelihood_minus_kl_to_the_conditional_prior(
    cvae: CVAE, x: Tensor, mask: Tensor
) -> None:
    elbo = cvae.elbo(x, mask, torch.Generator().manual_seed(3), K=2)
    q_z, p_z = cvae.q_z(x, mask), cvae.p_z(x, mask)
    epsilon = torch.randn(2, B, Z, generator=torch.Generator().manual_seed(3), dtype=torch.double)
    z = q_z.mean + q_z.stddev * epsilon
    probs = cvae.p_x_given_z(z, x, mask).mean
    log_p = torch.where(x > 0, probs, 1 - probs).log() * ~mask
    expected = log_p.sum(-1).mean(0) - kl_divergence(q_z, p_z)
    assert elbo.shape == (B,)
    assert torch.allclose(elbo, expected, atol=1e-10)


def exact_log_p_hidden(cvae: CVAE, x: Tensor, mask: Tensor) -> Tensor:
    """ln p(x_hidden | x_visible) by quadrature over a 2-D code."""
    grid = torch.linspace(-9, 9, 401, dtype=torch.double)
    z = torch.cartesian_prod(grid, grid)[:, None].expand(-1, B, Z)
    p_z = cvae.p_z(x, mask)
    log_p_z = torch.from_numpy(
        stats.norm(p_z.mean.detach(), p_z.stddev.detach()).logpdf(z.numpy()).sum(-1)
    )
    with torch.no_grad():
        joint = log_p_z + log_p_hidden(cvae.p_x_given_z(z, x, mask), x, mask)
    return joint.logsumexp(0) + 2 * math.log(18 / 400)


@pytest.mark.parametrize("proposal", ["encoder", "prior"])
def test_mean_weight_is_the_conditional_likelihood_by_quadrature(
    cvae: CVAE, x: Tensor, generator: torch.Generator, proposal: str
) -> None:
    mask = quadrant_mask(SIDE, 2)
    with torch.no_grad():
        log_w = cvae.log_w(x, mask, 20_000, generator, proposal=proposal)
    assert log_w.shape == (20_000, B)
    assert_within_se((log_w - exact_log_p_hidden(cvae, x, mask)).exp(), 1.0)


def test_completions_keep_visible_pixels_and_differ_elsewhere(
    cvae: CVAE, x: Tensor, generator: torch.Generator
) -> None:
    mask = column_mask(SIDE, 1)
    completions = cvae.complete(x, mask, 3, generator)
    assert completions.shape == (3, B, D)
    assert torch.equal(completions[..., mask], x[:, mask].expand(3, B, -1))
    assert not torch.equal(completions[0][:, ~mask], completions[1][:, ~mask])


def test_completions_never_use_hidden_pixels(cvae: CVAE, x: Tensor) -> None:
    mask = column_mask(SIDE, 1)
    first, second = (
        cvae.complete(image, mask, 3, torch.Generator().manual_seed(6))
        for image in (x, hidden_perturbed(x, mask))
    )
    assert torch.equal(first, second)


def test_baseline_completion_is_its_mean(baseline: Baseline, x: Tensor) -> None:
    mask = column_mask(SIDE, 1)
    expected = torch.where(mask, x, baseline.p_x(x, mask).mean)
    assert torch.equal(baseline.complete(x, mask), expected)


def test_mask_of_another_image_size_is_refused(cvae: CVAE, x: Tensor) -> None:
    with pytest.raises(ValueError, match="mask has 64 pixels and the images 16"):
        cvae.prior(x, quadrant_mask(8, 1))
