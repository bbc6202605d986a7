"""A small job in a folder: data with a characteristic, four predictors, a fraction of a second to run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

CONFIG = """\
[data]
path = "data.csv"
time = "month"
asset = "firm"
value = "ret"
lag = 1
characteristics = ["size"]

[prepare]
steps = ["rank_standardise"]

[splits]
kind = "expanding"
first = 24
step = 6

[run]
output = "results"

[[predictor]]
name = "PCA"
kind = "pipeline"
model = { type = "pca", n_factors = 2 }
forecaster = { type = "ewma", half_life = 12 }

[[predictor]]
name = "ridge"
kind = "cross_sectional_ridge"
penalty = 0.1

[[predictor]]
name = "mean"
kind = "historical_mean"

[[predictor]]
name = "zero"
kind = "zero"
"""


def small_frame(n_periods: int = 40, n_assets: int = 8) -> pl.DataFrame:
    """Two factors, sizes that drift; columns month (text), firm, ret, size."""
    rng = np.random.default_rng(5)
    factors = 0.01 + 0.03 * rng.standard_normal((n_periods, 2))
    loadings = 1 + 0.5 * rng.standard_normal((n_assets, 2))
    returns = factors @ loadings.T + 0.01 * rng.standard_normal((n_periods, n_assets))
    following = np.datetime64("2010-02") + np.arange(n_periods).astype("timedelta64[M]")
    days = following.astype("datetime64[D]") - np.timedelta64(1, "D")
    return pl.DataFrame(
        {
            "month": np.repeat(days.astype(str), n_assets),
            "firm": np.tile([f"F{i}" for i in range(n_assets)], n_periods),
            "ret": returns.ravel(),
            "size": rng.standard_normal(returns.size),
        }
    )


def write_small_job(folder: Path, config: str = CONFIG) -> Path:
    """Data and configuration in a folder; the path of the configuration."""
    small_frame().write_csv(folder / "data.csv")
    path = folder / "config.toml"
    path.write_text(config)
    return path
