"""B, S and D for skfolio: its optimisers, constraints and attribution on any structural model.

    skfolio_factor_model   the decomposition as skfolio's `FactorModel`: nothing dense but an idiosyncratic
    block
                           matrix where issuers share risk
    skfolio_prior          a prior estimator for `MeanRisk(prior_estimator=...)` and its relatives; skfolio's
                           `ReturnDistribution` holds the N x N covariance, so this is where it is formed

Needs the extra `portfolio` (skfolio 1.12 or later).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, MissingCapabilityError, PanelMismatchError
from latentfactors.risk.operator import CovarianceOperator
from latentfactors.risk.portfolios import Weights, over_universe

try:
    from skfolio.prior import (  # pyright: ignore[reportMissingImports]
        BasePrior,
        FactorModel,
        ReturnDistribution,
    )
except ImportError as error:
    raise MissingCapabilityError(
        "the export to skfolio needs skfolio, which is not installed: pip install 'latentfactors[portfolio]'"
    ) from error

__all__ = ["LatentFactorPrior", "skfolio_factor_model", "skfolio_prior"]

FloatArray = npt.NDArray[np.float64]


def skfolio_factor_model(
    covariance: CovarianceOperator,
    *,
    premia: npt.ArrayLike | None = None,
    factor_returns: npt.ArrayLike | None = None,
    observations: npt.NDArray[Any] | None = None,
) -> FactorModel:
    """A covariance as skfolio's `FactorModel`.

    Parameters
    ----------
    covariance
        From `RiskModel.at` or `latest`.
    premia : (K,), optional
        Expected factor returns, `FactorForecastResult.premia` of the period for instance; None: zeros.
    factor_returns : (T, K), optional
        Their history, for skfolio's plots.
    observations : (T,), optional
        Dates of that history.

    Raises
    ------
    ConfigurationError
        Premia or factor returns of another shape, or not finite.
    """
    k = covariance.n_factors
    mean = np.zeros(k) if premia is None else np.asarray(premia, dtype=np.float64)
    if mean.shape != (k,) or not np.isfinite(mean).all():
        raise ConfigurationError(f"premia must be finite and of shape ({k},), got shape {mean.shape}")
    history = None if factor_returns is None else np.asarray(factor_returns, dtype=np.float64)
    if history is not None and (history.ndim != 2 or history.shape[1] != k):
        raise ConfigurationError(f"factor_returns must have shape (T, {k}), got {history.shape}")
    if observations is None:
        observations = np.arange(0 if history is None else len(history))
    blocks = covariance.issuers is not None and covariance.issuer_correlation > 0
    return FactorModel(
        observations=observations,
        asset_names=np.array([str(label) for label in covariance.assets.tolist()], dtype=object),
        factor_names=np.array(covariance.factor_names, dtype=object),
        factor_families=np.array(covariance.family_of, dtype=object),
        loading_matrix=np.array(covariance.loadings),
        exposures=None,
        factor_covariance=np.array(covariance.factor_covariance),
        factor_mu=mean,
        factor_returns=history,
        idio_covariance=covariance.dense_specific() if blocks else np.array(covariance.specific_variance),
        idio_mu=None,
        idio_returns=None,
        idio_variances=None,
    )


def skfolio_prior(
    covariance: CovarianceOperator,
    *,
    expected_returns: Weights | None = None,
    premia: npt.ArrayLike | None = None,
) -> LatentFactorPrior:
    """A prior estimator that gives skfolio this covariance, whatever returns it is fitted on.

    Parameters
    ----------
    covariance
        From `RiskModel.at` or `latest`.
    expected_returns
        Asset -> expected return, or an array in the order of the state's assets, from a forecaster; None: B
        premia.
    premia : (K,), optional
        Expected factor returns; None: zeros.

    Returns
    -------
    LatentFactorPrior
        For `prior_estimator=`. The returns that skfolio is fitted on must have this covariance's assets as
        their columns, in any order if they are named, in this order if not.
    """
    model = skfolio_factor_model(covariance, premia=premia)
    mu = covariance.loadings @ model.factor_mu
    if expected_returns is not None:
        universe = covariance.assets if covariance.universe is None else covariance.universe
        place = {label: i for i, label in enumerate(universe.tolist())}
        every = over_universe(expected_returns, universe, "expected_returns")
        mu = every[[place[label] for label in covariance.assets.tolist()]]
    return LatentFactorPrior(factor_model=model, mu=mu)


class LatentFactorPrior(BasePrior):
    """skfolio's prior from a fixed factor model; build it with `skfolio_prior`.

    Parameters
    ----------
    factor_model
        skfolio's `FactorModel`.
    mu : (N,)
        Expected returns in its order of assets.

    Attributes
    ----------
    return_distribution_
        skfolio's `ReturnDistribution`; its scenarios are the returns it was fitted on.
    """

    def __init__(self, factor_model: FactorModel, mu: FloatArray) -> None:
        self.factor_model = factor_model
        self.mu = mu

    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> LatentFactorPrior:
        """Take over the factor model for the columns of X (T, N).

        Raises
        ------
        PanelMismatchError
            Columns that are not the factor model's assets.
        """
        known = [str(label) for label in self.factor_model.asset_names]
        returns = np.asarray(X, dtype=np.float64)
        if hasattr(X, "columns"):
            place = {label: i for i, label in enumerate(known)}
            columns = [str(label) for label in X.columns]
            other = sorted(set(columns) ^ set(known))
            if other:
                raise PanelMismatchError(
                    f"returns and factor model have {len(other)} assets that are not in both: "
                    f"{', '.join(other[:5])}; select the covariance's assets first"
                )
            order = np.array([place[label] for label in columns])
            self.feature_names_in_ = np.array(columns, dtype=object)
        elif returns.ndim == 2 and returns.shape[1] == len(known):
            order = np.arange(len(known))
        else:
            raise PanelMismatchError(
                f"returns must have one column for each of {len(known)} assets, got shape {returns.shape}"
            )
        same = np.array_equal(order, np.arange(len(known)))
        model = self.factor_model if same else self.factor_model.select_assets(order)
        specific = model.idio_covariance
        covariance = model.loading_matrix @ model.factor_covariance @ model.loading_matrix.T
        covariance = (covariance + covariance.T) / 2 + (np.diag(specific) if specific.ndim == 1 else specific)
        self.n_features_in_ = len(known)
        self.return_distribution_ = ReturnDistribution(
            mu=np.asarray(self.mu)[order], covariance=covariance, returns=returns, factor_model=model
        )
        return self
