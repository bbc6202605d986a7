"""What `--help` says, with examples that can be copied. A line with a lone backspace keeps what follows."""

from __future__ import annotations

__all__ = [
    "APP_HELP",
    "COMPARE_HELP",
    "DEMO_HELP",
    "EXAMPLE_CONFIG",
    "NOWCAST_HELP",
    "REPORT_HELP",
    "WALK_FORWARD_HELP",
]

EXAMPLE_CONFIG = """\
[data]
path = "returns.csv"             # or .parquet; one line per date and asset
time = "month"
asset = "firm"
value = "excess_return"
lag = 1                          # 1: a line's other columns are known at the end of its period, 0: before it
characteristics = ["size", "bm"]
# more columns: weights, attributes, context, observed_factors
# frequency = "M" (or "Q", "W", "B", "D") where the spacing of the dates does not show it
# value_kind = "excess_return" (or "return", "spread_change", "series")
# missing = ["NA"], texts that stand for a missing number in a CSV

[prepare]
steps = ["rank_standardise", { name = "winsorise", limits = [0.01, 0.99] }]
# or: characteristics_from_returns, zscore, fill_missing, neutralise, add_constant

[splits]
kind = "expanding"               # or "rolling", with size
first = 2000-01-31               # the first period that is forecast, or a number of training periods
step = 12                        # periods between fits

[run]
output = "results"
horizon = 1                      # periods ahead
n_jobs = 2                       # processes
store = "finished-splits"        # a stopped job goes on where it was

[[predictor]]
name = "PCA"
kind = "pipeline"
model = { type = "pca", n_factors = 3 }
forecaster = "expanding_mean"    # or { type = "ewma", half_life = 24 }, rolling_mean, ar1, var, native
mapper = "beta_lambda"           # or native

[[predictor]]
name = "ridge"
kind = "cross_sectional_ridge"   # or cross_sectional_ols, neural_network, gradient_boosting,
                                 # neuralforecast, autoregressive, historical_mean, zero
penalty = 0.1

# options chosen by validation inside every fit, beside the other keys of a [[predictor]]:
# search = { grid = { penalty = [0.01, 0.1, 1.0] }, validation = 60, step = 12 }
# or the best of predictors above: kind = "selected", candidates = ["PCA", "ridge"], validation = 60
"""

APP_HELP = """\
Latent factor models in finance and macroeconomics: one panel, one pipeline, one walk-forward.

\b
Examples:
  latentfactors demo
  latentfactors walk-forward config.toml
  latentfactors compare config.toml
  latentfactors nowcast config.toml
  latentfactors report results
  latentfactors walk-forward --help       a configuration with all its keys
"""
DEMO_HELP = """\
Forecast 30 US portfolios month by month from 1969 to 2017, and score the forecasts.

The data ship with linearmodels. Results, data and a configuration to go on with are written into a folder.

\b
Examples:
  latentfactors demo
  latentfactors demo --out my-first-run --jobs 2
"""
WALK_FORWARD_HELP = """\
Fit on the past, forecast the next block, again and again, on your own CSV or Parquet file.

Writes predictions.parquet, metrics.csv, manifest.json and the data of the report into the output folder and
leaves other files there alone. `latentfactors demo` writes a configuration to start from.

\b
Examples:
  latentfactors walk-forward config.toml
  latentfactors walk-forward config.toml --out other-results --jobs -1

A configuration; its paths start from its own folder, and the options of a model, forecaster, mapper,
predictor or step are the arguments of the Python class or function of that name:

\b
""" + EXAMPLE_CONFIG.replace("\n\n", "\n\n\b\n")
COMPARE_HELP = """\
All models side by side on your own data: same splits, same cells scored, tests of the differences.

Takes the configuration of walk-forward. Without [[predictor]] every model takes part that the data can feed:
means, PCA, RP-PCA, observed factors, OLS, ridge, a neural network, boosted trees, IPCA, CAE, NeurIF. A
comparison that was stopped goes on where it was: finished splits are kept in the output folder, or in the
store that you name.

Writes comparison.csv, diebold-mariano.csv and what walk-forward writes; `latentfactors report` shows it all.

\b
Examples:
  latentfactors compare config.toml
  latentfactors compare config.toml --out all-models --jobs 2

\b
[compare]                        # optional
n_quantiles = 5                  # of the long-short portfolios; by the number of assets where left out
size = 0.1                       # 1 - confidence of the model confidence set
\b
[[predictor]]
name = "boosted trees"
kind = "gradient_boosting"       # or neural_network, neuralforecast, and all kinds that walk-forward has
"""
REPORT_HELP = """\
Write one HTML file about a run: scores, data, fits, factors, loadings, forecasts, portfolios, configuration.

RUN is a folder that `latentfactors demo`, `walk-forward` or `compare` wrote. The file loads nothing from
anywhere: mail it, print it, read it on a phone. It needs pip install 'latentfactors[report]'.

\b
Examples:
  latentfactors report latentfactors-demo
  latentfactors report results --out for-the-committee.html
"""

NOWCAST_HELP = """\
Nowcast a series from releases, and say what moved the nowcast since the last time.

Fits the model on everything released by a day and writes a snapshot, a folder named by that day with
nowcasts.parquet, snapshot.json, the model, the vintage and report.html. The next run compares itself to it
and prints the news.

\b
Example:
  latentfactors nowcast config.toml --as-of 2016-07-29

A configuration; its paths start from its own folder:

\b
[data]
releases = "releases.csv"        # or .parquet; a line per release: series, period, release, value
# or store = "vintages", a folder that VintageStore.save wrote
# or monthly = "md/*.csv", quarterly = "qd/*.csv": vintages of FRED-MD and FRED-QD, the month in the names,
#    with quarterly_series = ["GDPC1"], outlier_threshold = 10, codes = "md/2025-12.csv" for files without
# first = 1985-01-01, exclude = ["VXOCLSx"]
\b
[[series]]                       # what is not named is monthly and used as it is
name = "GDP"
frequency = "Q"
aggregation = "mariano_murasawa"
code = 5                         # transformation 1..7, or its name
\b
[model]
type = "dfm"                     # or "ptfa", with targets = ["GDP"], dynamics = { lags = 1 }; or "d2fm"
n_factors = 1
# variance_break = { periods = ["2020-03", "2020-04"] }, masked = [...]: months of a pandemic, type "dfm"
\b
# [search]                       # options of the model with the best forecasts of the last periods
# grid = { factor_lags = [1, 2] }
# validation = 96                # further keys: step, targets, rule, reselect
\b
[nowcast]
target = "GDP"                   # further keys: as_of, ahead, level
scale = 400                      # what is shown is multiplied by it; files keep the panel's units
unit = "percent at an annual rate"
indicator = "INDPRO"             # draws the composite indicator, which moves with this series
\b
[bootstrap]                      # leave it out for densities that take parameters as known
n_draws = 50
\b
[run]
output = "nowcasts"              # refit = false keeps the model of the snapshot before
"""
