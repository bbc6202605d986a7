"""Which factors explain which anomalies: any factor sets on any test assets, matched by date.

Factor sets      a model's state (its realised factors), a walk-forward (out of sample: each period's factors
                 by the refit that forecast it, aligned), a panel (its observed factors), or portfolios sorted
                 on loadings (their long-short returns)
Test assets      panels of excess returns or spreads, such as portfolios sorted on anomalies
                 without those that have no value over the common periods
Common ground    every set of assets is regressed over the periods that *all* factor sets have, so the lines
                 of one set of assets compare
A line           mean |alpha|, A|a|/A|r|, counts of |t| > 1.96 and > 3, GRS, mean R2: `pricing_table`

A latent factor is known up to rotation, sign and scale, none of which an alpha depends on. What it does
depend on: the factors must be returns of portfolios. Those of characteristics-based models are; innovations
of a macroeconomic model are not, and their alphas mean nothing. Factors that are combinations of the test
assets price them by construction: then only out-of-sample factors or other test assets say anything.

References: Hou, Xue & Zhang (2015), RFS 28(3); Fama & French (2015), JFE 116(1); Harvey, Liu & Zhu (2016),
RFS 29(1), the bar of 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError, MissingCapabilityError
from latentfactors.evaluate.loading_portfolios import LoadingPortfolios, factors_out_of_sample
from latentfactors.evaluate.priced_assets import PricedAssets, price_assets
from latentfactors.frames import to_frame
from latentfactors.panel import Panel
from latentfactors.state import LatentFactorState
from latentfactors.track_record import WalkForwardResult

__all__ = ["FactorSource", "anomaly_table", "factors_of", "price_anomalies"]

FloatArray = npt.NDArray[np.float64]
FactorSource = LatentFactorState | WalkForwardResult | Panel | LoadingPortfolios


def anomaly_table(
    factor_sets: Mapping[str, FactorSource],
    test_assets: Mapping[str, Panel],
    *,
    lags: int | None = None,
    backend: str = "polars",
) -> Any:
    """One line per set of test assets and factor set, scored over their common periods.

    Parameters
    ----------
    factor_sets
        Name -> where factors come from.
    test_assets
        Name -> panel of excess returns or spreads.
    lags
        Newey-West lags of the alphas; None: floor(4 (T/100)^(2/9)).
    backend
        "polars", "pandas" or "pyarrow".

    Returns
    -------
    frame
        assets, model; mean_abs_alpha, share_unpriced, n_above_1.96, n_above_3, grs, p_value, mean_r_squared,
        n_assets, n_factors, n_periods. GRS is NaN where it cannot be computed.

    Raises
    ------
    ConfigurationError, InsufficientDataError, MissingCapabilityError
        Nothing to compare, raw returns; no common periods; a predictor without factors.

    Examples
    --------
    >>> from latentfactors.models.ipca import IPCAConfig, IPCAModel
    >>> from latentfactors.simulate import characteristic_panel
    >>> panel = characteristic_panel(n_periods=120, n_assets=40, n_factors=2, seed=1).panel
    >>> model = IPCAModel(IPCAConfig(n_factors=2))
    >>> _ = model.fit(panel)
    >>> table = anomaly_table({"IPCA": model.extract(panel)}, {"all": panel})
    >>> table.select("assets", "model", "n_factors", "n_periods").row(0)
    ('all', 'IPCA', 2, 120)
    """
    priced = price_anomalies(factor_sets, test_assets, lags=lags)
    lines = [{"assets": a, "model": m} | each.line() for (a, m), each in priced.items()]
    return to_frame({key: np.array([line[key] for line in lines]) for key in lines[0]}, backend)


def price_anomalies(
    factor_sets: Mapping[str, FactorSource], test_assets: Mapping[str, Panel], *, lags: int | None = None
) -> dict[tuple[str, str], PricedAssets]:
    """(Assets' name, factor set's name) -> alphas, as `anomaly_table` sums them up; for figures.

    Raises
    ------
    ConfigurationError, InsufficientDataError, MissingCapabilityError
        As in `anomaly_table`.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from latentfactors.simulate import characteristic_panel
    >>> truth = characteristic_panel(n_periods=120, n_assets=40, n_factors=2, seed=1)
    >>> panel = replace(truth.panel, observed_factors=truth.factors, observed_factor_names=("a", "b"))
    >>> price_anomalies({"truth": panel}, {"all": panel})["all", "truth"].n_factors
    2
    """
    if not factor_sets or not test_assets:
        raise ConfigurationError("expected at least one factor set and one set of test assets")
    dated = {name: factors_of(name, each)[:2] for name, each in factor_sets.items()}
    priced = {}
    for assets, panel in test_assets.items():
        if panel.value_kind not in ("excess_return", "spread_change"):
            raise ConfigurationError(
                f"{assets!r} has values of kind {panel.value_kind!r}: alphas need excess returns or spreads"
            )
        common = panel.times[: panel.n_realised]
        for times, values in dated.values():
            common = np.intersect1d(common, times[np.isfinite(values).all(axis=1)])
        most = max(values.shape[1] for _, values in dated.values())
        if common.size <= most + 2:
            raise InsufficientDataError(
                f"{assets!r} and the factor sets {list(dated)} have {common.size} periods in common, "
                f"expected more than {most + 2}: compare spans, and the dates that name a period"
            )
        returns = panel.wide()[np.searchsorted(panel.times, common)]
        returns = returns[:, np.isfinite(returns).any(axis=0)]
        for name, (times, values) in dated.items():
            factors = values[np.searchsorted(times, common)]
            priced[assets, name] = price_assets(returns, factors, lags=lags)
    return priced


def factors_of(name: str, source: FactorSource) -> tuple[npt.NDArray[Any], FloatArray, tuple[str, ...]]:
    """Times (S,), ascending, factors (S, K) and their K names.

    Raises
    ------
    ConfigurationError, MissingCapabilityError
        Anything else; a predictor or panel without factors. `name` says which.
    """
    if isinstance(source, LatentFactorState):
        return source.timestamps, source.factor_returns, source.factors.names
    if isinstance(source, WalkForwardResult):
        return factors_out_of_sample(source)
    if isinstance(source, LoadingPortfolios):
        return source.times, source.long_short, source.names
    if isinstance(source, Panel):
        if source.observed_factors is None:
            raise MissingCapabilityError(f"{name!r} is a panel without observed factors")
        return source.times, source.observed_factors, source.observed_factor_names
    raise ConfigurationError(
        f"{name!r} must be a state, a walk-forward, a panel with observed factors or portfolios sorted on "
        f"loadings, got {type(source).__name__}"
    )
