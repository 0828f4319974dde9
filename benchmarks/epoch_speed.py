"""One epoch of the MNIST VAE: the course's loop against the usual DataLoader with ToTensor.

Every measurement is a process of its own, so that peak memory is its own too; the two loops take
turns, and the figure is the ratio of medians.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time

import torch
from platformdirs import user_cache_path
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST

from benchmarks.record import run, write
from vaecourse.data import load
from vaecourse.training import Config, train
from vaecourse.vae import VAE

REPEATS = 3
EPOCHS = 2  # the first warms up, the second is timed


def course() -> float:
    """Seconds of an epoch of `training.train` on whole tensors."""
    train_x = load("mnist").train_x
    vae = VAE.bernoulli(784)
    history = train(vae, lambda x, g: -vae.elbo(x, g), train_x, config=Config(epochs=EPOCHS))
    return history[-1].seconds


def usual(workers: int) -> float:
    """Seconds of an epoch as PyTorch's VAE example spends them."""
    folder = os.environ.get("VAECOURSE_DATA") or user_cache_path("vaecourse")
    dataset = MNIST(folder, transform=transforms.ToTensor())
    loader = DataLoader(dataset, batch_size=128, shuffle=True, num_workers=workers)
    vae = VAE.bernoulli(784)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
    for _ in range(EPOCHS):
        start = time.perf_counter()
        for x, _ in loader:
            x = x.view(-1, 784)
            loc, log_var = vae.encoder.net(x).chunk(2, dim=-1)
            z = loc + (0.5 * log_var).exp() * torch.randn_like(loc)
            bce = F.binary_cross_entropy_with_logits(vae.decoder.net(z), x, reduction="sum")
            kl = -0.5 * torch.sum(1 + log_var - loc.pow(2) - log_var.exp())
            optimizer.zero_grad()
            ((bce + kl) / len(x)).backward()
            optimizer.step()
    return time.perf_counter() - start


LOOPS = {"course": course, "usual": lambda: usual(0), "usual, 1 worker": lambda: usual(1)}


def measure(loop: str) -> tuple[float, float]:
    """Seconds and peak MB of one loop, in a fresh process."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.epoch_speed", loop],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, megabytes = json.loads(run.stdout.splitlines()[-1])
    return seconds, megabytes


def main() -> None:
    if len(sys.argv) > 1:
        seconds = LOOPS[sys.argv[1]]()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([seconds, peak]))
        return
    runs: dict[str, list[tuple[float, float]]] = {loop: [] for loop in LOOPS}
    for _ in range(REPEATS):
        for loop in LOOPS:
            runs[loop].append(measure(loop))
    median = {loop: statistics.median(s for s, _ in pairs) for loop, pairs in runs.items()}
    peak = max(megabytes for _, megabytes in runs["course"])
    fastest_peer = min(median["usual"], median["usual, 1 worker"])
    results = [
        {
            "name": "epoch time, fastest usual loop over course",
            "value": fastest_peer / median["course"],
            "unit": "ratio",
            "at_least": 1.5,
        },
        {"name": "peak memory, course", "value": peak, "unit": "MB", "at_most": 1500},
    ] + [{"name": f"epoch time, {loop}", "value": s, "unit": "s"} for loop, s in median.items()]
    write(
        "epoch_speed",
        protocol="784-400-20 Bernoulli VAE, batch 128, second of two epochs of 60,000 MNIST images "
        f"on the CPU; medians of {REPEATS} processes each, taking turns",
        seed=0,
        results=results,
    )
    if results[0]["value"] < 1.5 or peak > 1500:
        raise SystemExit("slower or larger than it must be; see the figures above")


if __name__ == "__main__":
    run(main)
