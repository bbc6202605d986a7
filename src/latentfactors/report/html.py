"""One HTML file of a run: tables and figures with plotly.js inside, nothing to load from anywhere.

The page forbids its own network access (Content-Security-Policy), and whatever users wrote is escaped by the
template. A section whose figure cannot be drawn says why in a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from latentfactors.errors import InsufficientDataError, StoreError
from latentfactors.evaluate import AuditCertificate, PortfolioSort
from latentfactors.evaluate.comparison import (
    confidence_set_of,
    diebold_mariano_table,
    period_losses,
    quantiles_for,
    sort_forecasts,
)
from latentfactors.frames import write_atomically
from latentfactors.report import comparison_figures, figures, pricing, pricing_figures
from latentfactors.report.folder import Run, read_run
from latentfactors.report.page import drawn, number, render

__all__ = ["render_report", "to_toml", "write_report"]

_SUMMARY = (
    ("r2_zero", "R² vs zero", 100, 2, "%"),
    ("r2_mean", "R² vs mean", 100, 2, "%"),
    ("rank_ic", "rank IC", 1, 3, ""),
    ("rank_ic_t", "t", 1, 1, ""),
    ("total_r2", "total R²", 100, 1, "%"),
    ("rmse", "RMSE", 1, 4, ""),
    ("n_own", "forecasts", 1, 0, ""),
)


def write_report(run: str | Path | Run, out: str | Path | None = None) -> Path:
    """Write the report of a run folder.

    Parameters
    ----------
    run
        Folder that `latentfactors walk-forward` or `latentfactors demo` wrote, or what `read_run` made of it.
    out
        The file; None: `report.html` in the run folder. Replaced whole or not at all.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    StoreError
        No run folder, a damaged one, or a file that cannot be written.
    """
    run = run if isinstance(run, Run) else read_run(run)
    path = run.folder / "report.html" if out is None else Path(out)
    if path.is_dir() or not path.parent.is_dir():
        raise StoreError(f"{str(path)!r} cannot be written: expected a file in a folder that exists")
    if path.resolve().parent == run.folder.resolve() and path.name in _files(run):
        raise StoreError(f"{str(path)!r} is a file of the run: choose another name")
    write_atomically(path, render_report(run).encode())
    return path


def render_report(run: Run) -> str:
    """The page as text."""
    data, names = run.data, list(run.records)
    return_like = data.value_kind in ("return", "excess_return")
    # Returns below -100% are no decimal returns: they are shown as they came.
    percent = return_like and not bool(np.any(data.realised < -1))
    cells = figures.common_cells(run.records)
    calibrations, uncalibrated = _calibrations(run, cells, percent)
    sorts, unsorted, n_quantiles = _sorts(run)
    return render(
        "report.html.j2",
        title=run.folder.resolve().name,
        manifest=run.manifest,
        panel=run.manifest["panel"],
        horizon=data.horizon,
        span=(str(data.target_times.min()), str(data.target_times.max()))
        if data.target_times.size
        else ("", ""),
        n_splits=len(run.manifest["splits"]),
        n_common=f"{int(run.metrics['n_forecasts'].max()):,}",
        summary_heads=[head for _, head, *_ in _SUMMARY],
        summary=list(_summary(run)),
        coverage=drawn(figures.coverage_figure(data.coverage)),
        coverage_facts=_coverage_facts(run),
        fits=[_fit_line(run, name) for name in names],
        fits_figure=drawn(figures.fits_figure(data.fits)),
        remarks={name: _entry(run, name).get("warnings", []) for name in names},
        failures={name: _entry(run, name).get("failures", []) for name in names},
        factors=[(who, drawn(figures.factors_figure(band))) for who, band in _distinct(data.bands)],
        loadings=[(who, drawn(figures.loadings_figure(each))) for who, each in _distinct(data.exposures)],
        errors=drawn(figures.errors_figure(run.records)),
        calibrations=calibrations,
        uncalibrated=uncalibrated,
        long_short=drawn(figures.long_short_figure(sorts, percent=percent, order=names)) if sorts else None,
        long_short_lines=[_sort_line(name, each, percent) for name, each in sorts.items()],
        long_short_heads=["mean", "volatility", "t", "Sharpe", "turnover"]
        + ["alpha", "t of alpha"] * any(each.factors is not None for each in sorts.values())
        + ["periods"],
        unsorted=unsorted,
        n_quantiles=n_quantiles,
        **_comparison(run, cells),
        **_pricing(run, percent),
        audits=[_audit_line(name, each) for name, each in run.certificates.items()],
        findings={name: _findings(each) for name, each in run.certificates.items()},
        config=to_toml(run.manifest["config"]),
        manifest_text=json.dumps(run.manifest, indent=2, ensure_ascii=False),
    )


# ------------------------------------------------------------------------------------ sections


def _summary(run: Run) -> Iterator[tuple[str, list[str]]]:
    for row in run.metrics.iter_rows(named=True):
        yield row["name"], [number(row[key], unit, digits, end) for key, _, unit, digits, end in _SUMMARY]


def _coverage_facts(run: Run) -> list[tuple[str, str]]:
    found = run.data.coverage
    seen = found.n_assets[found.n_assets > 0]
    missing = 1 - found.n_observed.sum() / max(found.n_assets.sum(), 1)
    live = run.manifest["panel"].get("periods", len(found.times)) - len(found.times)
    periods = f"{len(found.times):,}, {found.times[0]} to {found.times[-1]}"
    facts = [
        ("periods", periods + (f", and {live} live: no values yet" if live else "")),
        ("assets", f"{len(run.data.assets):,}"),
        ("assets per period", f"{seen.min():,} to {seen.max():,}, median {np.median(seen):,.0f}"),
        ("missing values", number(missing, 100, 2, "%") + " of all rows"),
    ]
    gaps = {name: share for name, share in found.columns.items() if share > 0}
    if found.columns:
        text = ", ".join(f"{name} {number(share, 100, 1, '%')}" for name, share in gaps.items()) or "none"
        facts.append(("missing characteristics", text))
    return facts


def _fit_line(run: Run, name: str) -> tuple[str, list[str]]:
    fits = run.data.fits[name]
    steps, done = fits.iterations[fits.done], int(fits.done.sum())
    if not steps.any():
        iterations = "closed form"
    else:
        iterations = f"{np.median(steps):.0f}" + (f", at most {steps.max()}" if np.ptp(steps) else "")
    seconds = fits.seconds[fits.done]
    return name, [
        f"{done} of {fits.done.size}",
        f"{int(fits.converged.sum())} of {done}",
        iterations,
        _time(float(np.median(seconds))),
        _time(float(seconds.sum())),
        str(len(_entry(run, name).get("warnings", []))),
        str(fits.done.size - done),
    ]


def _calibrations(run: Run, cells: Any, percent: bool) -> tuple[list[tuple[str, str]], dict[str, str]]:
    plots, left_out = [], {}
    for name, record in run.records.items():
        try:
            figure = figures.calibration_figure(record, cells=cells, percent=percent)
        except InsufficientDataError as error:
            left_out[name] = str(error)
        else:
            plots.append((name, drawn(figure)))
    return plots, left_out


def _sorts(run: Run) -> tuple[dict[str, PortfolioSort], dict[str, str], int]:
    """Sorts by predictor, why others have none, and the number of quantiles."""
    data, n_quantiles = run.data, quantiles_for(run.data.offsets)
    factors = data.observed_factor_names if data.value_kind in ("excess_return", "spread_change") else ()
    return *sort_forecasts(run.records, data.panel(), data.horizon, n_quantiles, factors), n_quantiles


def _sort_line(name: str, found: PortfolioSort, percent: bool) -> tuple[str, list[str]]:
    line = found.frame().to_dicts()[-1]
    unit, end = (100, "%") if percent else (1, "")
    return name, [
        number(line["mean"], unit, 2, end),
        number(line["volatility"], unit, 2, end),
        number(line["t"], 1, 2),
        number(line["sharpe"], 1, 2),
        number(line["turnover"], 100, 0, "%"),
        *([number(line["alpha"], unit, 2, end), number(line["alpha_t"], 1, 2)] if "alpha" in line else []),
        number(line["n_periods"], 1, 0),
    ]


def _comparison(run: Run, cells: Any) -> dict[str, Any]:
    """Both R2 as bars, the tests of all pairs, the confidence set or why there is none."""
    remarks = run.manifest.get("comparison", {})
    sees: dict[str, list[str]] = {}
    for name, what in remarks.get("sees", {}).items():
        sees.setdefault(what, []).append(name)
    losses = period_losses(run.records, cells)
    chosen, why = confidence_set_of(losses)
    pairs = diebold_mariano_table(losses, run.data.horizon)
    return {
        "r2_bars": drawn(comparison_figures.r2_figure(run.metrics)),
        "pairs": drawn(comparison_figures.diebold_mariano_figure(pairs)) if len(pairs.names) > 1 else None,
        "confidence": chosen,
        "no_confidence": why,
        "sees": sees,
        "left_out": remarks.get("left_out", {}),
        "comparison_notes": remarks.get("notes", []),
    }


def _pricing(run: Run, percent: bool) -> dict[str, Any]:
    """What the sections on pricing and Sharpe ratios show, with the reason where there is nothing to show."""
    data = run.data
    priced, sharpe = pricing.priced_models(data), pricing.sharpe_lines(data)
    kinds = {"return": "raw returns, less no risk-free rate", "series": "series, not returns"}
    why = (
        f"the values are {kinds[data.value_kind]}"
        if data.value_kind in kinds
        else ("the run has neither observed factors nor factors of its own")
    )
    found = pricing.run_correlations(data)
    return {
        "priced_lines": [_priced_line(name, each.line(), percent) for name, each in priced.items()],
        "alphas": drawn(pricing_figures.alphas_figure(priced)) if priced else None,
        "unpriced": why,
        "observed_names": data.observed_factor_names,
        "sharpe_lines": [_sharpe_line(name, each) for name, each in sharpe.items()],
        "tangency": drawn(pricing_figures.tangency_figure(pricing.distinct_paths(data))) if sharpe else None,
        "correlations": [
            (who, drawn(pricing_figures.correlations_figure(each))) for who, each in _distinct(found)
        ],
    }


def _priced_line(name: str, line: dict[str, float], percent: bool) -> tuple[str, list[str]]:
    unit, end = (100, "%") if percent else (1, "")
    return name, [
        number(line["mean_abs_alpha"], unit, 3, end),
        number(line["share_unpriced"], 100, 0, "%"),
        f"{line['n_above_1.96']} of {line['n_assets']}",
        number(line["grs"], 1, 2),
        number(line["p_value"], 1, 3),
        number(line["mean_r_squared"], 100, 0, "%"),
        str(line["n_periods"]),
    ]


def _sharpe_line(name: str, line: pricing.SharpeLine) -> tuple[str, list[str]]:
    return name, [
        str(line.n_factors),
        number(line.in_sample),
        number(line.out_of_sample),
        number(line.t),
        number(line.alpha_t),
        str(line.n_periods),
    ]


def _audit_line(name: str, found: AuditCertificate) -> tuple[str, list[str]]:
    moved = f"{len(found.findings)} of {len(found.trials)}"
    cuts = " to ".join(dict.fromkeys((*found.cuts[:1], *found.cuts[-1:])))
    return name, [found.verdict, moved, ", ".join(found.channels) or "–", cuts]


def _findings(found: AuditCertificate) -> list[str]:
    lines = [
        f"{each.channel} ({each.action}, estimates {each.estimates}), cut {each.cut}: {each.n_moved} of "
        f"{each.n_compared} forecasts moved, from {each.first_moved} on"
        for each in found.findings
    ]
    lines += [f"{each.channel} ({each.action}): {each.message}" for each in found.trials if each.message]
    return [*lines, *found.notes]


def _distinct(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Predictors that share a structural model share its factors and loadings: shown once, all named."""
    groups: list[tuple[list[str], Any]] = []
    for name, each in found.items():
        for names, former in groups:
            if former.values.shape == each.values.shape and np.array_equal(
                former.values, each.values, equal_nan=True
            ):
                names.append(name)
                break
        else:
            groups.append(([name], each))
    return [("; ".join(names), each) for names, each in groups]


# ------------------------------------------------------------------------------------ small things


def _entry(run: Run, name: str) -> Mapping[str, Any]:
    return run.manifest["predictors"][name]


def _files(run: Run) -> set[str]:
    return {
        *run.manifest["files"],
        *run.manifest["extra_files"],
        "manifest.json",
        "config.toml",
        "french.csv",
    }


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.{2 if seconds < 0.01 else 0}f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def to_toml(config: Mapping[str, Any]) -> str:
    """A configuration as TOML text that reads back as the same values.

    >>> print(to_toml({"run": {"output": "a"}, "predictor": [{"name": "z", "kind": "zero"}]}))
    [run]
    output = "a"
    <BLANKLINE>
    [[predictor]]
    name = "z"
    kind = "zero"
    """
    blocks = [f"{_key(key)} = {_value(each)}" for key, each in config.items() if not _is_section(each)]
    for key, section in config.items():
        if _is_section(section):
            many = isinstance(section, list)
            header = f"[[{_key(key)}]]" if many else f"[{_key(key)}]"
            for table in section if many else [section]:
                lines = [f"{_key(name)} = {_value(each)}" for name, each in table.items()]
                blocks.append("\n".join([header, *lines]))
    return "\n\n".join(blocks)


def _is_section(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)
    )


def _key(name: str) -> str:
    plain = name.isascii() and name.replace("_", "a").replace("-", "a").isalnum()
    return name if plain else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(name)} = {_value(each)}" for name, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):
        # JSON escapes are TOML's, and DEL is the one control character that JSON leaves as it is.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value, default=str)
