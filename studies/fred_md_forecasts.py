"""Production, prices and unemployment from the other series of FRED-MD, one to twelve months ahead.

python studies/fred_md_forecasts.py [--data FOLDER] [--jobs N] [--quick] [--step 1] [--targets INDPRO]
                                    [--horizons 1]

Seven factors, windows of 180 months: probabilistic targeted factors, principal components and partial least
squares, each trained for its target and its horizon, against an autoregression and the mean of the window.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from _common import (
    OUTPUT,
    arguments,
    cpu_seconds,
    data_folder,
    machine,
    number,
    release_workers,
    table,
    write_section,
)

from latentfactors import (
    AutoregressivePredictor,
    FactorRegressionConfig,
    FactorRegressionModel,
    HistoricalMeanPredictor,
    LatentFactorForecastPipeline,
    NativeFactorForecaster,
    NativeMapper,
    Panel,
    PTFAConfig,
    PTFAModel,
    RollingWindow,
    walk_forward,
)
from latentfactors.evaluate import diebold_mariano
from latentfactors.kernels.scores import rmse
from latentfactors.readers.fred import fred_panel

VINTAGE = "fred_md_2023-04.csv.gz"  # its last month is the last of the sample
FIRST, LAST = np.datetime64("1961-07-31"), np.datetime64("2023-03-31")
TARGETS = {"INDPRO": "industrial production", "CPIAUCSL": "consumer prices", "UNRATE": "unemployment rate"}
HORIZONS, WINDOW, K = (1, 6, 12), 180, 7
COVID = np.datetime64("2020-03-31"), np.datetime64("2020-12-31")
TARGETED = ("PTFA", "PCA", "PLS", "PLS, 1 factor")


def pipeline(model):
    return LatentFactorForecastPipeline(
        model=model, forecaster=NativeFactorForecaster(), mapper=NativeMapper()
    )


def predictors(target, horizon):
    """Name -> unfitted predictor that reads all series."""
    shared = {"n_factors": K, "targets": (target,), "lead": horizon}
    return {
        "PTFA": pipeline(PTFAModel(PTFAConfig(**shared, tolerance=1e-5))),
        "PCA": pipeline(
            FactorRegressionModel(FactorRegressionConfig(**shared, method="pcr", tolerance=1e-6))
        ),
        "PLS": pipeline(FactorRegressionModel(FactorRegressionConfig(**shared, method="pls"))),
        "PLS, 1 factor": pipeline(
            FactorRegressionModel(FactorRegressionConfig(**(shared | {"n_factors": 1}), method="pls"))
        ),
    }


def alone(panel):
    """The targets without the other series."""
    columns = [panel.assets.tolist().index(name) for name in TARGETS]
    return Panel.from_wide(
        panel.wide()[:, columns],
        assets=list(TARGETS),
        times=panel.times,
        universe="all",
        frequency="M",
        value_kind="series",
    )


def of_target(result, panel, target):
    """Target month -> (forecast, variance, realised) of one series."""
    record = result.record
    rows = record.asset_codes == panel.assets.tolist().index(target)
    order = np.argsort(record.target_times[rows])
    columns = (record.target_times, record.forecast, record.variance, record.realised)
    return [column[rows][order] for column in columns]


def spans(times, horizon):
    """Name -> which target months."""
    origins = (times.astype("datetime64[M]") - np.timedelta64(horizon, "M") + 1).astype("datetime64[D]")
    origins = origins - np.timedelta64(1, "D")
    inside = [(each >= COVID[0]) & (each <= COVID[1]) for each in (times, origins)]
    return {
        "all": np.ones(times.size, dtype=bool),
        "without": ~(inside[0] | inside[1]),
        "before": times < COVID[0],
    }


def judge(found, target, horizon):
    """Lines of the table and the coverage of one target and horizon."""
    times, realised = found["mean"][0], found["mean"][3]
    known = np.isfinite(realised)
    for columns in found.values():
        known &= np.isfinite(columns[1])
    lines = []
    for name, (_, forecast, variance, _) in found.items():
        cells = []
        for chosen in spans(times, horizon).values():
            use = known & chosen
            y, own, ar = realised[use], forecast[use], found["AR"][1][use]
            cells.append(number(rmse(y, own) / rmse(y, found["mean"][1][use]), 3))
            if name == "AR":
                cells.append("")
            else:
                test = diebold_mariano(y, own, ar, horizon=horizon)
                cells.append(f"{number(test.statistic)}{stars(test.p_value)}")
        half = 1.6448536269514722 * np.sqrt(variance[known])
        inside = np.abs(realised[known] - forecast[known]) <= half
        cells.append(number(float(inside.mean()), 1, 100) if np.isfinite(half).all() else "–")
        lines.append([f"{target}, h = {horizon}", name, *cells])
    return lines, int(known.sum())


def stars(p):
    return "*" * sum(p < level for level in (0.10, 0.05, 0.01))


def main():
    more = argparse.ArgumentParser(add_help=False)
    more.add_argument("--step", type=int, default=1, help="months forecast by one fit")
    more.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    more.add_argument("--horizons", nargs="+", type=int, choices=HORIZONS, default=list(HORIZONS))
    options = arguments(__doc__.splitlines()[0], more)
    folder = data_folder(options.data, "fred_md")
    began, worked = time.perf_counter(), cpu_seconds()
    panel = fred_panel(folder / VINTAGE)
    start = int(np.searchsorted(panel.times, FIRST))
    panel = panel.between(start, int(np.searchsorted(panel.times, LAST)) + 1)
    splits = RollingWindow(size=WINDOW, step=120 if options.quick else options.step)
    small = alone(panel)
    lines, errors, dropped, slow, failed = [], {}, set(), [], 0
    for horizon in options.horizons:
        plain = {
            "AR": AutoregressivePredictor(max_lags=12, horizon=horizon),
            "mean": HistoricalMeanPredictor(),
        }
        simple = {
            name: walk_forward(each, small, splits, horizon=horizon, n_jobs=options.jobs)
            for name, each in plain.items()
        }
        for target in options.targets:
            results = {
                name: walk_forward(each, panel, splits, horizon=horizon, n_jobs=options.jobs)
                for name, each in predictors(target, horizon).items()
            }
            found = {name: of_target(each, panel, target) for name, each in results.items()}
            found |= {name: of_target(each, small, target) for name, each in simple.items()}
            part, n = judge(found, target, horizon)
            lines += part
            errors[f"{target}, h = {horizon}"] = found
            failed += sum(len(each.failures) for each in results.values())
            for summary in results["PTFA"].summaries:
                dropped.update(each for each in summary.warnings if "left out" in each)
                slow.append(summary.converged)
            print(
                f"  {target}, h = {horizon}: {n} forecasts, {time.perf_counter() - began:.0f} s", flush=True
            )
    release_workers()
    whole = len(options.targets) == len(TARGETS) and len(options.horizons) == len(HORIZONS)
    chosen = f" --targets {' '.join(options.targets)} --horizons {' '.join(map(str, options.horizons))}"
    text = describe(panel, splits, lines, dropped, slow, failed, "" if whole else chosen)
    wall, cpu = time.perf_counter() - began, cpu_seconds() - worked
    text.append(
        f"{machine('polars')}; {wall / 60:.1f} minutes of wall time and {cpu / 60:.1f} of processor time "
        f"with {options.jobs} processes."
    )
    if options.quick:
        print("\n\n".join(text))
        return
    figure(errors)
    write_section("fred_md_forecasts" if whole else "fred_md_forecasts_part", "\n\n".join(text))


def describe(panel, splits, lines, dropped, slow, failed, chosen):
    every = "month" if splits.step == 1 else f"{splits.step} months"
    heads = ["target", "forecast", "all", "DM", "no COVID", "DM", "to 2020-02", "DM", "90% covers"]
    return [
        f"`python studies/fred_md_forecasts.py --step {splits.step}{chosen}`\n\n"
        "FRED-MD, vintage of April 2023 as published, official transformations, outliers left in; "
        f"{panel.assets.size} series, {panel.times[0]} to {panel.times[-1]}. INDPRO: log difference; "
        "CPIAUCSL: second log difference; UNRATE: difference; each in the single month h months ahead. "
        f"Windows of {WINDOW} months, a new fit every {every}, factors brought up to date every month. "
        f"{K} factors unless stated; PTFA, PCA and PLS are trained for one target and one horizon at a time "
        "on all other series, so unlike the autoregression (direct, up to 12 lags by BIC) they do not "
        "see the target's own past. Nothing is imputed: PTFA by exact EM, PCA by least squares on observed "
        f"cells. {len(slow) - sum(slow)} of {len(slow)} fits of PTFA stopped short of convergence; "
        f"{failed or 'no'} fit failed. Remarks of the fits: {'; '.join(sorted(dropped)) or 'none'}.",
        "RMSE relative to the mean of the window; DM: Diebold-Mariano statistic against AR, negative where "
        "the forecast is better than AR, * 10%, ** 5%, *** 1% two-sided. No COVID: neither the origin nor "
        f"the target month in {str(COVID[0])[:7]} to {str(COVID[1])[:7]}, though windows contain them; the "
        "next pair has target months up to February 2020 only.",
        table([f"{heads[0]}, {heads[1]}", *heads[2:]], [[f"{a}, {b}", *rest] for a, b, *rest in lines]),
    ]


def figure(errors):
    """Cumulated squared errors less those of AR, as HTML; git ignores the folder."""
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        print(f"no figure: {error}")
        return
    drawn = go.Figure()
    for label, found in errors.items():
        times, _, _, realised = found["AR"]
        base = (realised - found["AR"][1]) ** 2
        for name in TARGETED:
            gap = np.nancumsum(base - (realised - found[name][1]) ** 2) / np.nansum(base)
            shown = None if label.startswith("INDPRO") else "legendonly"
            drawn.add_scatter(x=times, y=gap, name=f"{label}, {name}", visible=shown)
    drawn.update_layout(title="Squared errors saved against AR, cumulated, share of AR's total")
    OUTPUT.mkdir(exist_ok=True)
    drawn.write_html(OUTPUT / "fred_md_forecasts_errors.html")


if __name__ == "__main__":
    main()
