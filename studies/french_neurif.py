"""NeurIF on 175 French portfolios: forecasts, what its factors price, ablation, figures.

python studies/french_neurif.py [--refit MONTHS] [--store FOLDER] [--data FOLDER] [--quick]

The panel is that of french_characteristics.py. Every model is fitted on all months so far in January of 1990
and of 2010, and meets the months up to the next fit: its loadings follow the function of the
last fit, means of factors go on month by month. A small network, no setting tuned: the sizes are those of
neurif_simulation.py.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from _common import OUTPUT, arguments, cpu_seconds, data_folder, machine, number, table, write_section
from french_characteristics import FACTORS, FIRST, load, pipeline
from neurif_simulation import cached

from latentfactors import (
    BetaLambdaMapper,
    CAEConfig,
    CAEModel,
    ExpandingWindow,
    HistoricalMeanPredictor,
    IPCAConfig,
    IPCAModel,
    LatentFactorForecastPipeline,
    NativeFactorForecaster,
    NeurIFConfig,
    NeurIFModel,
    ObservedFactorConfig,
    ObservedFactorModel,
    Panel,
    TrainingConfig,
    anomaly_table,
    loading_profiles,
    macro_correlations,
    sort_on_loadings,
    walk_forward,
)
from latentfactors.evaluate import ablate, metrics_table, sort_portfolios
from latentfactors.readers.fred import fred_panel
from latentfactors.readers.french import excess_panel, read_french_csv, read_french_risk_free

K, EPOCHS, VALIDATION, MEMBERS, STEP = 5, 12, 60, 3, 240
TRAINING = TrainingConfig(
    epochs=EPOCHS,
    batch=12,
    optimiser="adamw",
    learning_rate=4e-3,
    weight_decay=1e-5,
    schedule="cosine",
    gradient_clip=1.0,
    validation=VALIDATION,
    patience=10,
    default_checkpoint="best",
    n_ensemble=MEMBERS,
    seed=0,
    device="cpu",
)
CONFIG = NeurIFConfig(n_factors=K, width=32, temporal_layers=2, induced_points=16, training=TRAINING)
CAE = TrainingConfig(
    epochs=EPOCHS, batch=2, learning_rate=1e-2, validation=VALIDATION, default_checkpoint="best",
    n_ensemble=MEMBERS, seed=0, device="cpu",
)  # fmt: skip
NATIVE, MEAN_PREMIA, MEAN = "NeurIF, own premia", "NeurIF, mean premia", "historical mean"
PRICING = {"NeurIF": MEAN_PREMIA, "CA1": "CA1", "IPCA": "IPCA", "FF5": "FF5"}  # columns of the pricing table
TRAINED_ON = {"BE-ME", "AC", "BETA", "INV", "OP", "VAR", "ME"}  # sorts that the 175 portfolios are made of
SORTS = ("ME", "BE-ME", "OP", "INV", "AC", "NI", "BETA", "VAR", "E-P", "CF-P", "D-P")
SERIES = (
    "INDPRO", "PAYEMS", "UNRATE", "HOUST", "CPIAUCSL", "OILPRICEx", "FEDFUNDS", "T10YFFM", "BAAFFM",
    "VIXCLSx",
)  # fmt: skip


def predictors():
    """Name -> unfitted predictor; NeurIF with its own premia and with the mean of its factors."""
    native = LatentFactorForecastPipeline(
        model=NeurIFModel(CONFIG), forecaster=NativeFactorForecaster(), mapper=BetaLambdaMapper()
    )
    observed = ObservedFactorModel(ObservedFactorConfig(factors=FACTORS[:5], alpha=False))
    return {
        NATIVE: native,
        MEAN_PREMIA: pipeline(NeurIFModel(CONFIG)),
        "CA1": pipeline(CAEModel(CAEConfig(n_factors=K, architecture="CA1", training=CAE))),
        "IPCA": pipeline(IPCAModel(IPCAConfig(n_factors=K))),
        "FF5": pipeline(observed),
        MEAN: HistoricalMeanPredictor(),
    }


def test_assets(folder):
    """Name -> deciles of a sort, or the industries, in excess of the bill."""
    bill = read_french_risk_free(folder / "F-F_Research_Data_5_Factors_2x3.csv.gz")
    files = {name: f"Portfolios_Formed_on_{name}" for name in SORTS}
    files["49 industries"] = "49_Industry_Portfolios"
    found = {}
    for name, file in files.items():
        frame = read_french_csv(folder / f"{file}.csv.gz", 0)
        columns = frame.columns[1:] if name == "49 industries" else frame.columns[-10:]
        panel = Panel.from_wide(
            frame.select(columns).to_numpy(),
            universe="all",
            times=frame["date"].to_numpy(),
            assets=columns,
            frequency="M",
            value_kind="return",
        )
        found[name] = excess_panel(panel, bill)
    return found


def main():
    more = argparse.ArgumentParser(add_help=False)
    more.add_argument("--refit", type=int, default=STEP, help="months between refits")
    more.add_argument("--store", type=Path, default=None, help="folder that keeps finished fits")
    options = arguments(__doc__.splitlines()[0], more)
    folder = data_folder(options.data, "french_portfolios")
    began, used = time.perf_counter(), cpu_seconds()
    panel = load(folder)
    panel = panel.between(0, panel.n_realised)
    start = int(np.searchsorted(panel.times, FIRST))
    n_test = panel.n_periods - start
    results = {}
    for name, each in predictors().items():
        splits = ExpandingWindow(first=FIRST, step=n_test if options.quick else options.refit)
        results[name] = walk_forward(
            each, panel, splits, n_jobs=1, store=options.store, keep_loadings=name == NATIVE
        )
        print(f"  {name}: {results[name].seconds:.1f} s", flush=True)
    scores = {line["name"]: line for line in metrics_table(results).to_dicts()}
    text = [describe(panel, n_test, options.refit)]
    text.append("### R² out of sample, percent, and long-short portfolios")
    text.append(
        f"{scores[MEAN]['n_forecasts']:,} forecasts. Total takes the factors of the month itself, the next "
        "two judge forecasts, against zero and **against the historical mean of each portfolio, the honest "
        "benchmark**. Long-short: quintiles of the forecast, equal weights, percent a year before cost, t of "
        "Newey and West, alpha on FF5+Mom. Seconds are those of a busy machine."
    )
    text.append(table(FORECASTS, [forecast_line(name, results[name], scores[name]) for name in results]))

    text += priced(results, test_assets(folder))

    sorts = sort_on_loadings(results[NATIVE], n_quantiles=5, factors=FACTORS)
    series = fred_panel(data_folder(options.data, "fred_md") / "fred_md_2026-02.csv.gz")
    macro = macro_correlations(results[NATIVE], series, names=SERIES)
    model = NeurIFModel(CONFIG)
    model.fit(panel.between(0, start))
    state = model.extract(panel)
    profiles = loading_profiles(state, panel, n_quantiles=5)
    text += learned(sorts, macro, profiles)

    text.append("### Ablation")
    text.append(
        f"One fit to the months before {FIRST}, scored on the {n_test} after it against zero, percent; the "
        "same seed. "
        "Without temporal attention the premia are the expanding mean of the factors; with no temporal layer "
        "they are a VAR(1)."
    )
    found = ablate(CONFIG, panel, n_test=n_test, layers=() if options.quick else (0,)).to_dicts()
    lines = [
        [line["name"], number(line["total_r2"], 2, 100), number(line["predictive_r2"], 2, 100),
         str(line["epochs"]), number(line["seconds"], 0)]
        for line in found
    ]  # fmt: skip
    text.append(table(["model", "total", "predictive", "epochs", "seconds"], lines))
    text.append(verdict(found))
    reused = sum(each.n_reused for each in results.values())
    seconds, used = time.perf_counter() - began, cpu_seconds() - used
    text.append(
        f"{machine('jax', 'equinox', 'optax', 'polars')}; {seconds / 60:.1f} minutes, {used / 60:.1f} CPU "
        "minutes in one process, on a machine busy with other work"
        + (f"; {reused} finished refits came from the store of an interrupted run" if reused else "")
        + ("; some programs came compiled from JAX's persistent cache." if cached() else ".")
    )
    figures(state, sorts, macro, profiles)
    if options.quick:
        print("\n\n".join(text))
        return
    write_section("french_neurif", "\n\n".join(text))


FORECASTS = [
    "model", "total", "against zero", "against the mean", "rank IC", "t", "long-short", "t", "alpha", "t",
    "seconds",
]  # fmt: skip


def forecast_line(name, result, line):
    held = sort_portfolios(result, n_quantiles=5, factors=FACTORS).frame().to_dicts()[-1]
    return [
        name,
        *(number(line[key], 2, 100) for key in ("total_r2", "r2_zero", "r2_mean")),
        number(line["rank_ic"], 3),
        number(line["rank_ic_t"]),
        number(held["mean"], 2, 100),
        number(held["t"]),
        number(held["alpha"], 2, 100),
        number(held["alpha_t"]),
        number(line["seconds"], 0),
    ]


def describe(panel, n_test, step):
    return (
        "`python studies/french_neurif.py`\n\n"
        "Panel and measures as in french_characteristics: 175 portfolios, "
        f"{len(panel.characteristic_names)} ranked characteristics with the constant, {panel.times[0]} to "
        f"{panel.times[-1]}, tested on the last {n_test}. **Fitted in January 1990 and every {step} months "
        "after**, on all months so far: loadings are functions of the month's characteristics that know "
        "nothing after the last fit. Five factors each. "
        f"NeurIF: width {CONFIG.width}, {CONFIG.temporal_layers} temporal layers, {CONFIG.induced_points} "
        f"induced points, {MEMBERS} members averaged after alignment, at most {EPOCHS} epochs of AdamW 4e-3 "
        f"with a cosine schedule; the last {VALIDATION} training months choose the epoch. CA1: {MEMBERS} "
        f"members, at most {EPOCHS} epochs. Nothing was tuned, and one seed was run: differences of a few "
        "tenths of a point between variants may be chance."
    )


def priced(results, assets):
    """Which factors price which portfolios, out of sample."""
    sets = {name: results[key] for name, key in PRICING.items()}
    lines = anomaly_table(sets, assets).to_dicts()
    cells = {(line["assets"], line["model"]): line for line in lines}
    rows, better = [], dict.fromkeys(PRICING, 0)
    for name in assets:
        found = {model: cells[name, model] for model in PRICING}
        better[min(found, key=lambda model: found[model]["mean_abs_alpha"])] += 1
        label = f"{name} (trained on)" if name in TRAINED_ON else name
        row = [label, str(found["FF5"]["n_assets"])]
        row += [
            f"{number(line['mean_abs_alpha'], 3, 100)} ({line['n_above_1.96']})" for line in found.values()
        ]
        row += [f"{number(line['grs'])} ({number(line['p_value'], 3)})" for line in found.values()]
        rows.append(row)
    heads = ["test assets", "N"]
    heads += [f"{what}, {model}" for what in ("abs alpha", "GRS (p)") for model in PRICING]
    least = ", ".join(f"{model} {count}" for model, count in better.items())
    return [
        "### Anomaly portfolios priced out of sample",
        f"Deciles of {len(SORTS)} sorts and 49 industries, {lines[0]['n_periods']} months from {FIRST} on, "
        "regressed with constant betas on each model's realised factors, which are returns of portfolios "
        "whose weights were known before the month (of NeurIF up to its small ridge). Mean |alpha| in "
        "percent a month, in brackets how many have a Newey-West |t| above 1.96; GRS with its p. "
        "Sorts marked as trained on are among those that the 175 portfolios are made of, so the learned "
        "factors are combinations of near relatives of these assets; FF5 is built from stocks sorted on "
        "size, value, profitability and investment.",
        table(heads, rows),
        f"Smallest mean |alpha|, of {len(assets)} sets of assets: {least}.",
    ]


def learned(sorts, macro, profiles):
    """What the factors are: portfolios sorted on loadings, characteristics, macroeconomic series."""
    lines = []
    for k, line in enumerate(sorts.frame().to_dicts()):
        by_size = np.argsort(-np.abs(profiles.spreads[:, k]), kind="stable")[:3]
        about = ", ".join(f"{profiles.names[j]} {number(profiles.spreads[j, k], 2)}" for j in by_size)
        strong = np.argsort(-np.nan_to_num(np.abs(macro.t_statistics[k])), kind="stable")[:2]
        moves = ", ".join(
            f"{macro.series_names[m]} {number(macro.values[k, m])} ({number(macro.t_statistics[k, m], 1)})"
            for m in strong
        )
        lines.append(
            [line["factor"], number(line["mean"], 2, 100), number(line["t"]), number(line["alpha"], 2, 100),
             number(line["alpha_t"]), number(line["correlation"]), about, moves]
        )  # fmt: skip
    n_large = int((np.abs(macro.t_statistics) > 3).sum())
    return [
        "### What NeurIF learned",
        "Quintiles of the portfolios by each factor's loading, top minus bottom, test months, percent a year "
        "before cost, alpha on FF5+Mom; correlation of that return with the factor. Characteristics: the "
        "three whose outer quintiles differ most in mean loading (all months). Macro: the two FRED-MD series "
        f"(vintage 2026-02, transformed by their codes) with the largest Newey-West t of {len(SERIES)} "
        "tried; "
        f"{n_large} of {macro.values.size} pairs exceed 3.",
        table(
            ["factor", "mean", "t", "alpha", "t", "correlation", "characteristics", "macro: correlation (t)"],
            lines,
        ),
    ]


def verdict(found):
    """In words, from the numbers."""
    whole, rest = found[0], found[1:]
    parts = []
    for key, word in (("total_r2", "total"), ("predictive_r2", "predictive")):
        better = [line["name"] for line in rest if line[key] >= whole[key]]
        text = f"{len(better)} of {len(rest)} variants reach or beat the whole model in {word} R²"
        parts.append(text + (f" ({', '.join(better)})" if better else ""))
    return "; ".join(parts) + "."


def figures(state, sorts, macro, profiles):
    """HTML figures beside the tables, where plotly is installed; git ignores the folder."""
    try:
        from latentfactors.report import (
            learned_factors_figure,
            loading_portfolios_figure,
            loading_profiles_figure,
            macro_correlations_figure,
        )
    except ImportError as error:
        print(f"no figures: {error}")
        return
    OUTPUT.mkdir(exist_ok=True)
    drawn = {
        "factors": learned_factors_figure(state),
        "profiles": loading_profiles_figure(profiles),
        "macro": macro_correlations_figure(macro),
        "portfolios": loading_portfolios_figure(sorts),
    }
    for name, figure in drawn.items():
        figure.write_html(OUTPUT / f"french_neurif_{name}.html")
    print(f"figures: {OUTPUT}")


if __name__ == "__main__":
    main()
