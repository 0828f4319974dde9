"""One training loop for every model of the course, which a killed run resumes exactly."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vaecourse.errors import CourseError
from vaecourse.evaluation import in_batches, mean_and_se

Loss = Callable[[Tensor, torch.Generator], Tensor]
CHECKPOINT = "checkpoint.json"


class TrainingError(CourseError):
    """A run that cannot start, go on or be resumed; its message says how to mend it."""


@dataclass(frozen=True)
class Config:
    """What determines a run's numbers, next to the model and the data.

    `patience` is the number of epochs without a better validation loss after which training stops;
    `about` describes model and data, so that a checkpoint is not resumed with others.
    """

    epochs: int = 10
    batch_size: int = 128
    lr: float = 1e-3
    seed: int = 0
    patience: int | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "lr", "patience"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise TrainingError(f"{name} must be positive, not {value}.")


@dataclass(frozen=True)
class Epoch:
    """Mean loss over the examples of one epoch, in nats an example, with standard errors.

    The training loss is that of the passing minibatches, while the weights moved.
    """

    epoch: int
    train_loss: float
    train_se: float
    validation_loss: float | None = None
    validation_se: float | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        text = f"{self.train_loss:.2f} ± {self.train_se:.2f} nats"
        if self.validation_loss is not None:
            text += f", validation {self.validation_loss:.2f} ± {self.validation_se:.2f}"
        return text


def train(
    model: nn.Module,
    loss: Loss,
    train_x: Float[Tensor, "N D"],
    validation_x: Float[Tensor, "M D"] | None = None,
    *,
    config: Config,
    out: Path | None = None,
    progress: bool = False,
) -> list[Epoch]:
    """Minimize the mean of a per-example loss with Adam.

    Each epoch visits every row once, in a new order; the last batch may be smaller. With
    validation rows, the model ends with the weights of the best validation epoch.

    Args:
        model: trained in place, on the device of its parameters.
        loss: maps rows (B, D) and a generator to one loss an example (B,), in nats.
        train_x: training rows on the model's device.
        validation_x: rows for early stopping; scored with the same random draws every epoch.
        config: seed, length and learning rate.
        out: folder for a checkpoint after every epoch. If it holds one, the run goes on from there
            and, on the CPU, ends with the numbers of an undisturbed run.
        progress: show a progress bar.

    Raises:
        TrainingError: the loss is not finite; the checkpoint is damaged or of another run.
    """
    if config.patience and validation_x is None:
        raise TrainingError("Early stopping needs validation images: hold some out, or drop it.")
    run = _Run(model, config, train_x.device)
    if out is not None:
        _make_folder(out)
        run.resume(out)
    with _Bar(progress, len(train_x)) as bar:
        while not run.finished:
            run.history.append(_epoch(run, loss, train_x, validation_x, bar))
            run.keep_best()
            bar.finish(run.history[-1])
            if out is not None:
                run.save(out)
    if run.best:
        model.load_state_dict(run.best)
    return run.history


class _Run:
    """Everything that changes during training, so that it can be saved and resumed."""

    def __init__(self, model: nn.Module, config: Config, device: torch.device) -> None:
        self.model, self.config = model, config
        self.optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.history: list[Epoch] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0

    @property
    def finished(self) -> bool:
        patience = self.config.patience
        waited = len(self.history) - self.best_epoch
        return len(self.history) >= self.config.epochs or bool(patience and waited >= patience)

    def keep_best(self) -> None:
        losses = [epoch.validation_loss for epoch in self.history]
        last = losses[-1]
        if last is not None and all(before is None or last < before for before in losses[:-1]):
            self.best = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
            self.best_epoch = len(self.history)

    def save(self, out: Path) -> None:
        # The JSON file names the tensor file and replaces its predecessor in one step, so a kill
        # at any moment leaves a whole checkpoint, the old one or the new.
        tensors = {"generator": self.generator.get_state()}
        tensors |= {f"model.{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"best.{name}": t for name, t in self.best.items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": t for name, t in state.items()}
        name = f"epoch-{len(self.history):04d}.safetensors"
        record = {
            "tensors": name,
            "best_epoch": self.best_epoch,
            "config": asdict(self.config),
            "history": [asdict(epoch) for epoch in self.history],
        }
        try:
            save_file({k: t.contiguous() for k, t in tensors.items()}, out / name)
            temporary = out / f"{CHECKPOINT}.new"
            temporary.write_text(json.dumps(record, indent=1))
            os.replace(temporary, out / CHECKPOINT)
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"The checkpoint could not be written to {out} ({error}): free some space or "
                "choose another folder; the epoch before it is kept."
            ) from error
        for old in out.glob("epoch-*.safetensors"):
            if old.name != name:
                old.unlink()

    def resume(self, out: Path) -> None:
        if not (out / CHECKPOINT).exists():
            return
        try:
            record = json.loads((out / CHECKPOINT).read_text())
            tensors = load_file(out / record["tensors"])
            saved = {"about": {}, **record["config"]}
            history = [Epoch(**epoch) for epoch in record["history"]]
            best_epoch = record["best_epoch"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise TrainingError(
                f"The checkpoint in {out} is damaged: delete the folder, or choose another."
            ) from error
        mine, theirs = ({**c, **c["about"], "about": None} for c in (asdict(self.config), saved))
        for name in mine.keys() - {"epochs", "patience"}:
            if theirs.get(name) != mine[name]:
                raise TrainingError(
                    f"The checkpoint in {out} is of a run with {name} {theirs.get(name)}, not "
                    f"{mine[name]}: choose another folder, or the same settings."
                )
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
        for key, tensor in tensors.items():
            kind, _, name = key.partition(".")
            if kind in parts:
                parts[kind][name] = tensor
        try:
            self.model.load_state_dict(parts["model"])
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in parts["optimizer"].items():
                i, _, name = key.partition(".")
                state.setdefault(int(i), {})[name] = tensor
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": state, "param_groups": groups})
            self.generator.set_state(tensors["generator"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise TrainingError(
                f"The checkpoint in {out} does not fit this model or device: choose another folder."
            ) from error
        self.best, self.best_epoch, self.history = parts["best"], best_epoch, history


def _epoch(
    run: _Run, loss: Loss, train_x: Tensor, validation_x: Tensor | None, bar: "_Bar"
) -> Epoch:
    number, start = len(run.history) + 1, time.perf_counter()
    bar.start(f"epoch {number}/{run.config.epochs}")
    run.model.train()
    order = torch.randperm(len(train_x), generator=run.generator, device=train_x.device)
    losses = []
    for batch in order.split(run.config.batch_size):
        per_example = loss(train_x[batch], run.generator)
        run.optimizer.zero_grad()
        per_example.mean().backward()
        run.optimizer.step()
        losses.append(per_example.detach())
        bar.advance(losses)
    train = mean_and_se(torch.cat(losses))
    seconds = time.perf_counter() - start
    if not torch.isfinite(torch.tensor(train.mean)):
        raise TrainingError(
            f"The loss became {train.mean} in epoch {number}: lower the learning rate, "
            f"now {run.config.lr}."
        )
    if validation_x is None:
        return Epoch(number, *train, seconds=seconds)
    run.model.eval()
    same_draws = torch.Generator(train_x.device).manual_seed(run.config.seed)
    validation = mean_and_se(in_batches(lambda x: loss(x, same_draws), validation_x))
    return Epoch(number, *train, *validation, seconds=seconds)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"The folder {out} cannot be made ({error.strerror}).") from error


class _Bar:
    """Progress of one epoch at a time: nats ± standard error and images a second."""

    EVERY = 20  # batches between updates: reading the loss waits for a GPU

    def __init__(self, show: bool, rows: int) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[nats]}"),
            disable=not show,
            transient=True,
        )
        self.rows = rows
        self.task = self.progress.add_task("", total=rows, nats="")
        self.began = 0.0

    def __enter__(self) -> "_Bar":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def start(self, description: str) -> None:
        self.began = time.perf_counter()
        self.progress.reset(self.task, description=description, nats="")

    def advance(self, losses: list[Tensor]) -> None:
        done = len(losses[0]) * (len(losses) - 1) + len(losses[-1])
        if self.progress.disable or len(losses) % self.EVERY or done < 2:
            return
        rate = done / (time.perf_counter() - self.began)
        loss = mean_and_se(torch.cat(losses))
        self.progress.update(self.task, completed=done, nats=f"{loss} nats, {rate:,.0f} images/s")

    def finish(self, epoch: Epoch) -> None:
        rate = self.rows / epoch.seconds
        if not self.progress.disable:
            self.progress.print(f"epoch {epoch.epoch}: {epoch}, {rate:,.0f} images/s")


def resolve_device(name: str) -> torch.device:
    """The device called `cpu` or `cuda`.

    Raises TrainingError when there is no such device on this machine.
    """
    if name == "cpu":
        return torch.device("cpu")
    if name != "cuda":
        raise TrainingError(f"There is no device {name!r}: choose cpu or cuda.")
    if not torch.cuda.is_available():
        raise TrainingError("This machine has no GPU that torch can use: choose --device cpu.")
    return torch.device("cuda")
