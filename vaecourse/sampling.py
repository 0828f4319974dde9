"""Draws from any `torch.distributions` family with an explicit generator."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributions import Distribution


@contextmanager
def _seeded_by(generator: torch.Generator | None) -> Iterator[None]:
    # torch.distributions draws from the global generator only. Fork it, seed the fork with one
    # draw of ours, and put the caller's state back afterwards.
    if generator is None:
        yield
        return
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    on_cpu = generator.device.type == "cpu"
    with torch.random.fork_rng(devices=[] if on_cpu else [generator.device]):
        if on_cpu:
            torch.default_generator.manual_seed(seed)
        else:
            torch.cuda.manual_seed(seed)
        yield


def sample(
    distribution: Distribution,
    shape: tuple[int, ...] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw without gradient, from `generator` where one is given.

    Returns a tensor of shape `shape + batch_shape + event_shape`. The global generator is left as
    it was; without a generator, the global one is used. A generator lives on the device of the
    distribution's parameters.
    """
    with _seeded_by(generator):
        return distribution.sample(torch.Size(shape))


def rsample(
    distribution: Distribution,
    shape: tuple[int, ...] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw with a pathwise gradient to the distribution's parameters; otherwise as `sample`.

    Raises NotImplementedError for a family that cannot be reparametrized.
    """
    with _seeded_by(generator):
        return distribution.rsample(torch.Size(shape))
