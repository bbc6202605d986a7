"""Targeted factors on simulated designs: R² with and without sight of the targets, and missing cells.

python studies/ptfa_simulation.py [--quick] [--draws 30]

T = 200, ten predictors, three targets, two factors (Herculano and Montoya-Blandon 2026, DGP.1 to 3 and
appendix E.2); another 200 periods of the same process are the test. R² is the average over targets, the
number shown the median over draws.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from _common import OUTPUT, arguments, cpu_seconds, machine, number, table, write_section

from latentfactors.kernels.supervised_factors import apply_factor_map, fit_factor_map, target_regression
from latentfactors.kernels.targeted_em import fit_targeted
from latentfactors.kernels.targeted_posterior import row_posterior
from latentfactors.simulate import targeted_panel

T, P, K = 200, 10, 2
NOISES = (0.1, 0.5, 1.0, 2.0, 5.0)
SHARES = (0.0, 0.1, 0.3, 0.5)
DESIGNS = {
    "DGP.1, s_x = s_y = 1": {},
    "DGP.1, noisy targets (s_y = 5)": {"target_noise": 5.0},
    "DGP.1, noisy predictors (s_x = 5)": {"predictor_noise": 5.0},
    "DGP.2, correlated errors": {"process": "DGP.2"},
    "DGP.2, both noises 2": {"process": "DGP.2", "predictor_noise": 2.0, "target_noise": 2.0},
    "DGP.3, heavy tails": {"process": "DGP.3"},
}


def drawn(seed, **design):
    """Standardised training and test halves of one draw, (z, z_test, complete y, complete y_test)."""
    truth = targeted_panel(2 * T, P, 3, K, seed=seed, **design)
    values = truth.panel.wide()
    location, scale = np.nanmean(values[:T], axis=0), np.nanstd(values[:T], axis=0)
    z, complete = (values - location) / scale, ((truth.complete - location) / scale)[:, P:]
    return z[:T], z[T:], complete[:T], complete[T:]


def average_r2(y, fitted, mean=0.0):
    """1 - SSE / sum of squares about the mean of training, averaged over targets."""
    return float(np.mean(1.0 - np.sum((y - fitted) ** 2, axis=0) / np.sum((y - mean) ** 2, axis=0)))


def targeted(train, test, y, y_test):
    """R² of PTFA: conditioning on targets too, from predictors alone, and on the test half."""
    fit = fit_targeted(train[:, :P], train[:, P:], K, tolerance=1e-6)
    Q = fit.loadings[P:]

    def fitted(values):
        factors, _ = row_posterior(values, fit.loadings, P, fit.x_variance, fit.y_variance)
        return factors @ Q.T

    hidden = [np.hstack([part[:, :P], np.full((T, 3), np.nan)]) for part in (train, test)]
    return (
        average_r2(y, fitted(train)),
        average_r2(y, fitted(hidden[0])),
        average_r2(y_test, fitted(hidden[1])),
    )


def regression(method, train, test, y, y_test):
    """R² of a regression on factors of the predictors, in sample and on the test half."""
    limits = {"tolerance": 1e-9, "max_iterations": 5000}
    found = fit_factor_map(train[:, :P], train[:, P:], K, method, **limits)
    factors = [apply_factor_map(found, part[:, :P], min_observed=1) for part in (train, test)]
    intercept, slopes, _ = target_regression(factors[0], train[:, P:])
    inside, outside = (intercept + each @ slopes.T for each in factors)
    return average_r2(y, inside), average_r2(y_test, outside)


def scores(draws, **design):
    """(draws, 7) PTFA with Y, X-only, out of sample; PLS in, out; PCA in, out."""
    found = []
    for seed in range(draws):
        parts = drawn(seed, **design)
        found.append([*targeted(*parts), *regression("pls", *parts), *regression("pcr", *parts)])
    return np.array(found)


def grid(process, draws):
    """Grids of medians: the paper's R² that has seen Y, the honest one out of sample, and two differences.

    gain: conditioning on Y less from X alone, in sample; edge: PTFA less PLS, out of sample.
    """
    grids = {"seen": [], "honest": [], "gain": [], "edge": []}
    for s_x in NOISES:
        found = [
            scores(draws, process=process, predictor_noise=s_x, target_noise=s_y)
            for s_y in (NOISES if process != "DGP.3" else (1.0,))
        ]
        columns = {
            "seen": lambda f: f[:, 0],
            "honest": lambda f: f[:, 2],
            "gain": lambda f: f[:, 0] - f[:, 1],
            "edge": lambda f: f[:, 2] - f[:, 4],
        }
        for name, of in columns.items():
            grids[name].append([float(np.median(of(each))) for each in found])
    return {name: np.array(lines) for name, lines in grids.items()}


def missing(draws):
    """Out-of-sample R² of PTFA and PLS, from predictors with the same share missing, against complete Y."""
    ours, theirs = [], []
    for share_x in SHARES:
        cells = [], []
        for share_y in SHARES:
            hidden = {"missing_predictors": share_x, "missing_targets": share_y}
            parts = [drawn(seed, **hidden) for seed in range(draws)]
            cells[0].append(np.median([targeted(*each)[2] for each in parts]))
            pls = [regression("pls", *usable(each))[1] for each in parts]
            cells[1].append(np.median(pls))
        for lines, line in zip((ours, theirs), cells, strict=True):
            lines.append(line)
    return np.array(ours), np.array(theirs)


def usable(parts):
    """The same draw with predictor rows that have nothing observed set to the mean."""
    train, test, y, y_test = (part.copy() for part in parts)
    for part in (train, test):
        part[~np.isfinite(part[:, :P]).any(axis=1), :P] = 0.0
    return train, test, y, y_test


def labelled(names, values):
    return [[name, *(number(v, 3) for v in line)] for name, line in zip(names, values, strict=True)]


def figures(maps, cells):
    """Heat maps of the grids as HTML; git ignores the folder."""
    try:
        from latentfactors.report import r_squared_heat_map
    except ImportError as error:
        print(f"no figure: {error}")
        return
    OUTPUT.mkdir(exist_ok=True)
    axes = {"row_name": "noise of predictors", "column_name": "noise of targets"}
    titles = {
        "seen": "{}: in sample, factors that have seen the targets",
        "honest": "{}: out of sample, factors from predictors alone",
        "gain": "{}: in sample, what sight of the targets adds",
        "edge": "{}: out of sample, PTFA less PLS",
    }
    drawn = {}
    for process, (found, rows, columns) in maps.items():
        for name, title in titles.items():
            drawn[f"{process}_{name}"] = r_squared_heat_map(
                found[name], rows, columns, title=title.format(process), difference=name == "edge", **axes
            )
    ours, theirs, rows, columns = cells
    axes = {"row_name": "predictors missing", "column_name": "targets missing"}
    for name, values in {"PTFA": ours, "PLS": theirs}.items():
        drawn[f"missing_{name}"] = r_squared_heat_map(
            values, rows, columns, title=f"Missing cells, out of sample from predictors alone, {name}", **axes
        )
    for name, each in drawn.items():
        each.write_html(
            OUTPUT / f"ptfa_simulation_{name.replace('.', '')}.html", include_plotlyjs="directory"
        )


def main():
    more = argparse.ArgumentParser(add_help=False)
    more.add_argument("--draws", type=int, default=30, help="draws a cell; times five for the designs")
    options = arguments(__doc__.splitlines()[0], more)
    draws = 3 if options.quick else options.draws
    began, worked = time.perf_counter(), cpu_seconds()
    lines = []
    for name, design in DESIGNS.items():
        found = scores(5 * draws, **design)
        better = np.mean(found[:, 2] > found[:, 4])
        medians = [number(float(value), 3) for value in np.median(found, axis=0)]
        lines.append([name, *medians, number(float(better), 0, 100)])
    heads = ["design", "PTFA, with Y", "from X", "out", "PLS in", "out", "PCA in", "out", "PTFA > PLS, %"]
    text = [
        "`python studies/ptfa_simulation.py`\n\n" + " ".join(__doc__.split("\n\n")[2].split()),
        f"**In sample and out** ({5 * draws} draws). *With Y* conditions factors on the targets they "
        "explain, which is what in-sample figures of the paper show; *from X* is what a forecaster has. "
        "The last column is the share of draws in which PTFA beats PLS out of sample.",
        table(heads, lines),
    ]
    wide, tall = [f"s_y = {s:g}" for s in NOISES], [f"s_x = {s:g}" for s in NOISES]
    maps = {}
    for process in ("DGP.1", "DGP.2", "DGP.3"):
        found = grid(process, draws)
        columns = wide if process != "DGP.3" else ["chi²(1)"]
        text += [
            f"**{process}: R² in sample with Y less R² from X** ({draws} draws)",
            table([process, *columns], labelled(tall, found["gain"])),
            f"**{process}: R² out of sample, PTFA less PLS**",
            table([process, *columns], labelled(tall, found["edge"])),
        ]
        maps[process] = (found, tall, columns)
        print(f"  {process}: {time.perf_counter() - began:.0f} s", flush=True)
    ours, theirs = missing(draws)
    columns, hidden = ([f"{share:.0%} of {side}" for share in SHARES] for side in "yx")
    text += [
        f"**Missing cells, DGP.1: R² out of sample from X alone against complete targets, PTFA** "
        f"({draws} draws)",
        table(["missing", *columns], labelled(hidden, ours)),
        "**The same, PLS by regressions on the cells there are**",
        table(["missing", *columns], labelled(hidden, theirs)),
    ]
    wall, cpu = time.perf_counter() - began, cpu_seconds() - worked
    text.append(
        f"{machine()}; {wall / 60:.1f} minutes of wall time and {cpu / 60:.1f} of processor time with one "
        "process, other work running beside."
    )
    figures(maps, (ours, theirs, hidden, columns))
    if options.quick:
        print("\n\n".join(text))
        return
    write_section("ptfa_simulation", "\n\n".join(text))


if __name__ == "__main__":
    main()
