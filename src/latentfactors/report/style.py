"""How figures look: colours, lines, layout. Colours are those of Okabe & Ito."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from latentfactors.errors import MissingCapabilityError

try:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots
except ImportError as error:
    raise MissingCapabilityError(
        "figures need plotly, which is not installed: pip install 'latentfactors[report]'"
    ) from error

__all__ = [
    "DIVERGING",
    "MOST_LINES",
    "PALETTE",
    "SHADE",
    "as_dates",
    "finished",
    "go",
    "line_style",
    "make_subplots",
    "shortened",
    "stacked",
]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#595959")
DASHES = ("solid", "dash", "dot", "dashdot")
SHADE = "rgba(0, 114, 178, 0.22)"
DIVERGING = ((0.0, "#B2561D"), (0.25, "#EBB88F"), (0.5, "#F7F7F7"), (0.75, "#92C0DF"), (1.0, "#0B5C93"))
INK, GRID = "#2B2F33", "#E3E6E8"

MOST_LINES = 60  # of a heat map that can still be read


def as_dates(times: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Times as plotly takes them: dates as text, integers as they are."""
    return times.astype(str) if times.dtype.kind == "M" else times


def shortened(label: str) -> str:
    """A label of at most 24 characters."""
    return label if len(label) <= 24 else f"{label[:23]}…"


def line_style(i: int) -> dict[str, Any]:
    """Colour and dash of the i-th line."""
    dash = DASHES[i // len(PALETTE) % len(DASHES)]
    return {"color": PALETTE[i % len(PALETTE)], "dash": dash, "width": 1.6}


def stacked(n_rows: int, heights: list[float]) -> go.Figure:
    """Figures below one another on one axis of time."""
    return make_subplots(
        rows=n_rows, cols=1, shared_xaxes=True, row_heights=heights, vertical_spacing=0.12 / n_rows
    )


def finished(figure: go.Figure, title: str, height: int, *, legend: bool = True) -> go.Figure:
    """The house style; a legend below, so that a narrow screen keeps the width for the lines."""
    figure.update_layout(
        template="none",
        title={"text": title, "x": 0, "xref": "paper", "font": {"size": 16}},
        height=height,
        margin={"l": 58, "r": 14, "t": 48, "b": 44},
        font={
            "family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
            "size": 13,
            "color": INK,
        },
        paper_bgcolor="white",
        plot_bgcolor="white",
        hoverlabel={"namelength": -1},
        showlegend=legend,
        legend={"orientation": "h", "x": 0, "y": -0.12, "yanchor": "top", "title": {"text": ""}},
    )
    style = {
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": "#9AA0A6",
        "ticks": "",
        "automargin": True,
        "title": {"font": {"size": 13}, "standoff": 8},
    }
    figure.update_xaxes(**style, fixedrange=False)
    figure.update_yaxes(**style, showline=False)
    return figure
