"""The monthly equity premium from the fourteen predictors of Welch and Goyal, out of sample.

python studies/equity_premium.py [--data FOLDER] [--jobs N] [--quick] [--step 3]

One to three factors, windows of 120 months, a month ahead, against the mean of the window and that of all
months so far.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from _common import (
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
    FactorRegressionConfig,
    FactorRegressionModel,
    LatentFactorForecastPipeline,
    NativeFactorForecaster,
    NativeMapper,
    PTFAConfig,
    PTFAModel,
    RollingWindow,
    walk_forward,
)
from latentfactors.evaluate import clark_west
from latentfactors.kernels.scores import r_squared
from latentfactors.readers.goyal_welch import equity_premium_panel

FILE, TARGET, WINDOW = "gwz2024_monthly.csv.gz", "equity_premium", 120
FIRST = np.datetime64("1927-01-31")
SPANS = {"all": FIRST, "from 1957": np.datetime64("1957-01-31"), "from 1990": np.datetime64("1990-01-31")}
METHODS = {"PCR": "pcr", "PLS": "pls", "sPCA": "spca", "three-pass": "three_pass"}


def predictors(n_factors):
    """Name -> unfitted predictor."""
    shared = {"n_factors": n_factors, "targets": (TARGET,), "lead": 1}
    models = {"PTFA": PTFAModel(PTFAConfig(**shared))}
    for name, method in METHODS.items():
        models[name] = FactorRegressionModel(FactorRegressionConfig(**shared, method=method))
    return {
        name: LatentFactorForecastPipeline(
            model=model, forecaster=NativeFactorForecaster(), mapper=NativeMapper()
        )
        for name, model in models.items()
    }


def window_means(values, first):
    """(T,) mean of the window of months before each month."""
    out = np.full(values.size, np.nan)
    for t in range(first, values.size):
        out[t] = values[t - WINDOW : t].mean()
    return out


def main():
    more = argparse.ArgumentParser(add_help=False)
    more.add_argument("--step", type=int, default=3, help="months forecast by one fit")
    options = arguments(__doc__.splitlines()[0], more)
    folder = data_folder(options.data, "goyal_welch")
    began, worked = time.perf_counter(), cpu_seconds()
    panel = equity_premium_panel(folder / FILE)
    panel = panel.between(int(np.searchsorted(panel.times, FIRST)), panel.n_periods)
    splits = RollingWindow(size=WINDOW, step=120 if options.quick else options.step)
    column = panel.assets.tolist().index(TARGET)
    premium = panel.wide()[:, column]
    rolling = window_means(premium, WINDOW)
    expanding = np.concatenate([[np.nan], np.cumsum(premium)[:-1] / np.arange(1, premium.size)])
    tested = np.arange(premium.size) >= WINDOW
    lines = [mean_line(premium, expanding, rolling, panel.times, tested)]
    worst, heywood, failed = {}, [0, 0], 0
    for n_factors in (1, 2, 3):
        for name, each in predictors(n_factors).items():
            result = walk_forward(each, panel, splits, n_jobs=options.jobs)
            record = result.record
            rows = record.asset_codes == column
            forecast = np.full(premium.size, np.nan)
            forecast[np.searchsorted(panel.times, record.target_times[rows])] = record.forecast[rows]
            failed += len(result.failures)
            cells = [f"{name}, k = {n_factors}"]
            for start in SPANS.values():
                use = tested & (panel.times >= start) & np.isfinite(forecast)
                y, own, mean = premium[use], forecast[use], rolling[use]
                test = clark_west(y, mean, own)
                cells += [
                    number(r_squared(y, own, expanding[use]), 2, 100),
                    number(r_squared(y, own, mean), 2, 100),
                    f"{number(test.statistic)} ({number(test.p_value, 3)})",
                ]
            lines.append(cells)
            worst[cells[0]] = float(np.nanmax(np.abs(forecast)))
            if name == "PTFA":
                notes = [any("Heywood" in text for text in each.warnings) for each in result.summaries]
                heywood[0] += sum(notes)
                heywood[1] += len(notes)
            print(f"  {cells[0]}: {time.perf_counter() - began:.0f} s", flush=True)
    release_workers()
    wall, cpu = time.perf_counter() - began, cpu_seconds() - worked
    largest = max(worst, key=worst.__getitem__)
    heads = ["forecast"]
    for span in SPANS:
        heads += [f"R² exp., {span}", "R² roll.", "CW (p)"]
    text = [
        "`python studies/equity_premium.py`\n\n"
        "Return on the S&P 500 less the Treasury bill, monthly, from the fourteen predictors of Welch and "
        f"Goyal (workbook of 2024; inflation a month late), {panel.times[0]} to {panel.times[-1]}; windows "
        f"of {WINDOW} months, a new fit every {splits.step} months, factors brought up to date every month; "
        f"{int(tested.sum())} forecasts from {panel.times[WINDOW]}. {failed or 'No'} fit failed. "
        f"{heywood[0]} of {heywood[1]} fits of PTFA ended at the boundary where the target becomes a factor "
        "or the predictors are reproduced.",
        "R² out of sample in percent (Campbell and Thompson), exp.: against the mean of all months so far, "
        "roll.: against the mean of the window. CW: Clark and West's statistic against the mean of the "
        "window, with its one-sided p value; significance there is compatible with a negative R², since it "
        f"corrects for the noise of estimates. Largest forecast: {number(worst[largest], 1, 100)}% in a "
        f"month ({largest}).",
        table(heads, lines),
        f"{machine('polars')}; {wall / 60:.1f} minutes of wall time and {cpu / 60:.1f} of processor time "
        f"with {options.jobs} processes, other work running beside.",
    ]
    if options.quick:
        print("\n\n".join(text))
        return
    write_section("equity_premium", "\n\n".join(text))


def mean_line(premium, expanding, rolling, times, tested):
    cells = ["mean of the window"]
    for start in SPANS.values():
        use = tested & (times >= start)
        cells += [number(r_squared(premium[use], rolling[use], expanding[use]), 2, 100), "", ""]
    return cells


if __name__ == "__main__":
    main()
