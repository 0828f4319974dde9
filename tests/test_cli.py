import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from vaecourse.cli import main
from vaecourse.vae import VAE

ROOT = Path(__file__).parents[1]
VERBS = ["train", "release", "sample", "grade", "feedback", "export", "doctor"]


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def vaecourse(*words: str, **environment: str) -> Result:
    """Run the command in this process, as its entry point does."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["vaecourse", *words])
        patch.setattr(torch.cuda, "is_available", lambda: False)
        for name, value in {"COLUMNS": "200", **environment}.items():
            patch.setenv(name, value)
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
    return Result(code, out.getvalue(), err.getvalue())


def test_installed_command_ends_a_mistake_with_one_sentence_and_exit_code_1() -> None:
    command = [str(Path(sys.executable).with_name("vaecourse")), "train", "gan", "--out", "nowhere"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr.strip() == (
        "vaecourse: There is no model 'gan': choose one of vae, cvae, baseline."
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "vae"
    run = vaecourse("train", "vae", "--data", "digits8", "--epochs", "2", "--out", str(out))
    assert run.returncode == 0, run.stderr
    assert "nats an image" in run.stdout
    return out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_has_an_example(verb: str) -> None:
    run = vaecourse(verb, "--help")
    assert run.returncode == 0
    assert f"Example: vaecourse {verb}" in run.stdout


def test_training_writes_weights_scores_and_pictures(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names >= {"model.safetensors", "results.json", "checkpoint.json"}
    assert names >= {"samples.png", "reconstructions.png", "loss.png"}
    VAE.bernoulli(64).load_state_dict(load_file(trained / "model.safetensors"))
    record = json.loads((trained / "results.json").read_text())
    assert record["test"]["elbo"]["mean"] < record["test"]["log_likelihood"]["mean"] < 0
    assert record["test"]["elbo"]["se"] > 0


@pytest.mark.parametrize("model", ["cvae", "baseline"])
def test_completing_models_write_completions(model: str, tmp_path: Path) -> None:
    out = tmp_path / model
    run = vaecourse(
        "train", model, "--data", "digits8", "--epochs", "1", "--mask", "quadrants-2",
        "--patience", "1", "--out", str(out),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert (out / "completions.png").stat().st_size > 1000
    history = json.loads((out / "results.json").read_text())["history"]
    assert history[0]["validation_se"] > 0


def test_finished_run_is_not_trained_again(trained: Path) -> None:
    before = (trained / "checkpoint.json").read_text()
    run = vaecourse("train", "vae", "--data", "digits8", "--epochs", "2", "--out", str(trained))
    assert run.returncode == 0 and "epoch" not in run.stdout
    assert (trained / "checkpoint.json").read_text() == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["vae", "--device", "cuda"], "This machine has no GPU that torch can use"),
        (["vae", "--device", "tpu"], "There is no device 'tpu': choose cpu or cuda."),
        (["gan"], "There is no model 'gan': choose one of vae, cvae, baseline."),
        (["vae", "--data", "faces"], "There is no data set 'faces'"),
        (["cvae", "--mask", "half"], "There is no mask 'half'"),
        (["vae", "--mask", "column"], "The vae completes nothing, so it takes no mask"),
        (["vae", "--epochs", "0"], "epochs must be positive, not 0."),
        (["vae", "--latent-dim", "0"], "The latent dimension must be at least 1, not 0."),
    ],
)
def test_wrong_input_to_train_is_one_sentence(
    words: list[str], sentence: str, tmp_path: Path
) -> None:
    run = vaecourse("train", *words, "--out", str(tmp_path / "run"))
    assert run.returncode == 1
    assert run.stderr.startswith("vaecourse: ") and sentence in run.stderr
    assert len(run.stderr.splitlines()) == 1 and run.stdout == ""
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = vaecourse("train", "vae", "--data", "digits8", "--out", str(tmp_path / "file" / "run"))
    assert run.returncode == 1 and "cannot be made" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_missing_mnist_is_one_sentence(tmp_path: Path) -> None:
    words = ["train", "vae", "--data", "mnist", "--out", str(tmp_path / "run")]
    run = vaecourse(*words, VAECOURSE_DATA=str(tmp_path / "nowhere"))
    assert run.returncode == 1 and "mnist5k, which needs no download" in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [["frobnicate"], ["train"], ["train", "vae", "--epochs", "x"]])
def test_unknown_words_get_usage_and_exit_code_2(words: list[str]) -> None:
    run = vaecourse(*words)
    assert run.returncode == 2 and "Traceback" not in run.stderr and "Usage" in run.stderr


def test_doctor_names_device_data_and_sandbox(tmp_path: Path) -> None:
    run = vaecourse("doctor", VAECOURSE_DATA=str(tmp_path))
    assert run.returncode == 0
    for word in (
        torch.__version__.split("+")[0],
        "nbgrader",
        "device",
        "sandbox",
        "VAECOURSE_DATA",
    ):
        assert word in run.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["release", "nope"], "There is no assignment 'nope'"),
        (["sample", "nope"], "There is no assignment 'nope'"),
        (["grade", "nope"], "There is no assignment 'nope'"),
        (["feedback", "nope"], "There is no assignment 'nope'"),
        (["export", "nope"], "There is no assignment 'nope'"),
        (["grade", "kl"], "run `vaecourse release kl`"),
        (["feedback"], "run `vaecourse grade` first"),
        (["export"], "run `vaecourse release` first"),
    ],
)
def test_wrong_input_to_grading_verbs_is_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nbgrader_config.py").write_text((ROOT / "nbgrader_config.py").read_text())
    (tmp_path / "solutions").symlink_to(ROOT / "solutions")
    monkeypatch.chdir(tmp_path)
    run = vaecourse(*words)
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr.startswith("vaecourse: ") and sentence in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize("verb", ["release", "sample", "grade", "feedback", "export"])
def test_grading_verbs_outside_a_course_are_refused(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = vaecourse(verb)
    assert run.returncode == 1
    assert "There is no nbgrader_config.py in" in run.stderr
    assert len(run.stderr.splitlines()) == 1
