"""Transformations of macroeconomic series to stationarity, and the way back to levels.

| code | name                    | y_t                                        | past levels for the way back |
|------|-------------------------|--------------------------------------------|------------------------------|
| 1    | `level`                 | x_t                                        | 0                            |
| 2    | `difference`            | x_t - x_(t-1)                              | 1                            |
| 3    | `second_difference`     | (x_t - x_(t-1)) - (x_(t-1) - x_(t-2))      | 2                            |
| 4    | `log`                   | log x_t                                    | 0                            |
| 5    | `log_difference`        | log x_t - log x_(t-1)                      | 1                            |
| 6    | `log_second_difference` | second difference of log x_t               | 2                            |
| 7    | `growth_change`         | x_t/x_(t-1) - x_(t-1)/x_(t-2)              | 2                            |
| -    | `seasonal_change`       | (1 - L)(1 - L^12) x_t                      | 13                           |
| -    | `log_seasonal_change`   | (1 - L)(1 - L^12) log x_t                  | 13                           |

Codes are those of FRED-MD and FRED-QD. The last two are what some papers (Andreini, Izzo & Ricco) print under
the codes 3 and 6; they have names only, so that a code means one thing here.

Time is the first axis; every function takes (T,) or (T, ...) arrays. NaN is missing: a difference over a gap
is missing too, never a difference over two periods.

References: McCracken & Ng (2016), JBES 34(4), 574-589, appendix (codes), section 2 (outliers); McCracken & Ng
(2021), Federal Reserve Bank of St. Louis Review 103(1) (FRED-QD); Andreini, Izzo & Ricco (2020), Deep Dynamic
Factor Models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.periods import first_offenders

__all__ = [
    "OFFICIAL_CODES",
    "Transformation",
    "annualised_rate",
    "find_outliers",
    "inverse_transform",
    "past_levels_needed",
    "transform_columns",
    "transform_series",
    "transformation_named",
    "year_on_year",
]

FloatArray = npt.NDArray[np.float64]
Transformation = Literal[
    "level",
    "difference",
    "second_difference",
    "log",
    "log_difference",
    "log_second_difference",
    "growth_change",
    "seasonal_change",
    "log_seasonal_change",
]
OFFICIAL_CODES: dict[int, Transformation] = dict(zip(range(1, 8), get_args(Transformation), strict=False))


@dataclass(frozen=True)
class _Rule:
    """y_t = sum_l weights[l] g(x_(t-l)) with g the logarithm or nothing."""

    weights: tuple[float, ...]
    logs: bool = False


def _seasonal(months: int) -> tuple[float, ...]:
    """Coefficients of (1 - L)(1 - L^months)."""
    return (1.0, -1.0, *(0.0,) * (months - 2), -1.0, 1.0)


_RULES: dict[Transformation, _Rule] = {
    "level": _Rule((1.0,)),
    "difference": _Rule((1.0, -1.0)),
    "second_difference": _Rule((1.0, -2.0, 1.0)),
    "log": _Rule((1.0,), logs=True),
    "log_difference": _Rule((1.0, -1.0), logs=True),
    "log_second_difference": _Rule((1.0, -2.0, 1.0), logs=True),
    "seasonal_change": _Rule(_seasonal(12)),
    "log_seasonal_change": _Rule(_seasonal(12), logs=True),
}


def transformation_named(code: Transformation | int | str) -> Transformation:
    """The transformation that an official code (5, "5") or a name stands for.

    Raises
    ------
    ConfigurationError
        Anything else.

    Examples
    --------
    >>> transformation_named(5), transformation_named("second_difference")
    ('log_difference', 'second_difference')
    """
    if isinstance(code, int | np.integer | float) and not isinstance(code, bool) and code in OFFICIAL_CODES:
        return OFFICIAL_CODES[int(code)]
    if isinstance(code, str):
        for name in get_args(Transformation):
            if code == name:
                return name
        if code in map(str, OFFICIAL_CODES):
            return OFFICIAL_CODES[int(code)]
    raise ConfigurationError(
        f"a transformation is a code 1..7 or one of {', '.join(get_args(Transformation))}, got {code!r}"
    )


def past_levels_needed(code: Transformation | int | str) -> int:
    """Levels before the first change that the way back needs; also the periods lost at the start.

    >>> [past_levels_needed(code) for code in range(1, 8)]
    [0, 1, 2, 0, 1, 2, 2]
    """
    name = transformation_named(code)
    return 2 if name == "growth_change" else len(_RULES[name].weights) - 1


def transform_series(levels: npt.ArrayLike, code: Transformation | int | str) -> FloatArray:
    """Transform levels by an official code or by name.

    Parameters
    ----------
    levels : (T, ...)
        NaN where missing.
    code
        1..7, or a name of the module's table.

    Returns
    -------
    (T, ...)
        NaN where any level it takes is missing, so also in the first periods.

    Raises
    ------
    ConfigurationError
        An unknown code.
    PanelError
        A logarithm of a level that is not positive, a growth rate from zero, an infinite level.

    Examples
    --------
    >>> transform_series([1.0, 2.0, 4.0, np.nan, 9.0, 12.0], 2)
    array([nan,  1.,  2., nan, nan,  3.])
    >>> transform_series([1.0, 2.0, 6.0], "growth_change")  # 6/2 - 2/1
    array([nan, nan,  1.])
    """
    name, x = transformation_named(code), _levels(levels)
    if name == "growth_change":
        if np.any(x[:-1] == 0):
            raise PanelError("a growth rate from a level of 0 is undefined: use code 2 or mask these levels")
        growth = np.full_like(x, np.nan)
        growth[1:] = x[1:] / x[:-1] - 1.0
        return _lag_sum(growth, (1.0, -1.0))
    rule = _RULES[name]
    return _lag_sum(_logs(x, name) if rule.logs else x, rule.weights)


def transform_columns(
    levels: npt.ArrayLike, codes: Sequence[Transformation | int | str], names: Sequence[str] = ()
) -> FloatArray:
    """Transform every column of a table by its own code.

    Parameters
    ----------
    levels : (T, N)
    codes
        N codes or names.
    names
        N labels for messages.

    Returns
    -------
    (T, N)

    Raises
    ------
    ConfigurationError, PanelError
        As in `transform_series`, naming the column; another number of codes than columns.
    """
    x = np.asarray(levels, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != len(codes):
        raise ConfigurationError(f"expected a (T, N) table and N codes, got {x.shape} and {len(codes)}")
    out = np.empty_like(x)
    for j, code in enumerate(codes):
        try:
            out[:, j] = transform_series(x[:, j], code)
        except (ConfigurationError, PanelError) as error:
            raise type(error)(f"series {names[j] if len(names) else j!r}: {error}") from None
    return out


def inverse_transform(
    changes: npt.ArrayLike, code: Transformation | int | str, past_levels: npt.ArrayLike = ()
) -> FloatArray:
    """Levels behind transformed values, given the levels that came before them.

    Parameters
    ----------
    changes : (H, ...)
        Transformed values of H periods in succession. A trailing axis may hold draws of a density, which then
        become draws of levels.
    code
        As in `transform_series`.
    past_levels : (>= n,) or (>= n, ...)
        Levels up to the period before the first change, the last `past_levels_needed(code)` of which are
        used; the same for all trailing entries if one-dimensional.

    Returns
    -------
    (H, ...) levels; NaN from the first missing change on, where the code accumulates changes.

    Raises
    ------
    ConfigurationError
        Too few past levels, or shapes that do not fit.
    PanelError
        Past levels that are missing, or not positive where their logarithm is needed.

    Examples
    --------
    >>> levels = np.array([100.0, 102.0, 101.0, 105.0])
    >>> back = inverse_transform(transform_series(levels, 5)[1:], 5, levels[:1])
    >>> bool(np.allclose(back, levels[1:]))
    True
    """
    name, y = transformation_named(code), np.asarray(changes, dtype=np.float64)
    if y.ndim == 0:
        raise ConfigurationError(f"changes must be (H, ...) with time first, got the single number {y}")
    past = _past(past_levels, past_levels_needed(name), y, name)
    if name == "growth_change":
        return _levels_from_growth_changes(y, past)
    rule = _RULES[name]
    n = len(rule.weights) - 1
    whole = np.concatenate([_logs(past, name) if rule.logs else past, y])
    for t in range(n, len(whole)):
        for lag in range(1, n + 1):
            if rule.weights[lag]:
                whole[t] = whole[t] - rule.weights[lag] * whole[t - lag]
    return np.exp(whole[n:]) if rule.logs else whole[n:]


def year_on_year(levels: npt.ArrayLike, periods_per_year: int) -> FloatArray:
    """Growth over the same period of the year before, x_t / x_(t-s) - 1, as a decimal.

    Parameters
    ----------
    levels : (T, ...)
    periods_per_year
        s: 12 for months, 4 for quarters.

    >>> year_on_year([100.0, 101.0, 102.0, 103.0, 104.0], 4).round(4)
    array([ nan,  nan,  nan,  nan, 0.04])
    """
    x, s = _levels(levels), _whole(periods_per_year)
    out = np.full_like(x, np.nan)
    out[s:] = _ratios(x[s:], x[:-s]) - 1.0
    return out


def annualised_rate(levels: npt.ArrayLike, periods_per_year: int, *, periods: int = 1) -> FloatArray:
    """Growth over `periods` periods at an annual rate, (x_t / x_(t-m))^(s/m) - 1, as a decimal.

    Parameters
    ----------
    levels : (T, ...)
    periods_per_year
        s: 12 for months, 4 for quarters.
    periods
        m: 1 for the change on the previous period, 3 for three-month rates of monthly data.

    >>> annualised_rate([100.0, 101.0], 4).round(4)
    array([   nan, 0.0406])
    """
    x, s, m = _levels(levels), _whole(periods_per_year), _whole(periods)
    out = np.full_like(x, np.nan)
    out[m:] = _ratios(x[m:], x[:-m]) ** (s / m) - 1.0
    return out


def find_outliers(values: npt.ArrayLike, threshold: float = 10.0) -> npt.NDArray[np.bool_]:
    """Cells farther from their series' median than `threshold` interquartile ranges: |x - median| > 10 IQR.

    Median and quartiles come from the whole span, so the rule knows the future of the span it is given: in a
    real-time study apply it to every vintage or training window anew.

    Parameters
    ----------
    values : (T, ...)
        Transformed values, NaN where missing.
    threshold
        > 0.

    Returns
    -------
    (T, ...) bool
        False where missing, and in a series whose interquartile range is zero: it has no scale to judge by.

    Examples
    --------
    >>> np.flatnonzero(find_outliers([0.0, 1.0, 2.0, 3.0, 40.0, np.nan]))
    array([4])
    """
    if isinstance(threshold, bool) or not 0 < threshold < np.inf:
        raise ConfigurationError(f"threshold must be a finite number > 0, got {threshold!r}")
    x = _levels(values)
    columns = x.reshape(len(x), -1)
    found = np.zeros(columns.shape, dtype=bool)
    for j, column in enumerate(columns.T):
        seen = column[np.isfinite(column)]
        if seen.size:
            low, middle, high = np.percentile(seen, [25, 50, 75])
            found[:, j] = (np.abs(column - middle) > threshold * (high - low)) & (high > low)
    return found.reshape(x.shape)


# ------------------------------------------------------------------------------------------- the parts


def _levels(values: npt.ArrayLike) -> FloatArray:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim == 0:
        raise ConfigurationError(f"expected (T, ...) values with time first, got the single number {x}")
    if np.isinf(x).any():
        raise PanelError("levels must be finite or NaN, got an infinity")
    return x


def _lag_sum(x: FloatArray, weights: Sequence[float]) -> FloatArray:
    """sum_l weights[l] x_(t-l); NaN in the first periods and wherever a term is."""
    n = len(weights) - 1
    out = np.full_like(x, np.nan)
    total = weights[0] * x[n:]
    for lag in range(1, n + 1):
        if weights[lag]:
            total = total + weights[lag] * x[n - lag : len(x) - lag]
    out[n:] = total
    return out


def _logs(x: FloatArray, name: str) -> FloatArray:
    if np.any(x <= 0):
        t = int(np.argwhere(x <= 0)[0][0])
        raise PanelError(
            f"{name} needs positive levels, got {x[x <= 0].flat[0]:g} in period {t}: use a code without "
            "logarithm, or mask these levels"
        )
    return np.log(x)


def _past(levels: npt.ArrayLike, needed: int, changes: FloatArray, name: str) -> FloatArray:
    """(needed, ...) the last past levels, broadcast to the trailing axes of the changes."""
    given = np.asarray(levels, dtype=np.float64)
    if given.ndim == 0 or len(given) < needed:
        raise ConfigurationError(
            f"{name} needs {needed} past levels to go back, got {0 if given.ndim == 0 else len(given)}"
        )
    given = given[len(given) - needed :]
    if given.ndim == 1:
        given = given.reshape(needed, *(1,) * (changes.ndim - 1))
    try:
        given = np.broadcast_to(given, (needed, *changes.shape[1:]))
    except ValueError:
        raise ConfigurationError(
            f"past levels {given.shape} do not fit changes {changes.shape}: give (n,) or the trailing shape"
        ) from None
    if not np.isfinite(given).all():
        missing = first_offenders(np.argwhere(~np.isfinite(given))[:, 0])
        raise PanelError(f"{name} needs its {needed} past levels observed, missing at position {missing}")
    return given


def _levels_from_growth_changes(changes: FloatArray, past: FloatArray) -> FloatArray:
    """x_t = x_(t-1) (x_(t-1)/x_(t-2) + y_t)."""
    if np.any(past == 0):
        raise PanelError("a growth rate from a level of 0 is undefined: past levels must not be 0")
    level, ratio = past[1], past[1] / past[0]
    out = np.empty_like(changes)
    for t, change in enumerate(changes):
        ratio = ratio + change
        level = level * ratio
        out[t] = level
    return out


def _ratios(new: FloatArray, old: FloatArray) -> FloatArray:
    if np.any(new <= 0) or np.any(old <= 0):
        raise PanelError("growth rates need positive levels: use differences of this series instead")
    return new / old


def _whole(number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
        raise ConfigurationError(f"a number of periods must be a whole number >= 1, got {number!r}")
    return int(number)
