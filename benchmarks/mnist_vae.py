"""Test −ELBO of the 784-400-20 Bernoulli VAE after 10 epochs of MNIST, grey and binarized."""

import matplotlib.pyplot as plt
import torch

from benchmarks.record import RESULTS, run, write
from vaecourse.data import binarize, load
from vaecourse.evaluation import Estimate, in_batches, log_likelihood, mean_and_se
from vaecourse.plots import STYLE, image_grid
from vaecourse.training import Config, train
from vaecourse.vae import VAE

CONFIG = Config(epochs=10, batch_size=128, lr=1e-3, seed=0)
SOURCE = "PyTorch's VAE example, whose protocol this is (it prints no standard error)"


def fit(train_x: torch.Tensor, binary: bool) -> VAE:
    torch.manual_seed(CONFIG.seed)
    vae = VAE.bernoulli(784, latent_dim=20, hidden_dim=400)
    train(
        vae,
        lambda x, g: -vae.elbo(binarize(x, g) if binary else x, g),
        train_x,
        config=CONFIG,
        progress=True,
    )
    return vae


def result(name: str, estimate: Estimate, at_most: float | None = None) -> dict:
    row = {"name": name, "value": estimate.mean, "se": estimate.se, "unit": "nats an image"}
    if at_most is not None:
        row["at_most"] = at_most
    return row


def main() -> None:
    digits = load("mnist")
    generator = torch.Generator().manual_seed(1)
    results = []
    grey = fit(digits.train_x, binary=False)
    nll = in_batches(lambda x: -grey.elbo(x, generator), digits.test_x)
    results.append(result("−ELBO, grey pixels", mean_and_se(nll), at_most=106))
    binary = fit(digits.train_x, binary=True)
    test_x = binarize(digits.test_x, generator)
    nll = in_batches(lambda x: -binary.elbo(x, generator), test_x)
    results.append(result("−ELBO, binarized pixels", mean_and_se(nll), at_most=103))
    nll = -log_likelihood(binary.log_w, test_x[:1000], 100, generator)
    results.append(
        result("NLL, binarized, 100 importance samples, first 1,000 images", mean_and_se(nll))
    )
    plt.style.use(STYLE)
    with torch.no_grad():
        figure = image_grid(binary.sample(60, generator).reshape(4, 15, -1))
    figure.savefig(RESULTS / "mnist_vae_samples.png", dpi=150)
    write(
        "mnist_vae",
        protocol="784-400-20 ReLU, Adam 1e-3, batch 128, 10 epochs of 60,000 images, no validation "
        "set, 10,000 test images, one posterior draw an image; " + SOURCE,
        seed=CONFIG.seed,
        results=results,
    )
    for row in results:
        if row["value"] > row.get("at_most", float("inf")):
            raise SystemExit(f"{row['name']} is {row['value']:.2f}, above {row['at_most']}")


if __name__ == "__main__":
    run(main)
