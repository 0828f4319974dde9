import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vaecourse.training import (
    CHECKPOINT,
    Config,
    Epoch,
    TrainingError,
    resolve_device,
    train,
)
from vaecourse.vae import VAE

CONFIG = Config(epochs=4, batch_size=97, lr=1e-2, seed=5)


@pytest.fixture
def x() -> Tensor:
    return (torch.rand(300, 12, generator=torch.Generator().manual_seed(0)) < 0.3).float()


def new_model() -> VAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VAE.bernoulli(12, latent_dim=2, hidden_dim=8)


def fit(x: Tensor, config: Config = CONFIG, **options: object) -> tuple[VAE, list[Epoch]]:
    model = new_model()
    history = train(model, lambda b, g: -model.elbo(b, g), x, config=config, **options)
    return model, [replace(epoch, seconds=0.0) for epoch in history]


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_every_epoch_visits_every_row_once_in_a_new_order(x: Tensor) -> None:
    x[:, 0] = torch.arange(300)
    seen: list[Tensor] = []
    model = nn.Linear(1, 1)

    def loss(batch: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(batch[:, 0])
        return model.weight.sum().expand(len(batch))

    train(model, loss, x, config=replace(CONFIG, epochs=2))
    first, second = torch.cat(seen).split(300)
    assert torch.equal(first.sort().values, x[:, 0]) and torch.equal(second.sort().values, x[:, 0])
    assert not torch.equal(first, second)
    assert [len(batch) for batch in seen] == [97, 97, 97, 9] * 2


def test_loss_of_an_epoch_is_the_mean_over_examples_with_its_standard_error(x: Tensor) -> None:
    model = nn.Linear(1, 1)
    history = train(
        model,
        lambda batch, g: batch.sum(1) + 0 * model.weight.sum(),
        x,
        config=replace(CONFIG, epochs=1),
    )
    sums = x.double().sum(1)
    assert history[0].train_loss == pytest.approx(sums.mean().item(), rel=1e-6)
    assert history[0].train_se == pytest.approx((sums.std() / 300**0.5).item(), rel=1e-6)


def test_training_lowers_the_loss(x: Tensor) -> None:
    _, history = fit(x, replace(CONFIG, epochs=8))
    assert history[-1].train_loss < history[0].train_loss - 3 * history[0].train_se


def test_same_seed_gives_same_weights_and_another_seed_others(x: Tensor) -> None:
    first, second = fit(x)[0], fit(x)[0]
    other = fit(x, replace(CONFIG, seed=6))[0]
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


def test_stopped_run_resumes_to_the_same_numbers(x: Tensor, tmp_path: Path) -> None:
    options = {"validation_x": x[:100]}
    whole, history = fit(x, **options)
    fit(x, replace(CONFIG, epochs=2), out=tmp_path, **options)
    resumed, resumed_history = fit(x, out=tmp_path, **options)
    assert torch.equal(weights(whole), weights(resumed))
    assert history == resumed_history


KILLED = """
import sys, torch
from pathlib import Path
from tests.test_training import CONFIG, fit
from dataclasses import replace
x = (torch.rand(300, 12, generator=torch.Generator().manual_seed(0)) < 0.3).float()
fit(x, replace(CONFIG, epochs=3000), out=Path(sys.argv[1]))
"""


def test_run_killed_at_any_moment_resumes_to_the_same_numbers(x: Tensor, tmp_path: Path) -> None:
    for _ in range(2):
        run = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
        before = reached(tmp_path)
        deadline = time.monotonic() + 60
        while reached(tmp_path) < before + 5:
            assert time.monotonic() < deadline and run.poll() is None
        run.kill()
        run.wait()
    epochs = reached(tmp_path) + 3
    resumed, resumed_history = fit(x, replace(CONFIG, epochs=epochs), out=tmp_path)
    whole, history = fit(x, replace(CONFIG, epochs=epochs))
    assert torch.equal(weights(whole), weights(resumed))
    assert history == resumed_history


def reached(out: Path) -> int:
    path = out / CHECKPOINT
    return len(json.loads(path.read_text())["history"]) if path.exists() else 0


def test_only_the_last_checkpoint_is_kept(x: Tensor, tmp_path: Path) -> None:
    fit(x, out=tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [CHECKPOINT, "epoch-0004.safetensors"]


def test_early_stopping_ends_with_the_best_validation_weights(x: Tensor) -> None:
    # a model that gets worse with every step: its validation loss is lowest after epoch 1
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    after: list[float] = []

    def loss(batch: Tensor, generator: torch.Generator) -> Tensor:
        if not torch.is_grad_enabled():
            after.append(model.weight.item())
            return (model.weight**2).sum().expand(len(batch))
        return model.weight.sum().expand(len(batch))

    history = train(model, loss, x, x[:50], config=replace(CONFIG, epochs=50, patience=3))
    assert len(history) == 4
    assert model.weight.item() == after[0] != after[-1]


def test_validation_uses_the_same_draws_every_epoch(x: Tensor) -> None:
    model = nn.Linear(1, 1)
    drawn: list[Tensor] = []

    def loss(batch: Tensor, generator: torch.Generator) -> Tensor:
        if not torch.is_grad_enabled():
            drawn.append(torch.rand(3, generator=generator))
        return model.weight.sum().expand(len(batch))

    train(model, loss, x, x[:50], config=replace(CONFIG, epochs=2))
    assert torch.equal(drawn[0], drawn[1])


def test_diverging_loss_stops_with_the_mend(x: Tensor) -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(TrainingError, match="became nan in epoch 1: lower the learning rate"):
        train(model, lambda b, g: model.weight.sum() * b[:, 0] * torch.nan, x, config=CONFIG)


@pytest.mark.parametrize(
    "setting", [{"epochs": 0}, {"batch_size": -1}, {"lr": 0.0}, {"patience": 0}]
)
def test_settings_must_be_positive(setting: dict) -> None:
    with pytest.raises(TrainingError, match=f"{next(iter(setting))} must be positive"):
        replace(CONFIG, **setting)


def test_early_stopping_needs_validation_rows(x: Tensor) -> None:
    with pytest.raises(TrainingError, match="needs validation images"):
        fit(x, replace(CONFIG, patience=1))


def test_checkpoint_of_another_run_is_refused(x: Tensor, tmp_path: Path) -> None:
    fit(x, out=tmp_path)
    with pytest.raises(TrainingError, match="run with seed 5, not 6"):
        fit(x, replace(CONFIG, seed=6), out=tmp_path)


@pytest.mark.parametrize("name", [CHECKPOINT, "epoch-0004.safetensors"])
def test_damaged_checkpoint_is_refused(x: Tensor, tmp_path: Path, name: str) -> None:
    fit(x, out=tmp_path)
    os.truncate(tmp_path / name, 40)
    with pytest.raises(TrainingError, match="is damaged: delete the folder"):
        fit(x, out=tmp_path)


def test_checkpoint_of_another_architecture_is_refused(x: Tensor, tmp_path: Path) -> None:
    fit(x, out=tmp_path)
    model = VAE.bernoulli(12, latent_dim=3, hidden_dim=8)
    with pytest.raises(TrainingError, match="does not fit this model"):
        train(model, lambda b, g: -model.elbo(b, g), x, config=CONFIG, out=tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_full_disk_keeps_the_checkpoint_before(
    x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(x, replace(CONFIG, epochs=2), out=tmp_path)
    (tmp_path / f"{CHECKPOINT}.new").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match="could not be written"):
        fit(x, out=tmp_path)
    assert reached(tmp_path) == 2
    (tmp_path / f"{CHECKPOINT}.new").unlink()
    _, history = fit(x, out=tmp_path)
    assert history == fit(x)[1]


def test_unknown_and_absent_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(TrainingError, match="no device 'tpu': choose cpu or cuda"):
        resolve_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match="no GPU that torch can use: choose --device cpu"):
        resolve_device("cuda")
