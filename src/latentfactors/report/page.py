"""What all pages share: the frame with its style and script, figures as JSON, numbers as text.

A page has plotly.js inside and nothing to load; it forbids its own network access (Content-Security-Policy),
and the templates escape whatever users wrote.
"""

from __future__ import annotations

import datetime
from importlib import resources
from typing import Any

from latentfactors._version import __version__
from latentfactors.errors import MissingCapabilityError

try:
    import jinja2
    from plotly.offline import get_plotlyjs
except ImportError as error:
    raise MissingCapabilityError(
        "the report needs plotly and jinja2, which are not installed: pip install 'latentfactors[report]'"
    ) from error

__all__ = ["drawn", "number", "render"]


def render(template: str, **context: Any) -> str:
    """A template of this package as text; the version, the date and plotly.js are added to its context."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    written = datetime.date.today().isoformat()
    return environment.get_template(template).render(
        plotly=get_plotlyjs(), version=__version__, written=written, **context
    )


def _source(name: str) -> str:
    return resources.files("latentfactors.report").joinpath(name).read_text(encoding="utf-8")


def number(value: float | None, unit: float = 1, digits: int = 2, end: str = "") -> str:
    """A number with a true minus sign and thousands apart; a dash where there is none."""
    if value is None or value != value:
        return "–"
    text = f"{value * unit:,.{digits}f}"
    text = text.removeprefix("-") if float(text.replace(",", "")) == 0 else text.replace("-", "−")
    return text + end


def drawn(figure: Any) -> dict[str, Any]:
    """A figure as the template takes it: its title as text, the rest as JSON that can stand in a script."""
    title, height = figure.layout.title.text, figure.layout.height
    figure.update_layout(title=None, margin_t=figure.layout.margin.t - 32, height=None)
    n_legend = sum(each.showlegend is not False and each.type != "heatmap" for each in figure.data)
    text = figure.to_json().replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    legend = n_legend if figure.layout.showlegend else 0
    return {"title": title, "height": height - 32, "legend": legend, "json": text}
