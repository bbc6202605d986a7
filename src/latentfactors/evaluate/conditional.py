"""Judging models whose loadings move with characteristics: managed portfolios and pure alpha.

Managed portfolios   x_p = Z_p'r_p / n_p over the n_p observed rows: one portfolio per characteristic
Their R2             1 - sum_p |x_p - Z_p'm_p / n_p|^2 / sum_p |x_p|^2, m_p what a model says of r_p: fitted
                     with realised factors (total) or forecast (predictive); rows without m_p never count
Pure alpha           w_p = Z_p (Z_p'Z_p)^-1 Gamma_alpha, formed at the end of p-1 over the whole row set

With loadings Z_pGamma and Gamma'Gamma_alpha = 0 the pure-alpha portfolio has no exposure to any latent
factor, w_p'Z_pGamma = Gamma_alpha'Gamma = 0, and an expected return of Gamma_alpha'Gamma_alpha: what it earns
beyond that is idiosyncratic. A model without mispricing leaves nothing there out of sample.

References: Kelly, Pruitt & Su (2019), JFE 134(3): R2 of managed portfolios, pure-alpha portfolio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, MissingCapabilityError, PanelMismatchError
from latentfactors.estimator import freeze
from latentfactors.evaluate.pricing_tests import performance
from latentfactors.frames import to_frame
from latentfactors.kernels.sufficient import projection_weights
from latentfactors.models.ipca import IPCAModel
from latentfactors.panel import Panel
from latentfactors.results import AssetForecastResult
from latentfactors.rows import RowIndex
from latentfactors.state import LatentFactorState

__all__ = ["PureAlpha", "managed_portfolio_r2", "pure_alpha"]

FloatArray = npt.NDArray[np.float64]


def managed_portfolio_r2(
    model_says: LatentFactorState | AssetForecastResult | npt.ArrayLike, panel: Panel
) -> float:
    """R2 of characteristic-managed portfolios, for any model that says something about the panel's rows.

    Parameters
    ----------
    model_says
        `LatentFactorState`: its fit with realised factors, the total R2. `AssetForecastResult` of horizon 1:
        the predictive R2. Or any (R,) array over the panel's rows, NaN where it says nothing.
    panel
        With characteristics (R, L); the rows the model has seen.

    Returns
    -------
    float
        NaN without a row that has a value and an answer.

    Raises
    ------
    PanelMismatchError
        No characteristics, or answers about other rows.
    ConfigurationError
        A forecast of another horizon than 1.

    Examples
    --------
    >>> from latentfactors.models.ipca import IPCAConfig, IPCAModel
    >>> from latentfactors.simulate import characteristic_panel
    >>> panel = characteristic_panel(n_periods=60, n_assets=50, n_factors=2, seed=1).panel
    >>> model = IPCAModel(IPCAConfig(n_factors=2))
    >>> summary = model.fit(panel)
    >>> found = managed_portfolio_r2(model.extract(panel), panel)
    >>> bool(abs(found - summary.metrics["managed_total_r2"]) < 1e-10)
    True
    """
    if panel.characteristics is None:
        raise PanelMismatchError("managed portfolios need characteristics, this panel has none")
    if isinstance(model_says, LatentFactorState):
        fitted = _of_same_rows(model_says.reconstruction(), model_says.index, panel)
    elif isinstance(model_says, AssetForecastResult):
        if model_says.horizon != 1:
            raise ConfigurationError(
                f"managed portfolios of a row's own period need horizon 1, got {model_says.horizon}"
            )
        fitted = _of_same_rows(model_says.expected_values, model_says.index, panel)
    else:
        fitted = np.asarray(model_says, dtype=np.float64)
        if fitted.shape != (panel.n_rows,):
            raise PanelMismatchError(f"expected one number per row ({panel.n_rows},), got {fitted.shape}")
    both = np.isfinite(fitted) & panel.observed
    error, total = 0.0, 0.0
    for p in range(panel.n_periods):
        rows = panel.index.rows(p)
        seen = both[rows]
        n = int(seen.sum())
        if n:
            z = np.asarray(panel.characteristics[rows][seen], dtype=np.float64)
            realised = panel.values[rows][seen]
            total += float(np.square(z.T @ realised / n).sum())
            error += float(np.square(z.T @ (realised - fitted[rows][seen]) / n).sum())
    return 1.0 - error / total if total > 0 else float("nan")


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class PureAlpha:
    """The portfolio that holds an instrumented model's mispricing and none of its factors.

    Attributes
    ----------
    index : rows of the panel
    weights : (R,) in units of Gamma_alpha, or scaled to `gross`; NaN in periods with too few rows
    returns : (T,) sum of weights times realised values, in the values' unit; NaN where nothing is realised
    exposures : (T, K) of the formed portfolio to the latent factors, zero up to rounding
    in_sample : (T,) periods of the training span
    n_unrealised : (T,) held assets without a realised value
    """

    index: RowIndex
    weights: FloatArray
    returns: FloatArray
    exposures: FloatArray
    in_sample: npt.NDArray[np.bool_]
    n_unrealised: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        freeze(self)

    def performance(
        self,
        factors: npt.ArrayLike | None = None,
        *,
        lags: int | None = None,
        periods_per_year: float = 1.0,
        out_of_sample: bool = True,
    ) -> dict[str, float]:
        """Mean, Sharpe ratio, alpha on observed factors (T, M), each with Newey-West t: `performance`.

        By default of the periods after training only; `out_of_sample=False` takes all periods.
        """
        kept = ~self.in_sample if out_of_sample else np.ones(self.returns.size, dtype=bool)
        given = None if factors is None else np.asarray(factors, dtype=np.float64)[kept]
        return performance(self.returns[kept], given, lags, periods_per_year)

    def frame(self, backend: str = "polars") -> Any:
        """One line per period: time, return, in_sample, n_unrealised."""
        columns = {"time": self.index.times, "return": self.returns, "in_sample": self.in_sample}
        return to_frame(columns | {"n_unrealised": self.n_unrealised}, backend)

    def __repr__(self) -> str:
        fresh = int((np.isfinite(self.returns) & ~self.in_sample).sum())
        return f"PureAlpha({np.isfinite(self.returns).sum()} periods, {fresh} of them after training)"


def pure_alpha(model: IPCAModel, panel: Panel, *, gross: float | None = None) -> PureAlpha:
    """Returns of w_p = Z_p (Z_p'Z_p)^-1 Gamma_alpha, held in period p and formed from what was known before.

    Parameters
    ----------
    model
        Fitted with `alpha=True`.
    panel
        Prepared like the training panel; later periods are out of sample.
    gross
        Scale every period's weights to this sum of absolute weights. None leaves them in the units of
        Gamma_alpha, in which the expected return is Gamma_alpha'Gamma_alpha.

    Returns
    -------
    PureAlpha

    Raises
    ------
    MissingCapabilityError
        A model without alpha.
    NotFittedError, PanelMismatchError
        As in `model.extract`.

    Notes
    -----
    Where a period's characteristics are collinear the weights are those of smallest norm. A held asset
    without a realised value contributes nothing and is counted.

    Examples
    --------
    >>> from latentfactors.models.ipca import IPCAConfig
    >>> from latentfactors.simulate import characteristic_panel
    >>> panel = characteristic_panel(n_periods=120, n_assets=80, n_factors=2, seed=3).panel
    >>> model = IPCAModel(IPCAConfig(n_factors=2, alpha=True))
    >>> _ = model.fit(panel.between(0, 90))
    >>> held = pure_alpha(model, panel)
    >>> held, bool(np.abs(held.exposures).max() < 1e-8)
    (PureAlpha(120 periods, 30 of them after training), True)
    """
    if gross is not None and not 0 < gross < np.inf:
        raise ConfigurationError(f"gross must be a positive number, got {gross!r}")
    state = model.extract(panel)
    estimates = model.estimates
    if estimates.gamma_alpha is None:
        raise MissingCapabilityError(
            "the pure-alpha portfolio needs a model with alpha: IPCAConfig(n_factors=..., alpha=True)"
        )
    assert panel.characteristics is not None  # extract has checked
    n_factors = estimates.gamma.shape[1]
    weights = np.full(panel.n_rows, np.nan)
    returns = np.full(panel.n_periods, np.nan)
    exposures = np.full((panel.n_periods, n_factors), np.nan)
    unrealised = np.zeros(panel.n_periods, dtype=np.int64)
    for p in range(panel.n_periods):
        rows = panel.index.rows(p)
        z = np.asarray(panel.characteristics[rows], dtype=np.float64)
        if model.config.intercept:
            z = np.column_stack([z, np.ones(len(z))])
        if len(z) < z.shape[1]:  # fewer assets than characteristics: factors cannot be hedged
            continue
        held = projection_weights(z, None, 0.0) @ estimates.gamma_alpha
        size = float(np.abs(held).sum())
        if gross is not None and size > 0:
            held = held * (gross / size)
        weights[rows] = held
        exposures[p] = held @ state.measurement.loadings.at(p)[:, :n_factors]
        seen = panel.observed[rows]
        unrealised[p] = int((~seen).sum())
        if seen.any():
            returns[p] = float(held[seen] @ panel.values[rows][seen])
    return PureAlpha(
        index=panel.index,
        weights=weights,
        returns=returns,
        exposures=exposures,
        in_sample=state.fit_span.covers(panel.times),
        n_unrealised=unrealised,
    )


def _of_same_rows(values: FloatArray, index: RowIndex, panel: Panel) -> FloatArray:
    same = (
        np.array_equal(index.times, panel.times)
        and np.array_equal(index.assets, panel.assets)
        and np.array_equal(index.offsets, panel.offsets)
        and np.array_equal(index.asset_codes, panel.asset_codes)
    )
    if not same:
        raise PanelMismatchError(
            f"the model speaks of other rows ({index.n_periods} periods, {index.n_rows} rows) than the panel "
            f"({panel.n_periods} periods, {panel.n_rows} rows): extract or predict on this panel"
        )
    return values
