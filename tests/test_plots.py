import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from vaecourse.plots import COLORS, STYLE, image_grid, show_image


@pytest.fixture(autouse=True)
def figures_closed() -> None:
    yield
    plt.close("all")


def drawn(image: torch.Tensor, visible: torch.Tensor | None = None) -> np.ndarray:
    _, axes = plt.subplots()
    show_image(axes, image, visible)
    return np.asarray(axes.images[0].get_array())


def test_ink_is_black_on_white_row_by_row() -> None:
    pixels = drawn(torch.tensor([0.0, 1.0, 0.25, 2.0]))
    assert pixels.shape == (2, 2, 3)
    assert np.allclose(pixels[..., 0], [[1, 0], [0.75, 0]])


def test_visible_ink_is_blue_and_hidden_ink_black() -> None:
    pixels = drawn(torch.ones(4), torch.tensor([True, False, False, False]))
    assert np.allclose(pixels[0, 0], plt.matplotlib.colors.to_rgb(COLORS["blue"]))
    assert np.allclose(pixels[1, 1], 0)


def test_grid_has_a_panel_an_image_and_its_labels() -> None:
    figure = image_grid(torch.rand(2, 3, 4), ["first", "second"], ["a", "b", "c"])
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c", "", "", ""]
    assert [axes.get_ylabel() for axes in figure.axes] == ["first", "", "", "second", "", ""]


def test_style_sheet_is_one_that_matplotlib_accepts() -> None:
    with plt.style.context(STYLE):
        assert plt.rcParams["figure.constrained_layout.use"]
        assert plt.rcParams["svg.hashsalt"] == "vaecourse"
