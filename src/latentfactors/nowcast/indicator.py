"""One line for the state of the economy out of several factors.

Printed form     CI_t = sum_k f_kt ||F_k||^2 / ||F||_F^2. It depends on rotation, scale and signs of the
                 factors, and standardising them does not cure it
Invariant form   the first principal component of the common component C = F Lambda': the same whatever
                 rotation, scale and signs the factors have
Sign             that of a named series' common component
Scale            mean 0, standard deviation 1 over the periods with factors

References: Andreini, Izzo & Ricco (2020), Deep Dynamic Factor Models, eq. (29).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError, PanelMismatchError
from latentfactors.estimator import freeze
from latentfactors.periods import first_offenders
from latentfactors.state import LatentFactorState, StaticLoadings

__all__ = ["CompositeIndicator", "composite_indicator", "invariant_indicator", "printed_indicator"]

FloatArray = npt.NDArray[np.float64]
Form = Literal["invariant", "printed"]


@dataclass(frozen=True, eq=False, kw_only=True)
class CompositeIndicator:
    """An indicator of mean 0 and standard deviation 1.

    Attributes
    ----------
    times : (T,)
    values : (T,) NaN where factors are
    form : which of the two
    sign_series : the series that it moves with
    share : part of the common component's variance that it explains; NaN for the printed form
    """

    times: npt.NDArray[Any]
    values: FloatArray
    form: Form
    sign_series: Any
    share: float

    def __post_init__(self) -> None:
        freeze(self)


def composite_indicator(
    state: LatentFactorState, sign_series: Any, *, form: Form = "invariant"
) -> CompositeIndicator:
    """The composite indicator of a state with loadings that do not change.

    Parameters
    ----------
    state
        From `extract` (real time) or `smooth` (description).
    sign_series
        Label of a series with loadings; the indicator moves with its common component.
    form
        "invariant", or "printed" as in the paper.

    Raises
    ------
    ConfigurationError
        An unknown form, loadings that change over time.
    PanelMismatchError
        A sign series without loadings.
    InsufficientDataError
        Fewer than two periods with factors, or factors that never move.
    """
    if form not in get_args(Form):
        raise ConfigurationError(f"form must be one of {get_args(Form)}, got {form!r}")
    loadings = state.measurement.loadings
    if not isinstance(loadings, StaticLoadings):
        raise ConfigurationError("a composite indicator needs loadings that do not change over time")
    known = np.isfinite(loadings.values).all(axis=1)
    labels = state.index.assets[known].tolist()
    if sign_series not in labels:
        raise PanelMismatchError(
            f"{sign_series!r} has no loadings, {first_offenders(map(repr, labels))} have: name one of these"
        )
    rows = np.isfinite(state.factor_returns).all(axis=1)
    factors, matrix = state.factor_returns[rows], loadings.values[known]
    if rows.sum() < 2 or not np.ptp(factors, axis=0).any():
        raise InsufficientDataError("an indicator needs two periods or more in which factors move")
    share = np.nan
    if form == "invariant":
        raw, share = invariant_indicator(factors, matrix)
    else:
        raw = printed_indicator(factors)
    raw = raw - raw.mean()
    sign = np.sign(raw @ (factors @ matrix[labels.index(sign_series)])) or 1.0
    values = np.full(rows.size, np.nan)
    values[rows] = sign * raw / raw.std()
    return CompositeIndicator(
        times=state.timestamps, values=values, form=form, sign_series=sign_series, share=float(share)
    )


def printed_indicator(factors: FloatArray) -> FloatArray:
    """CI_t = sum_k f_kt ||F_k||^2 / ||F||_F^2 of factors (T, K), eq. (29) as printed."""
    squares = (factors**2).sum(axis=0)
    return factors @ (squares / squares.sum())


def invariant_indicator(factors: FloatArray, loadings: FloatArray) -> tuple[FloatArray, float]:
    """First principal component (T,) of the centred common component F Lambda', and its share of variance.

    The component is F L u with L L' = Lambda'Lambda and u the first right singular vector of F L: nothing of
    size T x N is built.
    """
    centred = factors - factors.mean(axis=0)
    values, vectors = np.linalg.eigh(loadings.T @ loadings)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    left, singular, _ = np.linalg.svd(centred @ root, full_matrices=False)
    total = float((singular**2).sum())
    return left[:, 0] * singular[0], float(singular[0] ** 2 / total) if total > 0 else np.nan
