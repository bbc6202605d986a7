"""Tests of equal forecast accuracy, on the difference of two forecasts' losses.

Loss             d_t = L(y_t, a_t) - L(y_t, b_t); losses of a panel are averaged over the assets of t first
Diebold-Mariano  DM = mean(d) / sqrt(V), V Newey-West; in small samples DM sqrt((T + 1 - 2h + h(h - 1)/T)/T)
                 against t(T - 1)
Clark-West       nested models, benchmark a inside b: f_t = (y - a)^2 - [(y - b)^2 - (a - b)^2], mean(f)
                 against 0 from above; (a - b)^2 gives back what b pays for parameters that are zero under
                 the null
Giacomini-White  does z_(t-h) = (1, d_(t-h)) foretell d_t? T zbar' V^-1 zbar ~ chi^2(2), z_t = z_(t-h) d_t

Only periods in which everything is observed enter; the lags count these periods.

References: Diebold & Mariano (1995), JBES 13(3); Harvey, Leybourne & Newbold (1997), IJF 13(2); Clark & West
(2007), JoE 138(1); Giacomini & White (2006), Econometrica 74(6); Gu, Kelly & Xiu (2020), RFS 33(5) (panels).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.estimator import at_least
from latentfactors.kernels.newey_west import long_run_sum

__all__ = ["EqualAccuracyTest", "clark_west", "diebold_mariano", "equal_accuracy", "giacomini_white"]

FloatArray = npt.NDArray[np.float64]
Loss = Literal["squared", "absolute"]


@dataclass(frozen=True, kw_only=True)
class EqualAccuracyTest:
    """A test of equal forecast accuracy.

    Attributes
    ----------
    statistic, p_value
        Negative statistics speak for the first forecast in `diebold_mariano`, positive ones for the larger
        model in `clark_west`; `giacomini_white` has a chi-squared statistic.
    mean_difference
        Mean of the loss difference first less second (Clark-West: adjusted).
    loss_ratio
        Mean loss of the first over that of the second.
    n_periods, lags
        Periods used, Newey-West lags.
    """

    statistic: float
    p_value: float
    mean_difference: float
    loss_ratio: float
    n_periods: int
    lags: int


def diebold_mariano(
    realised: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    horizon: int = 1,
    loss: Loss = "squared",
    lags: int | None = None,
    small_sample: bool = True,
) -> EqualAccuracyTest:
    """Test that two forecasts have the same expected loss, two-sided.

    Not for nested models, whose difference has no normal limit: `clark_west`.

    Parameters
    ----------
    realised, first, second : (T,) or (T, N)
        Of a panel, losses are averaged over the assets of a period where all three are observed, because
        errors of one period are correlated (Gu, Kelly & Xiu).
    horizon
        h, periods ahead.
    loss
        Squared or absolute error.
    lags
        Of the Newey-West variance; None: max(h - 1, ceil(T^(1/3))).
    small_sample
        Whether to correct for short samples (Harvey, Leybourne & Newbold).

    Returns
    -------
    EqualAccuracyTest
        A negative statistic: the first forecast was better.

    Raises
    ------
    ConfigurationError
        Shapes that do not fit, an unknown loss.
    InsufficientDataError
        Fewer than h + 2 periods, or loss differences that do not vary (the same forecast twice).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = rng.normal(size=300)
    >>> test = diebold_mariano(y, 0.5 * y, 0.2 * y)
    >>> test.statistic < -5, test.loss_ratio < 1
    (True, True)
    """
    return equal_accuracy(
        _losses(loss, realised, first, second), horizon=horizon, lags=lags, small_sample=small_sample
    )


def equal_accuracy(
    losses: FloatArray, *, horizon: int = 1, lags: int | None = None, small_sample: bool = True
) -> EqualAccuracyTest:
    """Diebold-Mariano of losses by period (T, 2), finite; the rest as in `diebold_mariano`."""
    difference = losses[:, 0] - losses[:, 1]
    chosen = _check_span(difference, horizon, lags)
    n = len(difference)
    statistic = float(difference.mean()) / np.sqrt(_mean_variance(difference, chosen))
    if small_sample:
        statistic *= np.sqrt(max(n + 1 - 2 * horizon + horizon * (horizon - 1) / n, 0.0) / n)
    return EqualAccuracyTest(
        statistic=float(statistic),
        p_value=2.0
        * (_student_tail(abs(statistic), n - 1) if small_sample else _normal_tail(abs(statistic))),
        mean_difference=float(difference.mean()),
        loss_ratio=_loss_ratio(losses),
        n_periods=n,
        lags=chosen,
    )


def clark_west(
    realised: npt.ArrayLike,
    benchmark: npt.ArrayLike,
    larger: npt.ArrayLike,
    *,
    horizon: int = 1,
    lags: int | None = None,
) -> EqualAccuracyTest:
    """Test that a larger model adds nothing to the benchmark nested in it, one-sided.

    Parameters
    ----------
    realised, benchmark, larger : (T,) or (T, N)
        As in `diebold_mariano`; squared errors.
    horizon, lags
        As in `diebold_mariano`.

    Returns
    -------
    EqualAccuracyTest
        A large statistic: the larger model forecasts better. `loss_ratio` is benchmark over larger,
        unadjusted.

    Raises
    ------
    ConfigurationError, InsufficientDataError
        As in `diebold_mariano`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> signal = rng.normal(size=300)
    >>> clark_west(signal + rng.normal(size=300), np.zeros(300), signal).p_value < 0.001
    True
    """
    y, a, b = _tables(realised, benchmark, larger)
    adjusted = _by_period((y - a) ** 2 - (y - b) ** 2 + (a - b) ** 2)
    chosen = _check_span(adjusted, horizon, lags)
    statistic = float(adjusted.mean()) / np.sqrt(_mean_variance(adjusted, chosen))
    return EqualAccuracyTest(
        statistic=float(statistic),
        p_value=_normal_tail(statistic),
        mean_difference=float(adjusted.mean()),
        loss_ratio=_loss_ratio(_losses("squared", realised, benchmark, larger)),
        n_periods=len(adjusted),
        lags=chosen,
    )


def giacomini_white(
    realised: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    *,
    horizon: int = 1,
    loss: Loss = "squared",
) -> EqualAccuracyTest:
    """Test of equal accuracy given the last loss difference known: could one have chosen the better one.

    Rolling windows of fixed length are assumed, for then estimation error is part of what is compared.

    Parameters
    ----------
    realised, first, second, horizon, loss
        As in `diebold_mariano`. The variance has horizon - 1 lags.

    Raises
    ------
    ConfigurationError, InsufficientDataError
        As in `diebold_mariano`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> giacomini_white(*rng.normal(size=(3, 200))).p_value > 0.01
    True
    """
    from scipy.special import chdtrc  # the chi-squared tail; scipy.stats takes much longer to load

    losses = _losses(loss, realised, first, second)
    difference = losses[:, 0] - losses[:, 1]
    _check_span(difference, horizon, 0)
    known = np.column_stack([np.ones(len(difference) - horizon), difference[:-horizon]])
    scores = known / np.sqrt(np.square(known).mean(axis=0)) * difference[horizon:, None]
    n = len(scores)
    variance = long_run_sum(scores, horizon - 1) / n
    mean = scores.mean(axis=0)
    if n < 4 or np.linalg.cond(variance) > 1e12:
        raise InsufficientDataError(
            f"{n} loss differences say nothing about their own past: use more periods"
        )
    statistic = float(n * mean @ np.linalg.solve(variance, mean))
    return EqualAccuracyTest(
        statistic=statistic,
        p_value=float(chdtrc(2, statistic)),
        mean_difference=float(difference.mean()),
        loss_ratio=_loss_ratio(losses),
        n_periods=n,
        lags=horizon - 1,
    )


# ----------------------------------------------------------------------------- the parts


def _tables(*arrays: npt.ArrayLike) -> list[FloatArray]:
    """The arguments as (T, N) with NaN wherever one of them is missing."""
    tables = [np.asarray(array, dtype=np.float64) for array in arrays]
    shapes = {table.shape for table in tables}
    if len(shapes) > 1 or tables[0].ndim not in (1, 2):
        got = ", ".join(str(table.shape) for table in tables)
        raise ConfigurationError(f"expected arrays (T,) or (T, N) of one shape, got {got}")
    tables = [table.reshape(len(table), -1) for table in tables]
    seen = np.logical_and.reduce([np.isfinite(table) for table in tables])
    return [np.where(seen, table, np.nan) for table in tables]


def _by_period(cells: FloatArray) -> FloatArray:
    """Mean over the observed cells (T, N) of each period that has any: (n,)."""
    observed = np.isfinite(cells)
    n = observed.sum(axis=1)
    return np.where(observed, cells, 0.0).sum(axis=1)[n > 0] / n[n > 0]


def _losses(loss: Any, realised: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike) -> FloatArray:
    """(n, 2) losses by period."""
    if loss not in ("squared", "absolute"):
        raise ConfigurationError(f"loss must be 'squared' or 'absolute', got {loss!r}")
    y, a, b = _tables(realised, first, second)
    measure = np.square if loss == "squared" else np.abs
    return np.column_stack([_by_period(measure(y - a)), _by_period(measure(y - b))])


def _loss_ratio(losses: FloatArray) -> float:
    first, second = losses.mean(axis=0)
    return float(first / second) if second > 0 else float("inf")


def _check_span(series: FloatArray, horizon: Any, lags: int | None) -> int:
    """Lags to use, after refusing series too short or without variation."""
    at_least("horizon", horizon, 1)
    if lags is not None:
        at_least("lags", lags, 0)
    n = len(series)
    if n < horizon + 2:
        raise InsufficientDataError(
            f"a comparison at horizon {horizon} needs {horizon + 2} complete periods, got {n}"
        )
    if np.ptp(series) <= 1e-14 * np.abs(series).max():
        raise InsufficientDataError("the loss difference never varies: is it the same forecast twice?")
    chosen = max(horizon - 1, int(np.ceil(n ** (1 / 3) - 1e-9))) if lags is None else int(lags)
    return min(chosen, n - 1)


def _mean_variance(series: FloatArray, lags: int) -> float:
    """Newey-West variance of the mean."""
    centred = (series - series.mean())[:, None]
    return float(long_run_sum(centred, lags)[0, 0]) / len(series) ** 2


def _normal_tail(statistic: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(-statistic))


def _student_tail(statistic: float, freedom: int) -> float:
    from scipy.special import stdtr

    return float(stdtr(freedom, -statistic))
