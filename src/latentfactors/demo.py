"""The demo: the main job on real data, and a configuration that repeats it.

Thirty US portfolios, monthly 1949-2017, in excess of the one-month Treasury bill, whose rate `french_frame`
subtracts once. Every year from 1969 on, each predictor is fitted again on all months so far and forecasts the
twelve that follow, one month ahead at a time.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from latentfactors.datasets import french_frame
from latentfactors.jobs import Job, JobResult, parse_job, run_job, write_job
from latentfactors.panel import Panel

__all__ = ["DEMO_CONFIG", "run_demo", "write_demo"]

DEMO_CONFIG = """\
# Written by `latentfactors demo`. This command repeats the demo:
#
#     latentfactors walk-forward config.toml
#
# Paths start from the folder of this file. `latentfactors walk-forward --help` shows all keys.

[data]
path = "french.csv"        # one line per date and asset; a Parquet file does as well
time = "date"
asset = "portfolio"
value = "excess_return"    # decimal, less the one-month Treasury bill: not subtracted again
lag = 0                    # 1: other columns of a line became known only at the end of its month
frequency = "M"
observed_factors = ["MktRF", "SMB", "HML", "Mom"]    # realised in the month: never used to forecast it

[prepare]
# Momentum, reversal, volatility, maximum and market beta from months before the forecast one; the first three
# years, which lack some, are dropped; then ranks.
steps = [
    "characteristics_from_returns",
    { name = "fill_missing", how = "drop" },
    "rank_standardise",
    "add_constant",
]

[splits]
kind = "expanding"         # or "rolling", with size = 240
first = 1969-01-31         # the first month that is forecast
step = 12                  # fit again every 12 months

[run]
output = "walk-forward"
horizon = 1
# n_jobs = -1                  # a process per core
# store = "finished-splits"    # keeps finished splits: a stopped job goes on where it was

[[predictor]]
name = "PCA(5), expanding mean"
kind = "pipeline"
model = { type = "pca", n_factors = 5 }
forecaster = "expanding_mean"

[[predictor]]
name = "PCA(5), EWMA"
kind = "pipeline"
model = { type = "pca", n_factors = 5 }
forecaster = "ewma"          # half-life 12 months

[[predictor]]
name = "PCA(5), rolling mean"
kind = "pipeline"
model = { type = "pca", n_factors = 5 }
forecaster = { type = "rolling_mean", window = 60 }

[[predictor]]
name = "PCA(5), AR(1)"
kind = "pipeline"
model = { type = "pca", n_factors = 5 }
forecaster = "ar1"

[[predictor]]
name = "PCA(5), VAR(1)"
kind = "pipeline"
model = { type = "pca", n_factors = 5 }
forecaster = "var"

[[predictor]]
name = "RP-PCA(5), expanding mean"
kind = "pipeline"
model = { type = "rp_pca", n_factors = 5 }
forecaster = "expanding_mean"

[[predictor]]
name = "IPCA(3), expanding mean"
kind = "pipeline"
model = { type = "ipca", n_factors = 3 }
forecaster = "expanding_mean"

[[predictor]]
name = "CAPM, expanding mean"
kind = "pipeline"
model = { type = "observed", factors = ["MktRF"], alpha = false }
forecaster = "expanding_mean"

[[predictor]]
name = "FF3+Mom, expanding mean"
kind = "pipeline"
model = { type = "observed", factors = ["MktRF", "SMB", "HML", "Mom"], alpha = false }
forecaster = "expanding_mean"

[[predictor]]
name = "cross-sectional ridge"
kind = "cross_sectional_ridge"

[[predictor]]
name = "cross-sectional OLS"
kind = "cross_sectional_ols"

[[predictor]]
name = "historical mean"
kind = "historical_mean"

[[predictor]]
name = "zero"
kind = "zero"
"""


def run_demo(
    folder: str | Path,
    *,
    n_jobs: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> JobResult:
    """Run the demo's job on the sample in memory; the result is to be written into `folder`.

    Parameters
    ----------
    folder
        Where `write_demo` will write.
    n_jobs
        Processes.
    progress
        As in `run_job`.

    Raises
    ------
    MissingCapabilityError
        Without linearmodels, which ships the sample.
    """
    config = tomllib.loads(DEMO_CONFIG)
    config["run"] |= {"output": "."} | ({} if n_jobs is None else {"n_jobs": n_jobs})
    job = parse_job(config, folder)
    return run_job(job, panel=demo_panel(job), progress=progress)


def demo_panel(job: Job) -> Panel:
    """The sample as the job prepares it, without a file in between."""
    columns = {key: value for key, value in asdict(job.data).items() if key not in ("path", "missing")}
    return job.prepare(Panel.from_frame(_sample(), **columns))


def write_demo(result: JobResult) -> list[Path]:
    """Write the results, the data as `french.csv`, and `config.toml` unless somebody has edited it."""
    extra = {"french.csv": _sample().write_csv().encode()}
    config = result.job.output / "config.toml"
    if not config.exists():
        extra["config.toml"] = DEMO_CONFIG.encode()
    return write_job(result, extra)


def _sample() -> Any:
    return french_frame().sort("date", "portfolio")
