"""The figures' one style, and the pictures that chapters and the command line share."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import torch
from jaxtyping import Bool, Float
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLE = Path(__file__).with_name("vaecourse.mplstyle")
COLORS = {
    "blue": "#0072B2",
    "orange": "#D55E00",
    "green": "#009E73",
    "pink": "#CC79A7",
    "yellow": "#E69F00",
    "sky": "#56B4E9",
    "grey": "#6E6E6E",
}


def use_style() -> None:
    """Set the course's matplotlib style and, in a notebook, vector graphics."""
    plt.style.use(STYLE)
    if "IPython" in sys.modules and (shell := sys.modules["IPython"].get_ipython()):
        shell.run_line_magic("config", "InlineBackend.figure_formats = ['svg']")


def show_image(
    axes: "Axes", image: Float[Tensor, " D"], visible: Bool[Tensor, " D"] | None = None
) -> None:
    """Draw one square image, ink dark on white, without ticks; grey values in [0, 1].

    Where `visible` is True, ink is blue on light blue: the part that a completion was given.
    """
    side = round(image.numel() ** 0.5)
    ink, paper = torch.zeros(image.numel(), 3), torch.ones(image.numel(), 3)
    if visible is not None:
        ink[visible.cpu()] = torch.tensor(to_rgb(COLORS["blue"]))
        paper[visible.cpu()] = torch.tensor(to_rgb("#DBEDFA"))
    pixels = torch.lerp(paper, ink, image.detach().cpu().float().clamp(0, 1)[:, None])
    axes.imshow(pixels.reshape(side, side, 3).numpy(), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=visible is not None, color="#CCCCCC", linewidth=0.6)


def image_grid(
    images: Float[Tensor, "R C D"],
    row_labels: list[str] | None = None,
    column_labels: list[str] | None = None,
    visible: Bool[Tensor, " D"] | None = None,
    width: float = 6.4,
) -> Figure:
    """Draw images in R rows and C columns, with an optional word before each row and column."""
    rows, columns, _ = images.shape
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, width * rows / columns), squeeze=False
    )
    for r in range(rows):
        for c in range(columns):
            show_image(axes[r, c], images[r, c], visible)
    for r, label in enumerate(row_labels or []):
        axes[r, 0].set_ylabel(label, rotation=0, ha="right", va="center")
    for c, label in enumerate(column_labels or []):
        axes[0, c].set_title(label)
    return figure
