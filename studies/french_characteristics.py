"""Latent factors of 175 French portfolios: fit, forecasts, pricing and long-short, in and out of sample.

python studies/french_characteristics.py [--data FOLDER] [--jobs N] [--quick]

Every model is fitted each January from 1990 on with all months so far and forecasts the twelve that follow.
Latent factor models forecast with the expanding mean of their factors, loadings times premia; so do observed
factors. The historical mean of each portfolio is the benchmark that has to be beaten.
"""

from __future__ import annotations

import time

import numpy as np
from _common import OUTPUT, arguments, data_folder, machine, number, table, write_section

from latentfactors import (
    BetaLambdaMapper,
    CrossSectionalOLSPredictor,
    CrossSectionalRidgePredictor,
    ExpandingMeanFactorForecaster,
    ExpandingWindow,
    HistoricalMeanPredictor,
    IPCAConfig,
    IPCAModel,
    LatentFactorForecastPipeline,
    ObservedFactorConfig,
    ObservedFactorModel,
    PCAConfig,
    PCAModel,
    RPPCAConfig,
    RPPCAModel,
    walk_forward,
)
from latentfactors.evaluate import (
    managed_portfolio_r2,
    metrics_table,
    performance,
    price_assets,
    pure_alpha,
    sort_portfolios,
    tangency_path,
)
from latentfactors.kernels.scores import r_squared
from latentfactors.prepare import add_constant, fill_missing, rank_standardise
from latentfactors.readers.french_panel import french_characteristic_panel
from latentfactors.state import combine

FACTORS = ("Mkt-RF", "SMB", "HML", "RMW", "CMA", "Mom")
OBSERVED = {"CAPM": 1, "FF3": 3, "FF5": 5, "FF5+Mom": 6}
FIRST = np.datetime64("1990-01-31")
FAMILIES = ("IPCA", "IPCA, alpha", "PCA", "RP-PCA", "observed")


def load(folder):
    """The panel, ranked, with a constant; the first three years, which lack characteristics, are left out."""
    panel = french_characteristic_panel(folder, momentum="sorts")
    panel = add_constant(rank_standardise(fill_missing(panel, "drop")))
    started = int(np.flatnonzero(np.diff(panel.offsets))[0])
    return panel.between(started, panel.n_periods)


def published_momentum(folder, panel):
    """(T,) the published momentum factor, NaN where its file has ended."""
    found = french_characteristic_panel(folder, sorts=("BEME",), price_based=())
    return found.observed_factors[np.searchsorted(found.times, panel.times), -1]


def models(most):
    """Name -> unfitted structural model: "PCA 3" has three factors."""
    found = {}
    for k in range(1, most + 1):
        found[f"IPCA {k}"] = IPCAModel(IPCAConfig(n_factors=k))
        found[f"IPCA, alpha {k}"] = IPCAModel(IPCAConfig(n_factors=k, alpha=True))
        found[f"PCA {k}"] = PCAModel(PCAConfig(n_factors=k))
        found[f"RP-PCA {k}"] = RPPCAModel(RPPCAConfig(n_factors=k))
    for k in OBSERVED.values():
        if k <= most:
            found[f"observed {k}"] = ObservedFactorModel(
                ObservedFactorConfig(factors=FACTORS[:k], alpha=False)
            )
    return found


def pipeline(model):
    return LatentFactorForecastPipeline(
        model=model, forecaster=ExpandingMeanFactorForecaster(), mapper=BetaLambdaMapper()
    )


def in_sample(structural, panel):
    """Total, predictive and managed-portfolio R2 of one fit on the whole span, and its factors."""
    found = {}
    for name, model in structural.items():
        model = model.clone()
        model.fit(panel)
        state = model.extract(panel)
        premia = np.broadcast_to(np.nanmean(state.factor_returns, axis=0), state.factor_returns.shape)
        expected = combine(state, premia, state.measurement.alpha)
        found[name] = {
            "total": r_squared(panel.values, state.reconstruction()),
            "predictive": r_squared(panel.values, expected),
            "managed": managed_portfolio_r2(state, panel),
            "factors": state.factor_returns,
        }
    return found


def pure_alphas(panel, splits, n_factors):
    """Returns of the pure-alpha portfolio, formed with each refit's Gamma_alpha, gross exposure 2."""
    parts = []
    for split in splits.split(panel):
        model = IPCAModel(IPCAConfig(n_factors=n_factors, alpha=True))
        model.fit(panel.between(0, split.start))
        parts.append(pure_alpha(model, panel.between(split.start, split.stop), gross=2.0).returns)
    return np.concatenate(parts)


def by_k(values, most, digits=2, families=FAMILIES):
    """A table of R2 in percent: a line per family, a column per number of factors."""
    lines = []
    for family in families:
        cells = [values.get(f"{family} {k}", np.nan) for k in range(1, most + 1)]
        label = "observed (CAPM, FF3, FF5, FF5+Mom)" if family == "observed" else family
        lines.append([label, *(number(each, digits, 100) for each in cells)])
    return table(["R², %", *(f"K = {k}" for k in range(1, most + 1))], lines)


def main():
    options = arguments(__doc__.splitlines()[0])
    folder = data_folder(options.data, "french_portfolios")
    began = time.perf_counter()
    panel, most = load(folder), 2 if options.quick else 6
    splits = ExpandingWindow(first=FIRST, step=120 if options.quick else 12)
    structural = models(most)
    predictors = {name: pipeline(model) for name, model in structural.items()}
    predictors |= {
        "historical mean": HistoricalMeanPredictor(),
        "cross-sectional OLS": CrossSectionalOLSPredictor(),
        "cross-sectional ridge": CrossSectionalRidgePredictor(),
    }
    results = {}
    for name, each in predictors.items():
        results[name] = walk_forward(each, panel, splits, n_jobs=options.jobs)
        print(f"  {name}: {results[name].seconds:.1f} s", flush=True)
    scores = {line["name"]: line for line in metrics_table(results).to_dicts()}
    inside = in_sample(structural, panel.between(0, panel.n_realised))

    first = int(np.searchsorted(panel.times, FIRST))
    last = panel.n_realised
    excess, factors = panel.wide(), panel.observed_factors
    fresh = slice(first, last)
    text = [describe(panel, published_momentum(folder, panel), scores, last)]

    text.append("### R² in sample, one fit on the whole span")
    text.append(
        "Total uses realised factors, a description; predictive replaces them by their mean over the same "
        "span (with alpha where there is one), so it has seen the future."
    )
    for key in ("total", "predictive", "managed"):
        title = {"managed": "Total, of characteristic-managed portfolios"}.get(key, key.capitalize())
        values = {name: found[key] for name, found in inside.items()}
        text += [f"**{title}**", by_k(values, most, 1 if key != "predictive" else 2)]

    text.append("### R² out of sample")
    text.append(
        f"{scores['historical mean']['n_forecasts']:,} forecasts, those that all predictors have. Total: "
        "loadings from the past, factors of the month itself. The other two judge forecasts: against zero, "
        "which anything with the right equity premium beats, and **against the historical mean of each "
        "portfolio, the honest benchmark**."
    )
    for key, title in (
        ("total_r2", "Total"),
        ("r2_zero", "Predictive, against zero"),
        ("r2_mean", "Predictive, against the historical mean"),
    ):
        values = {name: line[key] for name, line in scores.items()}
        text += [f"**{title}**", by_k(values, most, 1 if key == "total_r2" else 2)]
    rivals = ("historical mean", "cross-sectional OLS", "cross-sectional ridge")
    lines = [
        [name, number(scores[name]["r2_zero"], 2, 100), number(scores[name]["r2_mean"], 2, 100),
         number(scores[name]["rank_ic"], 3), number(scores[name]["rank_ic_t"], 2)]
        for name in rivals
    ]  # fmt: skip
    text += [
        "**Without factors**",
        table(["predictor", "against zero, %", "against the mean, %", "rank IC", "t"], lines),
    ]

    text.append("### Pricing in sample: alphas of the 175 portfolios on each model's factors")
    text.append(
        "Constant betas on factors of the whole span, percent a month. Unpriced: mean |alpha| over "
        "mean |average excess return|. GRS has a dash where factors are exact combinations of the test "
        "assets, as those of PCA are: their residuals are collinear by construction."
    )
    lines = []
    for family in ("IPCA", "PCA", "RP-PCA", "observed"):
        for k in OBSERVED.values():
            if f"{family} {k}" in inside:
                priced = price_assets(excess[:last], inside[f"{family} {k}"]["factors"][:last])
                lines.append(priced_line(observed_name(family, k), priced))
    text.append(table(PRICED, lines))

    text.append("### Tangency portfolios out of sample")
    text.append(
        "Factors of each refit, weights of their tangency portfolio from the months before it. Sharpe ratio "
        "a year; alpha on FF5+Mom in percent a year with Newey-West t, after scaling to 10% volatility; the "
        "last columns price the 175 portfolios with this one return and constant betas. A tangency portfolio "
        "that hedges the market leaves large alphas by themselves, so GRS, which weighs them by their "
        "covariance, is the fair judge there."
    )
    lines = []
    for family in ("IPCA", "PCA", "RP-PCA", "observed"):
        for k in range(1, most + 1):
            name = f"{family} {k}"
            if name in results:
                earned = tangency_path(results[name]).returns[: last - first]
                lines.append(tangency_line(observed_name(family, k), earned, excess[fresh], factors[fresh]))
    heads = [
        "model",
        "Sharpe",
        "t",
        "alpha FF5+Mom",
        "t",
        "mean abs alpha",
        "unpriced",
        "abs t > 1.96",
        "GRS",
        "p",
    ]
    text.append(table(heads, lines))

    text.append("### Pure alpha of IPCA out of sample")
    text.append(
        "w = Z(Z'Z)⁻¹Γα with each refit's Γα, gross exposure 2 (one long, one short): no exposure to the "
        "model's latent factors. Percent a year, before cost."
    )
    lines = []
    for k in range(1, most + 1):
        earned = pure_alphas(panel, splits, k)[: last - first]
        found = performance(earned, factors[fresh], None, 12.0)
        lines.append(
            [f"K = {k}", number(found["mean"], 2, 100), number(found["volatility"], 2, 100),
             number(found["sharpe"]), number(found["t"]), number(found["alpha"], 2, 100),
             number(found["alpha_t"])]
        )  # fmt: skip
    text.append(table(["model", "mean", "volatility", "Sharpe", "t", "alpha FF5+Mom", "t"], lines))

    text.append("### Long-short portfolios sorted on forecasts")
    text.append(
        "Portfolios of the month sorted on each forecast, equal weights, top minus bottom, percent a year, "
        "before cost; turnover: what both legs buy and sell in a month. The assets are portfolios "
        "themselves, many of them holding the same stocks, so these are no returns of a stock strategy."
    )
    lines, sorts = [], {}
    shown = [name for name in results if name.split(" ")[-1] in ("1", "3", "5", "6") or name in rivals]
    for name in shown:
        cells = []
        for n in (5, 10):
            sort = sort_portfolios(results[name], n_quantiles=n, factors=FACTORS)
            if n == 5:
                sorts[name] = sort
            line = sort.frame().to_dicts()[-1]
            cells += [number(line["mean"], 2, 100), number(line["sharpe"]), number(line["t"]),
                      number(line["turnover"], 0, 100) + "%", number(line["alpha"], 2, 100),
            number(line["alpha_t"])]  # fmt: skip
        family, _, k = name.rpartition(" ")
        lines.append([observed_name(family, int(k)) if k.isdigit() else name, *cells])
    half = ["mean", "Sharpe", "t", "turnover", "alpha", "t"]
    text += [
        table(["forecast", *(f"{head} (5)" for head in half), *(f"{head} (10)" for head in half)], lines),
        "(5): quintiles, (10): deciles; alpha on FF5+Mom, percent a year.",
    ]
    seconds = time.perf_counter() - began
    text.append(f"{machine('polars')}; {seconds / 60:.1f} minutes with {options.jobs} processes.")
    if options.quick:
        print("\n\n".join(text))
        return
    figures(results, sorts)
    write_section("french_characteristics", "\n\n".join(text))


PRICED = ["model", "mean abs alpha", "unpriced", "abs t > 1.96", "abs t > 3", "GRS", "p", "mean R²"]


def observed_name(family, k):
    names = {count: name for name, count in OBSERVED.items()}
    return names[k] if family == "observed" else f"{family}({k})"


def priced_line(name, priced):
    line = priced.line()
    return [
        name, number(line["mean_abs_alpha"], 3, 100), number(line["share_unpriced"]),
        str(line["n_above_1.96"]), str(line["n_above_3"]), number(line["grs"]), number(line["p_value"], 3),
        number(line["mean_r_squared"], 3),
    ]  # fmt: skip


def tangency_line(name, earned, excess, factors):
    scaled = earned * (0.10 / np.sqrt(12) / earned.std(ddof=1))
    found = performance(scaled, factors, None, 12.0)
    line = price_assets(excess, earned).line()
    return [
        name, number(found["sharpe"]), number(found["t"]), number(found["alpha"], 2, 100),
        number(found["alpha_t"]), number(line["mean_abs_alpha"], 3, 100), number(line["share_unpriced"]),
        str(line["n_above_1.96"]), number(line["grs"]), number(line["p_value"], 3),
    ]  # fmt: skip


def describe(panel, published, scores, last):
    known = np.isfinite(published)
    correlation = np.corrcoef(published[known], panel.observed_factors[known, -1])[0, 1]
    ended = panel.times[np.flatnonzero(known)[-1]]
    failed = sum(line["n_failed"] for line in scores.values())
    return (
        "`python studies/french_characteristics.py`\n\n"
        "175 double-sorted US portfolios (size with book-to-market, accruals, beta, investment, "
        "profitability, residual variance, variance; French's files of 2026-02), monthly value-weighted "
        "returns in excess of "
        f"the Treasury bill, {panel.times[0]} to {panel.times[last - 1]}, where the bill's rate ends. "
        f"{len(panel.characteristic_names)} characteristics ({', '.join(panel.characteristic_names)}), "
        "cross-sectional ranks but for the constant, all of the month before (lag=1). The first three years "
        "are left out for want of momentum and beta. Mom is winners minus losers of the 25 size and momentum "
        f"portfolios (correlation {correlation:.2f} with the published factor, which ends {ended} in these "
        "files). "
        f"Test months {FIRST} to {panel.times[last - 1]}, refit every January, expanding window; "
        f"{failed or 'no'} fit failed."
    )


def figures(results, sorts):
    """HTML figures beside the table, where plotly is installed; git ignores the folder."""
    try:
        from latentfactors.report import errors_figure, factors_figure, long_short_figure
    except ImportError as error:
        print(f"no figures: {error}")
        return
    OUTPUT.mkdir(exist_ok=True)
    few = {name: results[name] for name in ("IPCA 5", "PCA 5", "RP-PCA 5", "observed 5", "historical mean")}
    drawn = {
        "errors": errors_figure(few),
        "factors_ipca_5": factors_figure(results["IPCA 5"]),
        "long_short": long_short_figure({name: sorts[name] for name in few}),
    }
    for name, figure in drawn.items():
        figure.write_html(OUTPUT / f"french_characteristics_{name}.html")
    print(f"figures: {OUTPUT}")


if __name__ == "__main__":
    main()
