"""One whole run of the course's models: data, training, test scores and pictures."""

import json
from dataclasses import asdict
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file
from torch import Tensor, nn

from vaecourse import plots
from vaecourse.cvae import CVAE, Baseline, named_mask
from vaecourse.data import Dataset, binarize, hold_out, load
from vaecourse.evaluation import Estimate, in_batches, log_likelihood, mean_and_se
from vaecourse.training import Config, Epoch, TrainingError, resolve_device, train
from vaecourse.vae import VAE

MODELS = ("vae", "cvae", "baseline")


def run(
    *,
    model: str,
    data: str = "mnist5k",
    device: str = "cpu",
    out: Path,
    epochs: int = 20,
    batch_size: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
    latent_dim: int = 20,
    mask: str | None = None,
    patience: int | None = None,
    K: int = 100,
    progress: bool = False,
) -> dict[str, Estimate]:
    """Train a model on dynamically binarized digits, score it on the test set, draw its pictures.

    Args:
        model: `vae`, `cvae` (completes images), or `baseline` (completes them without a latent).
        data: name for `data.load`.
        device: `cpu` or `cuda`.
        out: folder for checkpoint, weights, `results.json` and pictures. A run that was cut off
            goes on from its checkpoint.
        epochs: passes over the training images.
        batch_size: images a step.
        lr: Adam's learning rate.
        seed: of weights, order, binarization and latent draws.
        latent_dim: Z.
        mask: what the cvae and the baseline are shown, a name for `cvae.named_mask`; `column`
            if none is given. The vae takes none.
        patience: epochs without progress on a held-out tenth before training stops; without it,
            every epoch on every training image.
        K: importance samples an image for the test log-likelihood.
        progress: show a progress bar.

    Returns test scores in nats an image: `elbo` and `log_likelihood`, of hidden pixels where
    there is a mask. Raises DataError or TrainingError for what cannot be done.
    """
    if model not in MODELS:
        raise TrainingError(f"There is no model {model!r}: choose one of {', '.join(MODELS)}.")
    if latent_dim < 1:
        raise TrainingError(f"The latent dimension must be at least 1, not {latent_dim}.")
    if model == "vae" and mask is not None:
        raise TrainingError("The vae completes nothing, so it takes no mask: train the cvae.")
    mask = mask or "column"
    place = resolve_device(device)
    about = {"model": model, "data": data, "device": device, "latent_dim": latent_dim}
    if model != "vae":
        about["mask"] = mask
    config = Config(epochs, batch_size, lr, seed, patience, about)
    digits = load(data, place)
    task = _task(model, digits, latent_dim, mask, seed)
    train_x, validation_x = digits.train_x, None
    if patience:
        train_x, validation_x = hold_out(train_x, digits.train_y, len(train_x) // 10)
    history = train(
        task.model, task.loss, train_x, validation_x, config=config, out=out, progress=progress
    )
    generator = torch.Generator(place).manual_seed(seed)
    test_x = binarize(digits.test_x, generator)
    scores = task.score(test_x, K, generator)
    with plt.style.context(plots.STYLE):
        figures = {"loss": _loss_figure(history)} | task.figures(digits.test_x, generator)
        _write(out, task.model, config, history, scores, figures)
    return scores


class _VaeTask:
    def __init__(self, digits: Dataset, latent_dim: int) -> None:
        self.model = VAE.bernoulli(digits.side**2, latent_dim)

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return -self.model.elbo(binarize(x, generator), generator)

    def score(self, x: Tensor, K: int, generator: torch.Generator) -> dict[str, Estimate]:
        elbo = in_batches(lambda batch: self.model.elbo(batch, generator), x)
        return {
            "elbo": mean_and_se(elbo),
            "log_likelihood": mean_and_se(log_likelihood(self.model.log_w, x, K, generator)),
        }

    @torch.no_grad()
    def figures(self, x: Tensor, generator: torch.Generator) -> dict[str, Figure]:
        images = x[:10]
        return {
            "samples": plots.image_grid(self.model.sample(60, generator).reshape(6, 10, -1)),
            "reconstructions": plots.image_grid(
                torch.stack([images, self.model.reconstruct(images)]), ["image", "mean"]
            ),
        }


class _CompletionTask:
    """What the CVAE and its baseline have in common: a mask, and pictures of completions."""

    def __init__(self, model: CVAE | Baseline, mask: Tensor) -> None:
        self.model, self.mask = model, mask

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        x = binarize(x, generator)
        if isinstance(self.model, Baseline):
            return -self.model.log_p_hidden(x, self.mask)
        return -self.model.elbo(x, self.mask, generator)

    def score(self, x: Tensor, K: int, generator: torch.Generator) -> dict[str, Estimate]:
        model, mask = self.model, self.mask
        if isinstance(model, Baseline):
            log_p = in_batches(lambda batch: model.log_p_hidden(batch, mask), x)
            return {"log_likelihood": mean_and_se(log_p)}
        elbo = in_batches(lambda batch: model.elbo(batch, mask, generator), x)
        log_p = log_likelihood(lambda b, k, g: model.log_w(b, mask, k, g), x, K, generator)
        return {"elbo": mean_and_se(elbo), "log_likelihood": mean_and_se(log_p)}

    @torch.no_grad()
    def figures(self, x: Tensor, generator: torch.Generator) -> dict[str, Figure]:
        images = x[:10]
        # the completion models were trained on binary pixels, and so are shown binary ones
        shown = binarize(images, generator)
        given = shown.masked_fill(~self.mask, 0)
        if isinstance(self.model, Baseline):
            completions = self.model.complete(shown, self.mask)[None]
        else:
            completions = self.model.complete(shown, self.mask, 4, generator)
        labels = ["image", "given"] + ["completed"] * len(completions)
        rows = torch.stack([images, given, *completions])
        return {"completions": plots.image_grid(rows, labels, visible=self.mask)}


def _task(
    model: str, digits: Dataset, latent_dim: int, mask: str, seed: int
) -> "_VaeTask | _CompletionTask":
    # nn.Module draws its first weights from the global generator
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        task: _VaeTask | _CompletionTask
        if model == "vae":
            task = _VaeTask(digits, latent_dim)
        else:
            data_dim = digits.side**2
            network = CVAE(data_dim, latent_dim) if model == "cvae" else Baseline(data_dim)
            try:
                where = named_mask(mask, digits.side).to(digits.train_x.device)
            except ValueError as error:
                raise TrainingError(str(error)) from error
            task = _CompletionTask(network, where)
    task.model.to(digits.train_x.device)
    return task


def _loss_figure(history: list[Epoch]) -> Figure:
    figure, axes = plt.subplots()
    epochs = [epoch.epoch for epoch in history]
    axes.plot(epochs, [epoch.train_loss for epoch in history], "o-", label="training")
    validation = [e.validation_loss for e in history if e.validation_loss is not None]
    if validation:
        axes.plot(epochs, validation, "o-", label="validation")
    axes.set(xlabel="epoch", ylabel="loss (nats an image)")
    axes.legend()
    return figure


def _write(
    out: Path,
    model: nn.Module,
    config: Config,
    history: list[Epoch],
    scores: dict[str, Estimate],
    figures: dict[str, Figure],
) -> None:
    record = {
        "config": asdict(config),
        "test": {name: score._asdict() for name, score in scores.items()},
        "history": [asdict(epoch) for epoch in history],
    }
    try:
        save_file(model.state_dict(), out / "model.safetensors")
        (out / "results.json").write_text(json.dumps(record, indent=1) + "\n")
        for name, figure in figures.items():
            figure.savefig(out / f"{name}.png", dpi=150)
            plt.close(figure)
    except OSError as error:
        raise TrainingError(
            f"The results could not be written to {out} ({error.strerror}): free some space and "
            "run the same command again; it goes on from the checkpoint."
        ) from error
