"""Monthly series forecast by deep dynamic factors with loadings by least squares and by generalised ones.

python studies/d2fm_loadings.py [--quick] [--factors 2] [--every 3] [--restarts 1]

One trained network a year, three state spaces on its codes: the printed one, whose loadings are least
squares; the default, whose loadings are generalised least squares given the persistence of each series' own
term; and that one after 50 iterations of quasi-maximum likelihood. The linear dynamic factor model with as
many factors stands beside them.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
from _common import arguments, data_folder, machine, number, table, write_section
from d2fm_nowcast import linear
from nowcast_us_gdp import pseudo_store

from latentfactors import D2FMConfig, D2FMModel, Panel

METHODS = ("least squares", "generalised", "likelihood", "DFM")


def models(panel: Panel, config: D2FMConfig) -> dict[str, Any]:
    """Fitted on one vintage. Training depends on the seed alone, so all networks are the same."""
    found = {
        "least squares": D2FMModel(replace(config, loadings="least_squares")),
        "generalised": D2FMModel(replace(config, loadings="gls")),
        "likelihood": D2FMModel(replace(config, likelihood_iterations=50)),
        "DFM": linear(config.n_factors),
    }
    for model in found.values():
        model.fit(panel)
    return found


def errors_of(model: Any, panel: Panel, truth: dict[tuple[Any, Any], float]) -> dict[Any, list[float]]:
    """Series -> errors of all values of the last five periods that are not known yet."""
    expected, out = model.expected_values(panel), defaultdict(list)
    late = panel.index.period_codes >= panel.n_periods - 5
    for row in np.flatnonzero(late & ~panel.observed):
        label, period = (
            panel.assets[panel.asset_codes[row]].item(),
            panel.times[panel.index.period_codes[row]],
        )
        if (label, period) in truth:
            out[label].append(expected[row] - truth[label, period])
    return out


def known_values(panel: Panel) -> dict[tuple[Any, Any], float]:
    """(series, period) -> value."""
    rows = np.flatnonzero(panel.observed)
    labels, periods = panel.assets[panel.asset_codes[rows]].tolist(), panel.index.period_codes[rows]
    return dict(zip(zip(labels, panel.times[periods], strict=True), panel.values[rows].tolist(), strict=True))


def main() -> None:
    more = argparse.ArgumentParser(add_help=False)
    more.add_argument("--factors", type=int, default=2)
    more.add_argument("--every", type=int, default=3, help="months between vintages")
    more.add_argument("--restarts", type=int, default=1)
    options = arguments(__doc__.splitlines()[0], more)
    for name in ("fred_md", "fred_qd", "gdp_realtime"):
        data_folder(options.data, name)
    began, store = time.process_time(), pseudo_store(options.data)
    truth = known_values(store.as_of(store.dates[-1]))
    months = np.arange(np.datetime64("2005-01"), np.datetime64("2007-01" if options.quick else "2020-01"))
    dates = months.astype("datetime64[D]")[:: options.every] + np.timedelta64(19, "D")
    config = D2FMConfig(n_factors=options.factors, n_restarts=options.restarts)
    errors: dict[tuple[str, Any], list[float]] = defaultdict(list)
    persistence: dict[Any, list[float]] = defaultdict(list)
    fitted: dict[str, Any] = {}
    year = ""
    for date in dates:
        panel = store.as_of(date)
        if str(date)[:4] != year:
            year, fitted = str(date)[:4], models(panel, config)
            found = fitted["generalised"].estimates
            for label, phi in zip(found.series.tolist(), found.persistence, strict=True):
                persistence[label].append(float(phi))
            print(year, f"{time.process_time() - began:.0f} CPU seconds", flush=True)
        for name, model in fitted.items():
            for label, own in errors_of(model, panel.extend(2), truth).items():
                errors[name, label] += own
    lines, ratios = [], []
    for label in sorted(persistence, key=lambda each: -float(np.median(persistence[each]))):
        rmse = {name: float(np.sqrt(np.mean(np.square(errors[name, label])))) for name in METHODS}
        own = [rmse[name] / rmse["DFM"] for name in METHODS[:3]]
        own.append(rmse["generalised"] / rmse["least squares"])
        ratios.append(own)
        phi = float(np.median(persistence[label]))
        lines.append([label, number(phi), len(errors["DFM", label]), *(number(each) for each in own)])
    for words, function in (("median", np.median), ("mean", np.mean), ("largest", np.max)):
        lines.append([words, "", "", *(number(each) for each in function(ratios, axis=0))])
    heads = ["series", "φ", "values", *METHODS[:3], "generalised over least squares"]
    settings = f"--factors {options.factors} --every {options.every} --restarts {options.restarts}"
    text = f"""`python studies/d2fm_loadings.py {settings}`

23 monthly series of FRED-MD 2023-12 with publication lags, and GDP, as in the section d2fm_nowcast:
{dates.size} vintages from {dates[0]} to {dates[-1]}, parameters estimated on the first one of each year. Root
mean squared errors of all values of the last three months and the next two that a vintage does not hold yet,
over those of a linear dynamic factor model with {options.factors} factors as well; series in order of the
persistence φ of their own term (median over years, generalised least squares).

{table(heads, lines)}

{machine("jax", "equinox", "optax")}; {time.process_time() - began:.0f} CPU seconds, on a busy machine.
"""
    print(text)
    if not options.quick:
        write_section("d2fm_loadings", text)


if __name__ == "__main__":
    main()
