"""Backcasts and nowcasts of euro area GDP with small, medium and large dynamic factor models.

    python studies/bm14_euro_area.py FOLDER [--first 2000-01] [--factors 2] [--lags 2]

FOLDER holds BM14_M.csv.gz, BM14_Q.csv.gz and BM14_Models.csv: the replication data of Banbura & Modugno
(2014) without proprietary series (92 monthly, 9 quarterly, 1980-01 to 2009-09). The design is a pseudo
real-time one: one vintage's values, and in every month the ragged edge that the panel's own last month has;
GDP of a quarter is published two months after its end. Parameters are estimated once a year, from what was
known at the end of the December before.

Series with the log flag are 100 times their log difference, others differences, month on month or quarter
on quarter; quarterly series carry Mariano-Murasawa weights. The peer is an AR(1) of GDP growth on the same
dates.

Writes studies/results/bm14_euro_area.md.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from latentfactors import DFMConfig, DynamicFactorModel, Panel
from latentfactors.kernels.dynamic_factor import expectation, observation_pattern
from latentfactors.models.dfm import DFMEstimates
from latentfactors.rows import SeriesInfo

SIZES = ("small", "medium", "large")
TARGET = "gdp"
RESULT = Path(__file__).parent / "results" / "bm14_euro_area.md"
# Months after the quarter's end at which its GDP is known.
GDP_DELAY = 2


def read_levels(path: Path) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Dates (T,), names and levels (T, N)."""
    with gzip.open(path, "rt") as stream:
        head, *rows = csv.reader(stream)
    values = np.array([[float(cell) if cell else np.nan for cell in row[1:]] for row in rows])
    return np.array([row[0] for row in rows], dtype="datetime64[D]"), head[1:], values


def read_models(path: Path) -> dict[str, dict[str, bool]]:
    """By series: the log flag and membership of the three models."""
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    keys = ("log_trans", *SIZES)
    return {row["series"]: {key: row[key] == "True" for key in keys} for row in rows}


def growth(levels: np.ndarray, names: list[str], flags: dict[str, dict[str, bool]]) -> np.ndarray:
    """100 times log differences where flagged, differences elsewhere."""
    logs = np.array([flags[name]["log_trans"] for name in names])
    moved = np.where(logs, 100.0 * np.log(np.where(levels > 0.0, levels, np.nan)), levels)
    return np.concatenate([np.full((1, len(names)), np.nan), np.diff(moved, axis=0)])


def read_panel(folder: Path) -> tuple[Panel, dict[str, dict[str, bool]]]:
    """All series on the months' calendar, without the first month, which has no growth."""
    flags = read_models(folder / "BM14_Models.csv")
    months, monthly_names, monthly = read_levels(folder / "BM14_M.csv.gz")
    quarters, quarterly_names, quarterly = read_levels(folder / "BM14_Q.csv.gz")
    values = np.full((months.size, len(monthly_names) + len(quarterly_names)), np.nan)
    values[:, : len(monthly_names)] = growth(monthly, monthly_names, flags)
    rows = np.searchsorted(months, quarters)
    values[rows, len(monthly_names) :] = growth(quarterly, quarterly_names, flags)
    info = SeriesInfo(
        frequency=("M",) * len(monthly_names) + ("Q",) * len(quarterly_names),
        aggregation=("end",) * len(monthly_names) + ("mariano_murasawa",) * len(quarterly_names),
    )
    panel = Panel.from_wide(
        values[1:],
        universe="all",
        times=months[1:],
        assets=[*monthly_names, *quarterly_names],
        frequency="M",
        value_kind="series",
        series=info,
    )
    return panel, flags


def publication_lags(panel: Panel) -> np.ndarray:
    """(N,) months at the end of the panel in which a series is not yet known; quarterly ones by quarters."""
    assert panel.series is not None
    seen = np.isfinite(panel.wide())
    lags = seen[::-1].argmax(axis=0)
    quarterly = np.array([frequency == "Q" for frequency in panel.series.frequency])
    # the panel ends with a quarter: a value known for it comes at once, for the one before after two months
    return np.where(quarterly, np.where(lags == 0, 0, GDP_DELAY), lags)


def known_at(values: np.ndarray, lags: np.ndarray, month: int) -> np.ndarray:
    """(month + 1, N) what is published at the end of a month."""
    age = month - np.arange(month + 1)[:, None]
    return np.where(age >= lags, values[: month + 1], np.nan)


def estimate_quarter(estimates: DFMEstimates, known: np.ndarray, end: int, series: int) -> float:
    """The expected value of a quarterly series in the quarter that ends in period `end`."""
    rows = max(end + 1, len(known))
    values = np.full((rows, known.shape[1]), np.nan)
    values[: len(known)] = known
    values = (values - estimates.location) / estimates.scale
    pattern = observation_pattern(
        values,
        autoregressive=bool((estimates.persistence != 0.0).any()),
        lags=estimates.transition.shape[0],
        weights=estimates.weights,
    )
    means = expectation(estimates.parameters, pattern).means
    r = estimates.loadings.shape[1]
    own = means[:, r + int(np.flatnonzero(pattern.low == series)[0])]
    latent = means[:, :r] @ estimates.loadings[series] + own
    at = end + pattern.lead - np.arange(estimates.weights.shape[1])
    return float(
        estimates.location[series] + estimates.scale[series] * (estimates.weights[series] @ latent[at])
    )


def autoregression(known: np.ndarray, steps: int) -> float:
    """AR(1) with a constant, iterated."""
    now, before = known[1:], known[:-1]
    slope = ((now - now.mean()) @ (before - before.mean())) / ((before - before.mean()) ** 2).sum()
    constant = now.mean() - slope * before.mean()
    value = float(known[-1])
    for _ in range(steps):
        value = float(constant + slope * value)
    return value


def evaluate(
    panel: Panel, flags: dict[str, dict[str, bool]], size: str, first: int, factors: int, lags: int
) -> tuple[dict[str, list[tuple[float, float, float]]], list[tuple[object, ...]]]:
    """Errors by kind of estimate, (model, AR(1), truth); and one line about the fit of the whole sample."""
    chosen = np.array([flags[str(name)][size] for name in panel.assets])
    inside = panel.select(panel.assets[chosen])
    config = DFMConfig(n_factors=factors, factor_lags=lags, tolerance=1e-3, max_iterations=600)
    model = DynamicFactorModel(config)
    began, processor = time.perf_counter(), time.process_time()
    summary = model.fit(inside)
    spent = time.perf_counter() - began, time.process_time() - processor
    line = (
        size,
        f"{chosen.sum()}",
        f"{summary.loglikelihood:.1f}",
        f"{summary.metrics['bic']:.0f}",
        summary.n_iterations,
        "yes" if summary.converged else "no",
        f"{spent[0]:.1f}",
        f"{spent[1]:.1f}",
    )
    wide, lag = inside.wide(), publication_lags(inside)
    months = panel.times.astype("datetime64[M]").astype(np.int64)
    errors: dict[str, list[tuple[float, float, float]]] = {}
    estimates = model.estimates
    for month in range(first, panel.n_periods):
        if month == first or months[month] % 12 == 0:
            # what was known at the end of the December before
            start = known_at(wide, lag, month - 1)
            history = inside.between(0, month)
            model.fit(history.with_values(history.index.gather(start)))
            estimates = model.estimates
        names = estimates.series.tolist()
        columns = [inside.assets.tolist().index(name) for name in names]
        known = known_at(wide, lag, month)[:, columns]
        gdp = names.index(TARGET)
        seen = known[:, gdp][np.isfinite(known[:, gdp])]
        last = int(np.flatnonzero(np.isfinite(known[:, gdp]))[-1])
        place = int(months[month] % 3)
        ends = {f"nowcast, month {place + 1}": month + 2 - place}
        if last < month + 2 - place - 3:
            ends[f"backcast, month {place + 1}"] = month + 2 - place - 3
        for kind, end in ends.items():
            truth = wide[end, inside.assets.tolist().index(TARGET)] if end < panel.n_periods else np.nan
            if np.isfinite(truth):
                found = estimate_quarter(estimates, known, end, gdp)
                peer = autoregression(seen, (end - last) // 3)
                errors.setdefault(kind, []).append((found, peer, float(truth)))
    return errors, [line]


def errors_share(found: np.ndarray, last: int) -> float:
    """Share of the AR(1)'s squared errors in the last quarters."""
    squares = (found[:, 1] - found[:, 2]) ** 2
    return float(squares[-last:].sum() / squares.sum())


def table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """Markdown."""
    lines = [" | ".join(map(str, each)) for each in (head, ("---",) * len(head), *rows)]
    return "\n".join(f"| {each} |" for each in lines)


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", default="2000-01", help="first month of the evaluation")
    parser.add_argument("--factors", type=int, default=2)
    parser.add_argument("--lags", type=int, default=2)
    arguments = parser.parse_args()
    panel, flags = read_panel(arguments.folder)
    first = panel.index.position(arguments.first)
    kinds = ("nowcast, month 1", "nowcast, month 2", "nowcast, month 3", "backcast, month 1")
    fits: list[tuple[object, ...]] = []
    scores: list[tuple[object, ...]] = []
    with threadpool_limits(limits=1):
        for size in SIZES:
            errors, line = evaluate(panel, flags, size, first, arguments.factors, arguments.lags)
            fits += line
            found = {kind: np.array(errors[kind]) for kind in kinds}
            ours = {kind: float(np.sqrt(np.mean((e[:, 0] - e[:, 2]) ** 2))) for kind, e in found.items()}
            peer = {kind: float(np.sqrt(np.mean((e[:, 1] - e[:, 2]) ** 2))) for kind, e in found.items()}
            if not scores:
                scores.append(("AR(1)", *(f"{peer[kind]:.3f}" for kind in kinds)))
            scores.append((size, *(f"{ours[kind]:.3f} ({ours[kind] / peer[kind]:.2f})" for kind in kinds)))
            print(size, *fits[-1], *scores[-1], flush=True)
    n_quarters = len(errors[kinds[0]])
    # of the AR(1), in the last year and a half, which holds the recession
    share = errors_share(np.array(errors[kinds[0]]), 6)
    worst = f"The last six quarters make up {share:.0%} of the AR(1)'s squared errors."
    missing = 1.0 - np.isfinite(panel.wide()[:, :92]).mean()
    text = f"""# Euro area GDP with the data of Banbura and Modugno (2014)

`python {os.path.relpath(__file__)} FOLDER --first {arguments.first} --factors {arguments.factors} \
--lags {arguments.lags}`

{panel.n_assets} series, {panel.times[0]} to {panel.times[-1]}, {missing:.1%} of the monthly growth rates
missing; {arguments.factors} factors, {arguments.lags} lags, AR(1) idiosyncratic terms, quarterly series with
weights (1, 2, 3, 2, 1)/3. The public data lack the proprietary series of the paper, vintages are not
real-time, and estimation stops at changes of 1e-3: numbers are comparable with one another, not with the
paper's tables.

## Fits of the whole sample

{table(("model", "series", "log-likelihood", "BIC", "evaluations", "converged", "wall s", "CPU s"), fits)}

## Root mean square errors of quarterly GDP growth, per cent ({n_quarters} quarters; ratio to the AR(1))

{table(("model", *kinds), scores)}

The AR(1) uses GDP alone, with the same publication delay. {worst}
A pseudo real-time exercise flatters series that are later revised.
"""
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text)
    print(f"written: {RESULT}")


if __name__ == "__main__":
    main()
