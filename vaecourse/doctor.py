"""What is installed and usable on this machine, and what to do about what is missing."""

import importlib.metadata
import platform
import shutil
from collections.abc import Callable
from typing import NamedTuple

import torch

from vaecourse.data import DataError, load


class Check(NamedTuple):
    """One finding: `found` says what there is, `mend` what to do where something is missing."""

    name: str
    found: str
    mend: str = ""

    @property
    def ok(self) -> bool:
        return not self.mend


def doctor() -> list[Check]:
    """Look at Python, packages, device, data, browser and sandbox, changing nothing."""
    return [check() for check in CHECKS]


def _python() -> Check:
    return Check("Python", f"{platform.python_version()} on {platform.system()}")


def _package(name: str, extra: str | None = None) -> Callable[[], Check]:
    def check() -> Check:
        try:
            return Check(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            wanted = f"vaecourse[{extra}]" if extra else "vaecourse"
            return Check(name, "not installed", f"pip install '{wanted}'")

    return check


def _device() -> Check:
    if torch.cuda.is_available():
        return Check("device", f"cuda ({torch.cuda.get_device_name()}) and cpu")
    return Check("device", f"cpu ({torch.get_num_threads()} threads); no GPU, which is fine")


def _mnist() -> Check:
    try:
        load("mnist", download=False)
    except DataError:
        return Check(
            "mnist",
            "not here; mnist5k and digits8 need no download",
            "is downloaded at first use, or set VAECOURSE_DATA to a folder that holds MNIST/raw",
        )
    return Check("mnist", "70,000 images")


def _browser() -> Check:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return Check("browser", path)
    return Check("browser", "no Chromium or Chrome", "install Chromium, for `make test` only")


def _sandbox() -> Check:
    return Check(
        "sandbox",
        "none: submissions run with your rights",
        "grade work of people you do not trust in a container or a spare account",
    )


CHECKS: list[Callable[[], Check]] = [
    _python,
    _package("torch"),
    _package("torchvision"),
    _package("jupyter-book", "book"),
    _package("nbgrader", "grade"),
    _package("jupyterlab", "grade"),
    _device,
    _mnist,
    _browser,
    _sandbox,
]
