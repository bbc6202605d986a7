"""A financial conditions index made for real activity, its weights, and the Chicago Fed's beside it.

python studies/financial_conditions.py [--data FOLDER] [--quick]

Predictors are monthly financial series, targets the growth of production, employment and consumption and the
change of unemployment over the three months that follow. The index is the first factor, from predictors up to
its month alone, with the sign that puts tight conditions up.
"""

from __future__ import annotations

import time

import numpy as np
import polars as pl
from _common import OUTPUT, arguments, cpu_seconds, data_folder, machine, number, table, write_section

from latentfactors import (
    Panel,
    PCAConfig,
    PCAModel,
    PTFAConfig,
    PTFAModel,
)
from latentfactors.evaluate import diebold_mariano
from latentfactors.readers.fred import fred_panel

DAILY, VINTAGE = "fred_daily_1990_2026.csv.gz", "fred_md_2026-02.csv.gz"
FIRST, LAST = np.datetime64("1990-02-28"), np.datetime64("2026-01-31")
FIRST_FORECAST = np.datetime64("2003-01-31")
COVID = np.datetime64("2020-03-31"), np.datetime64("2021-06-30")
LEAD = 3  # months of growth that the index is made for
HORIZONS = (1, 3, 12)
# by their units in the file: levels, changes, log changes
LEVELS = ("COMPAPFFx", "TB3SMFFM", "T1YFFM", "T5YFFM", "T10YFFM", "AAAFFM", "BAAFFM")
LOG_CHANGES = (
    "BUSLOANS", "REALLN", "NONREVSL", "INVEST", "M2REAL", "TWEXAFEGSMTHx", "EXSZUSx", "EXJPUSx", "EXUSUKx",
    "EXCAUSx", "S&P PE ratio",
)  # fmt: skip
ACTIVITY = {"INDPRO": "log", "PAYEMS": "log", "DPCERA3M086SBEA": "log", "UNRATE": "level"}
NAMES = {
    "baa_10y": "Baa less 10-year", "default": "Baa less Aaa", "term": "10-year less 2-year",
    "d_10y": "10-year yield, change", "d_2y": "2-year yield, change", "d_funds": "funds rate, change",
    "vix": "VIX", "stocks": "S&P 500, log change", "volatility": "S&P 500, realised volatility",
    "oil": "oil price, log change",
}  # fmt: skip


def month_of(dates):
    return dates.astype("datetime64[M]")


def financial_series(path):
    """Month ends, name -> (T,) monthly means over weekdays, and the mean of each month's NFCI readings."""
    frame = pl.read_csv(path, infer_schema_length=20000).with_columns(pl.col("Date").str.to_date())
    day = frame["Date"].to_numpy().astype("datetime64[D]")
    # the author of the file carried values forward over weekends: those days are no observations
    weekday = (day.astype(np.int64) + 3) % 7 < 5
    column = {name: frame[name].to_numpy().astype(float)[weekday] for name in (
        "BAA10Y", "DAAA", "DBAA", "DGS2", "DGS10", "DFF", "VIXCLS", "SP500", "DCOILWTICO",
    )}  # fmt: skip
    day_of_nfci = frame["NFCI_days_since"].to_numpy().astype(float) == 0.0
    months = np.arange(month_of(FIRST), month_of(LAST) + 1)

    def mean(values, chosen):
        place = month_of(day)[chosen]
        ok = np.isfinite(values)
        code = np.searchsorted(months, place[ok])
        inside = (place[ok] >= months[0]) & (place[ok] <= months[-1])
        total = np.bincount(code[inside], values[ok][inside], months.size)
        counts = np.bincount(code[inside], minlength=months.size)
        return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)

    own = {name: mean(each, weekday) for name, each in column.items()}
    returns = np.diff(np.log(column["SP500"]), prepend=np.nan)
    out = {
        "baa_10y": own["BAA10Y"],
        "default": own["DBAA"] - own["DAAA"],
        "term": own["DGS10"] - own["DGS2"],
        "d_10y": changes(own["DGS10"]),
        "d_2y": changes(own["DGS2"]),
        "d_funds": changes(own["DFF"]),
        "vix": own["VIXCLS"],
        "stocks": changes(np.log(own["SP500"])),
        "volatility": np.sqrt(252.0 * mean(returns**2, weekday)),
        # the price of April 2020 fell below zero for a day; its mean did not
        "oil": changes(np.log(own["DCOILWTICO"])),
    }
    nfci = mean(frame["NFCI"].to_numpy().astype(float)[day_of_nfci], day_of_nfci)
    return (months + 1).astype("datetime64[D]") - np.timedelta64(1, "D"), out, nfci


def changes(values, periods=1):
    out = np.full(values.size, np.nan)
    out[periods:] = values[periods:] - values[:-periods]
    return out


def read(data):
    """Panel of predictors and targets, NFCI, and activity name -> log level or level."""
    times, financial, nfci = financial_series(data_folder(data, "us_macro_financial_daily") / DAILY)
    macro = fred_panel(data_folder(data, "fred_md") / VINTAGE, transform=False)
    rows = np.searchsorted(macro.times, times)
    wide = macro.wide()[rows]
    own = {name: wide[:, j] for j, name in enumerate(macro.assets.tolist())}
    financial |= {name: own[name] for name in LEVELS}
    financial |= {name: 100.0 * changes(np.log(own[name])) for name in LOG_CHANGES}
    activity = {
        name: own[name] if kind == "level" else 100.0 * np.log(own[name]) for name, kind in ACTIVITY.items()
    }
    targets = {f"{name}, {LEAD} months": changes(each, LEAD) for name, each in activity.items()}
    columns = {NAMES.get(name, name): each for name, each in financial.items()} | targets
    panel = Panel.from_wide(
        np.column_stack(list(columns.values())),
        assets=list(columns),
        times=times,
        universe="all",
        frequency="M",
        value_kind="series",
    )
    return panel, tuple(targets), nfci, activity


def models(targets):
    """Name -> unfitted model whose first factor is the index."""
    shared = {"targets": targets, "lead": LEAD, "tolerance": 1e-6}
    return {
        "PTFA": PTFAModel(PTFAConfig(n_factors=1, **shared)),
        "PTFA, weight by CV": PTFAModel(PTFAConfig(n_factors=1, target_weight="cv", **shared)),
        "PTFA, first of 3": PTFAModel(PTFAConfig(n_factors=3, **shared)),
        "PCA": PCAModel(PCAConfig(n_factors=1, demean=True, tolerance=1e-7)),
    }


def index_of(name, model, panel, targets, last):
    """(T,) index of a model fitted on the periods before `last`, tight conditions up, and its fit."""
    if name == "PCA":
        keep = [j for j, label in enumerate(panel.assets.tolist()) if label not in targets]
        wide = panel.wide()[:, keep]
        past = wide[:last]
        z = (wide - np.nanmean(past, axis=0)) / np.nanstd(past, axis=0)
        panel = Panel.from_wide(
            z, assets=list(panel.assets[keep]), times=panel.times, universe="all", frequency="M",
            value_kind="series",
        )  # fmt: skip
    model.fit(panel.between(0, last))
    factor = model.extract(panel).factor_returns[:, 0]
    # tight is where the Baa spread is wide
    spread = panel.wide()[:, panel.assets.tolist().index(NAMES["baa_10y"])]
    known = np.isfinite(factor) & np.isfinite(spread) & (np.arange(factor.size) < last)
    return factor * np.sign(np.corrcoef(factor[known], spread[known])[0, 1])


def index_weights(model, sign_of):
    """Series -> weight of one standard deviation in the index: Omega P'/s_x^2, in units of the index."""
    e = model.estimates
    k = e.predictor_loadings.shape[1]
    precision = np.eye(k) + e.predictor_loadings.T @ e.predictor_loadings / e.predictor_variance
    own = np.linalg.solve(precision, e.predictor_loadings.T / e.predictor_variance)[0]
    own *= np.sign(own[e.series.predictors.tolist().index(sign_of)])
    return dict(zip(e.series.predictors.tolist(), (own / np.linalg.norm(own)).tolist(), strict=True))


def recursive(panel, targets, step):
    """Name -> {refit position: (T,) index}, each fitted on the months before the refit alone."""
    first = int(np.searchsorted(panel.times, FIRST_FORECAST))
    found = {name: {} for name in models(targets)}
    for last in range(first, panel.n_periods, step):
        for name, model in models(targets).items():
            found[name][last] = index_of(name, model, panel, targets, last)
    return found


def forecasts(series, level, horizon, step, first, lags=None):
    """(T,) forecasts of growth over `horizon` months made in each month, by least squares on its own past.

    `series` is {refit position: (T,) predictor} or one (T,); `lags`: past growth instead.
    """
    growth = changes(level, horizon)
    monthly = changes(level)
    out, n = np.full(level.size, np.nan), level.size
    for t in range(first, n):
        if isinstance(series, dict):
            column = series[first + (t - first) // step * step][:, None]
        elif lags:
            column = np.column_stack([np.roll(monthly, lag) for lag in range(lags)])
            column[:lags] = np.nan
        else:
            column = np.zeros((n, 0)) if series is None else series[:, None]
        design = np.column_stack([np.ones(n), column])
        use = np.arange(n - horizon) <= t - horizon
        ahead = growth[horizon:]
        ok = use & np.isfinite(design[: n - horizon]).all(axis=1) & np.isfinite(ahead)
        slopes = np.linalg.lstsq(design[: n - horizon][ok], ahead[ok], rcond=None)[0]
        out[t] = design[t] @ slopes
    return out


def judge(indices, nfci, level, step, first):
    """Lines: horizon and predictor, R² against the mean of the past, DM against NFCI and PCA."""
    lines = []
    for horizon in HORIZONS:
        ahead = np.full(level.size, np.nan)
        ahead[:-horizon] = changes(level, horizon)[horizon:]
        made = {name: forecasts(each, level, horizon, step, first) for name, each in indices.items()}
        made["NFCI"] = forecasts(nfci, level, horizon, step, first)
        made["own 3 lags"] = forecasts(None, level, horizon, step, first, lags=3)
        mean = forecasts(None, level, horizon, step, first)
        for name, each in made.items():
            cells = []
            for calm in (False, True):
                use = np.isfinite(ahead) & np.isfinite(each) & np.isfinite(made["NFCI"])
                if calm:
                    use &= ~_overlaps(use.size, horizon)
                error, base = ahead[use] - each[use], ahead[use] - mean[use]
                cells.append(number(1.0 - float(error @ error) / float(base @ base), 1, 100))
                for rival in ("NFCI", "PCA"):
                    if name == rival:
                        cells.append("")
                        continue
                    test = diebold_mariano(ahead[use], each[use], made[rival][use], horizon=horizon)
                    cells.append(number(test.statistic))
            lines.append([f"{horizon} months, {name}" if horizon > 1 else f"1 month, {name}", *cells])
    return lines


def _overlaps(n, horizon):
    """(T,) whether the growth after an origin touches the months of the pandemic's fall and rebound."""
    origin = np.arange(month_of(FIRST), month_of(FIRST) + n)
    return (origin + horizon >= month_of(COVID[0])) & (origin < month_of(COVID[1]))


def main():
    options = arguments(__doc__.splitlines()[0])
    began, worked = time.perf_counter(), cpu_seconds()
    panel, targets, nfci, activity = read(options.data)
    step = 120 if options.quick else 12
    first = int(np.searchsorted(panel.times, FIRST_FORECAST))
    fitted = {name: model for name, model in models(targets).items() if name != "PCA"}
    whole = {n: index_of(n, m, panel, targets, panel.n_periods) for n, m in fitted.items()}
    whole["PCA"] = index_of("PCA", models(targets)["PCA"], panel, targets, panel.n_periods)
    found = recursive(panel, targets, step)
    print(f"  indices: {time.perf_counter() - began:.0f} s", flush=True)

    now = {}
    for name, paths in found.items():
        line = np.full(panel.n_periods, np.nan)
        for last, path in paths.items():
            scale = np.nanmean(path[:last]), np.nanstd(path[:last])
            line[last : last + step] = ((path - scale[0]) / scale[1])[last : last + step]
        now[name] = line
    agreement = [
        [name, *(number(correlation(each, other), 2) for other in (nfci, whole["PCA"], now[name]))]
        for name, each in whole.items()
    ]
    for line, name in zip(agreement, whole, strict=True):
        line.insert(2, number(correlation(now[name], nfci), 2))
    weights = {name: index_weights(model, NAMES["baa_10y"]) for name, model in fitted.items()}
    order = sorted(weights["PTFA"], key=lambda label: -abs(weights["PTFA"][label]))
    heavy = [[label, *(number(own[label]) for own in weights.values())] for label in order]
    heads = ["growth over", "R², %", "DM, NFCI", "DM, PCA", "R², %, calm", "DM, NFCI", "DM, PCA"]
    text = [
        "`python studies/financial_conditions.py`\n\n"
        f"{panel.assets.size - len(targets)} monthly financial series, {panel.times[0]} to "
        f"{panel.times[-1]}: means over weekdays of daily FRED series (weekend values in the file are "
        "carried forward and left out) and financial series of FRED-MD's vintage of February 2026. Targets: "
        f"growth of INDPRO, PAYEMS and DPCERA3M086SBEA and change of UNRATE over the {LEAD} months that "
        "follow. The index is the first factor by `extract`, from predictors to its month alone, tight "
        "conditions up. NFCI: mean of the "
        "readings that fall into a month, not the values carried forward between them; it is the index as "
        "revised over its whole history, so it has seen later data.",
        "**Agreement** (correlations). Whole sample: one fit on all months. In real time: refitted every "
        f"{step} months on the months before, from {FIRST_FORECAST} on, standardised by them.",
        table(["index", "with NFCI", "in real time, with NFCI", "with PCA", "with own real time"], agreement),
        "**Weights** of one standard deviation of every series in the index, Ω P'/s², length one.",
        table(["series", *weights], heavy),
        "**Growth of industrial production from one index in real time**, least squares on earlier months "
        f"with the index of the last refit, from {FIRST_FORECAST} on. R² against the mean of the past; DM: "
        "Diebold-Mariano, negative where the line is better than the rival in the column. Calm: no month of "
        f"{str(COVID[0])[:7]} to {str(COVID[1])[:7]} in the growth. Publication lags of production and data "
        "revisions are left out of account, for all alike.",
        table(heads, judge(found, nfci, activity["INDPRO"], step, first)),
    ]
    wall, cpu = time.perf_counter() - began, cpu_seconds() - worked
    text.append(
        f"{machine('polars')}; {wall:.0f} seconds of wall time and {cpu:.0f} of processor time, other work "
        "running beside."
    )
    figures(panel, whole, now, nfci, weights, fitted["PTFA"])
    if options.quick:
        print("\n\n".join(text))
        return
    write_section("financial_conditions", "\n\n".join(text))


def correlation(a, b):
    both = np.isfinite(a) & np.isfinite(b)
    return float(np.corrcoef(a[both], b[both])[0, 1])


def figures(panel, whole, now, nfci, weights, model):
    """The index beside NFCI, its weights and its band, as HTML; git ignores the folder."""
    try:
        from latentfactors.report import factor_bands_figure, weights_figure
        from latentfactors.report.style import as_dates, finished, go, line_style
    except ImportError as error:
        print(f"no figure: {error}")
        return
    drawn = go.Figure()
    lines = {
        "PTFA, whole sample": whole["PTFA"],
        "PTFA, in real time": now["PTFA"],
        "PCA": whole["PCA"],
        "NFCI": nfci,
    }
    for i, (name, each) in enumerate(lines.items()):
        scaled = (each - np.nanmean(each)) / np.nanstd(each)
        drawn.add_scatter(x=as_dates(panel.times), y=scaled, name=name, mode="lines", line=line_style(i))
    drawn.update_yaxes(title_text="standard deviations, tight up")
    OUTPUT.mkdir(exist_ok=True)
    shown = {
        "index": finished(drawn, "Financial conditions made for real activity", 440),
        "weights": weights_figure(
            {name: weights[name] for name in ("PTFA", "PTFA, weight by CV")},
            title="Weights of one standard deviation in the index",
        ),
        "band": factor_bands_figure(model.extract(panel)),
    }
    for name, each in shown.items():
        each.write_html(OUTPUT / f"financial_conditions_{name}.html", include_plotlyjs="directory")


if __name__ == "__main__":
    main()
