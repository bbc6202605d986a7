"""The conditional autoencoder beside IPCA, RP-PCA and FF5 on 175 French portfolios, in and out of sample.

python studies/french_autoencoder.py [--refit MONTHS] [--store FOLDER] [--data FOLDER] [--jobs N] [--quick]

The panel, the linear models and the forecasts are those of french_characteristics.py. Every model is fitted
each January on all months so far and forecasts the twelve that follow; `--refit 60` refits every five years.
The autoencoders hold out the last five years of each training span to choose their epoch. Their settings were
chosen on months before 1990. `--store` keeps finished refits, so that an interrupted study goes on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

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
from french_characteristics import FACTORS, FIRST, in_sample, load, pipeline

from latentfactors import (
    CAEConfig,
    CAEModel,
    ExpandingWindow,
    HistoricalMeanPredictor,
    IPCAConfig,
    IPCAModel,
    ObservedFactorConfig,
    ObservedFactorModel,
    RPPCAConfig,
    RPPCAModel,
    TrainingConfig,
    walk_forward,
)
from latentfactors.evaluate import metrics_table, sort_portfolios

STEP, VALIDATION = 12, 60
TRAINING = TrainingConfig(
    epochs=60,
    batch=2,
    learning_rate=1e-2,
    validation=VALIDATION,
    patience=5,
    default_checkpoint="best",
    n_ensemble=5,
    seed=0,
    device="cpu",
)
L1 = 1e-4
MEAN = "historical mean"


def models(sizes, training):
    """Name -> unfitted structural model."""
    found = {}
    for k in sizes:
        found[f"IPCA({k})"] = IPCAModel(IPCAConfig(n_factors=k))
        for name in ("CA1", "CA2"):
            found[f"{name}({k})"] = CAEModel(
                CAEConfig(n_factors=k, architecture=name, l1_penalty=L1, training=training)
            )
        found[f"RP-PCA({k})"] = RPPCAModel(RPPCAConfig(n_factors=k))
    found["FF5"] = ObservedFactorModel(ObservedFactorConfig(factors=FACTORS[:5], alpha=False))
    return found


def main():
    more = argparse.ArgumentParser(add_help=False)
    more.add_argument("--refit", type=int, default=STEP, help="months between refits")
    more.add_argument("--store", type=Path, default=None, help="folder that keeps finished refits")
    options = arguments(__doc__.splitlines()[0], more)
    folder = data_folder(options.data, "french_portfolios")
    began, used = time.perf_counter(), cpu_seconds()
    panel = load(folder)
    step = 240 if options.quick else options.refit
    structural = models((3,) if options.quick else (1, 3, 5), TRAINING)
    predictors = {name: pipeline(model) for name, model in structural.items()}
    predictors[MEAN] = HistoricalMeanPredictor()
    # One set of splits, so that scores compare; the autoencoders hold out their months by their own config.
    splits = ExpandingWindow(first=FIRST, step=step)
    results = {}
    for name, each in predictors.items():
        results[name] = walk_forward(each, panel, splits, n_jobs=options.jobs, store=options.store)
        print(f"  {name}: {results[name].seconds:.1f} s", flush=True)
        for failure in results[name].failures:
            print(f"    {failure.split}: {failure.error}", flush=True)
    scores = {line["name"]: line for line in metrics_table(results).to_dicts()}
    last = panel.n_realised
    inside = in_sample(structural, panel.between(0, last))

    text = [describe(panel, scores, last, step)]
    text.append("### R², percent")
    text.append(
        "In sample: one fit on the whole span, predictive with the mean of its factors, so it has seen the "
        f"future. Out of sample: {scores[MEAN]['n_forecasts']:,} forecasts, those that all predictors have; "
        "total takes loadings from the past and the factors of the month itself, the two predictive ones "
        "judge forecasts, against zero and **against the historical mean of each portfolio, the honest "
        "benchmark**. Seconds: fits and forecasts of all refits, on a machine busy with other work."
    )
    text.append(table(R2, [r2_line(name, inside.get(name), scores[name]) for name in results]))
    text.append("### Long-short portfolios sorted on forecasts")
    text.append(
        "Quintiles (5) and deciles (10) of the month, equal weights, top minus bottom, percent a year, "
        "before cost, with Newey-West t; turnover: what both legs buy and sell in a month; alpha on FF5+Mom. "
        "The assets are portfolios themselves, many of them holding the same stocks, so these are no returns "
        "of a stock strategy."
    )
    half = ("mean", "Sharpe", "t", "turnover", "alpha", "t")
    heads = ["forecast", *(f"{head} ({n})" for n in (5, 10) for head in half)]
    text.append(table(heads, [long_short_line(name, each) for name, each in results.items()]))
    release_workers()
    reused = sum(each.n_reused for each in results.values())
    seconds, used = time.perf_counter() - began, cpu_seconds() - used
    versions = machine("jax", "equinox", "optax", "polars")
    text.append(
        f"{versions}; {seconds / 60:.1f} minutes, {used / 60:.1f} CPU minutes with {options.jobs} "
        f"{'process' if options.jobs == 1 else 'processes'}, on a machine busy with other work"
        + (f"; {reused} finished refits came from the store of an interrupted run." if reused else ".")
    )
    figures(results)
    if options.quick:
        print("\n\n".join(text))
        return
    write_section("french_autoencoder", "\n\n".join(text))


R2 = [
    "model",
    "in: total",
    "in: predictive",
    "out: total",
    "out: against zero",
    "out: against the mean",
    "rank IC",
    "t",
    "seconds",
]


def r2_line(name, inside, line):
    within = [number(inside[key] if inside else np.nan, 2, 100) for key in ("total", "predictive")]
    without = [number(line[key], 2, 100) for key in ("total_r2", "r2_zero", "r2_mean")]
    ranks = [number(line["rank_ic"], 3), number(line["rank_ic_t"], 2)]
    return [name, *within, *without, *ranks, number(line["seconds"], 0)]


def long_short_line(name, result):
    cells = [name]
    for n in (5, 10):
        line = sort_portfolios(result, n_quantiles=n, factors=FACTORS).frame().to_dicts()[-1]
        cells += [number(line["mean"], 2, 100), number(line["sharpe"]), number(line["t"])]
        cells += [number(line["turnover"], 0, 100) + "%", number(line["alpha"], 2, 100)]
        cells.append(number(line["alpha_t"]))
    return cells


def describe(panel, scores, last, step):
    failed = sum(line["n_failed"] for line in scores.values())
    return (
        "`python studies/french_autoencoder.py`\n\n"
        "Panel, forecasts (expanding mean of the factors times loadings) and measures as in "
        f"french_characteristics: 175 portfolios, {panel.times[0]} to {panel.times[last - 1]}, "
        f"{len(panel.characteristic_names)} ranked characteristics with the constant. Test months {FIRST} to "
        f"{panel.times[last - 1]}, expanding window, **every model refitted every {step} months** (the paper "
        f"refits every 12). Refits that failed (loadings lost rank): {failed or 'none'}; their "
        "months count for no model.\n\n"
        "CA1 has one hidden layer of 32 units, CA2 32 and 16, with batch norm; factors by projection. Every "
        f"refit starts afresh: {TRAINING.n_ensemble} members averaged after alignment, up to "
        f"{TRAINING.epochs} epochs of Adam, batches of {TRAINING.batch} months, learning rate "
        f"{TRAINING.learning_rate:g}, L1 penalty {L1:g}; the last {VALIDATION} training months are held out, "
        f"each member counts with its best epoch on them and stops after {TRAINING.patience} epochs without "
        f"a better one; seed {TRAINING.seed}, on the CPU. Learning rate (of 0.003 and 0.01) and batch (of 2 "
        "and 8 months) are those with the best validation R² of a CA2 with five factors on months before "
        "1990 (0.003 with 8 was given 30 epochs only); nothing was chosen on test months. "
        "The held-out months do not train the network, while the linear models use them; the means of the "
        "factors use them everywhere. In sample the autoencoders hold out the last months of the whole span."
    )


def figures(results):
    """HTML figures beside the tables, where plotly is installed; git ignores the folder."""
    try:
        from latentfactors.report import errors_figure, factors_figure, long_short_figure
    except ImportError as error:
        print(f"no figures: {error}")
        return
    OUTPUT.mkdir(exist_ok=True)
    most = max(int(name[4:-1]) for name in results if name.startswith("CA2"))
    names = [*(f"{family}({most})" for family in ("IPCA", "CA1", "CA2", "RP-PCA")), "FF5", MEAN]
    few = {name: results[name] for name in names if not results[name].failures}
    sorts = {name: sort_portfolios(each, n_quantiles=5) for name, each in few.items()}
    drawn = {
        "errors": errors_figure(few),
        "long_short": long_short_figure(sorts),
        "factors_ca2": factors_figure(results[f"CA2({most})"]),
    }
    for name, figure in drawn.items():
        figure.write_html(OUTPUT / f"french_autoencoder_{name}.html")
    print(f"figures: {OUTPUT}")


if __name__ == "__main__":
    main()
