"""How pictures look: colours, axes and the bytes of a PNG."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

INK, QUIET, FAINT, GRID = "#1f2933", "#52606d", "#9aa5b1", "#e4e7eb"
HUES = ("#2563a8", "#c2571a", "#2f855a", "#7b4fa3", "#b83255", "#5a6672", "#8a6d1b", "#167d8d")
# Told apart with any colour vision (Okabe and Ito 2008, without its yellow, which white swallows).
SAFE_HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7d6b57")
TITLE_LETTER, TITLE_LINE = 0.122, 0.22  # inches of a title: of a letter, of a line
PNG_MARK = "SegDoubt picture"


def style_axes(axes: Any, title: str) -> None:
    """A title to the left, a faint grid behind and no frame but the lower edge."""
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=QUIET, labelsize=8.5, length=0)
    axes.spines[:].set_visible(False)
    axes.spines["bottom"].set(visible=True, color=FAINT)


def label_axes(axes: Any, x: str = "", y: str = "") -> None:
    """What the axes mean, with units."""
    axes.set_xlabel(x, fontsize=9, color=QUIET)
    axes.set_ylabel(y, fontsize=9, color=QUIET)


def new_figure(width: float, height: float, title: str = "") -> Any:
    """An empty figure of so many inches, which arranges what is put into it.

    A title that is wider is folded, and the figure grows by its lines.
    """
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # The object interface: pyplot would keep figures alive and choose a backend for the process.
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.09)  # inches
    lines = textwrap.wrap(title, int(width / TITLE_LETTER))
    height += TITLE_LINE * max(0, len(lines) - 1)
    figure = Figure(figsize=(width, height), dpi=120, layout=layout, facecolor="white")
    if title:
        figure.suptitle(
            "\n".join(lines), x=0.012, ha="left", fontsize=13, color=INK, fontweight="bold"
        )
    return figure


def legend_below(figure: Any, handles: Sequence[Any], columns: int = 1) -> None:
    """What the marks of a figure mean, below it; each handle has its label."""
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=columns,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=2.6,
    )


def as_png(figure: Any, dpi: float | str = "figure") -> bytes:
    """A figure as PNG, the same bytes every time, marked as this program's.

    The figure keeps the arrangement that it gets here.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": PNG_MARK})
    figure.set_layout_engine("none")  # arranging again would take as long as drawing
    return buffer.getvalue()
