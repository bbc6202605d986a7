"""Which factors attain the higher Sharpe ratio? Models compared without test assets.

Ratio            Sh^2 = mu'W^-1 mu of traded factors f with mean mu and covariance W (1/T). Of two models
                 the one with the higher ratio prices all assets, the other's factors among them, better
Not nested       sqrt(T)(Sh_A^2 - Sh_B^2) is normal, with the variance of
                 2(u_A - u_B) - (u_A^2 - u_B^2) + Sh_A^2 - Sh_B^2,   u_t = mu'W^-1 (f_t - mu)
Nested           GRS of the larger model's other factors on the smaller model, exact for normal errors
Bias             Sh^2 is biased upwards; (T - K - 2)/T Sh^2 - K/T is not, for normal factors

Two models that share factors and differ only in factors that add nothing have equal ratios for a reason the
normal law does not know: look at the nested tests on what they share first.

References: Barillas & Shanken (2017), RFS 30(4); Barillas, Kan, Robotti & Shanken (2020), JFQA 55(6), the law
and the bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.estimator import freeze
from latentfactors.evaluate.pricing_tests import grs_test
from latentfactors.frames import to_frame
from latentfactors.kernels.newey_west import long_run_sum
from latentfactors.kernels.quadratic_forms import inverse_quadratic

__all__ = ["SharpeComparison", "compare_sharpe"]

FloatArray = npt.NDArray[np.float64]
_SAME = 1e-8


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class SharpeComparison:
    """Squared Sharpe ratios of models' factors and tests of their differences.

    Attributes
    ----------
    names : of the M models
    squared : (M,) Sh^2 per period, divisor T
    adjusted : (M,) without the upward bias; may be negative
    differences : (M, M) squared[i] - squared[j]
    p_values : (M, M) of equal ratios, two-sided; NaN on the diagonal and for models of the same span
    nested : (M, M) whether j's factors are combinations of i's: then the p-value is that of GRS
    n_factors : (M,)
    n_periods, n_incomplete : periods that all models have, and those left out
    """

    names: tuple[str, ...]
    squared: FloatArray
    adjusted: FloatArray
    differences: FloatArray
    p_values: FloatArray
    nested: npt.NDArray[np.bool_]
    n_factors: npt.NDArray[np.int64]
    n_periods: int
    n_incomplete: int

    def __post_init__(self) -> None:
        freeze(self)

    def frame(self, backend: str = "polars") -> Any:
        """One line per model: model, n_factors, squared, adjusted, p of equality with each other one."""
        columns: dict[str, Any] = {"model": np.array(self.names), "n_factors": self.n_factors}
        columns |= {"squared": self.squared, "adjusted": self.adjusted}
        columns |= {f"p against {name}": self.p_values[:, j] for j, name in enumerate(self.names)}
        return to_frame(columns, backend)

    def __repr__(self) -> str:
        each = ", ".join(f"{name} {s:.4f}" for name, s in zip(self.names, self.squared, strict=True))
        return f"SharpeComparison(squared Sharpe ratio per period: {each}; T = {self.n_periods})"


def compare_sharpe(models: Mapping[str, npt.ArrayLike], *, lags: int = 0) -> SharpeComparison:
    """Compare sets of traded factors by the squared Sharpe ratio they attain, over their common periods.

    Parameters
    ----------
    models
        Name -> (T, K) excess returns or spreads, over the same periods.
    lags
        Newey-West lags of the differences' variance; 0: returns without memory.

    Returns
    -------
    SharpeComparison

    Raises
    ------
    ConfigurationError, InsufficientDataError
        No model, different lengths; too few complete periods, collinear factors.

    Examples
    --------
    >>> f = [0.3, 0.2, 0.0] + np.random.default_rng(0).normal(size=(600, 3))
    >>> found = compare_sharpe({"one": f[:, :1], "both": f[:, :2], "noise": f[:, 2:]})
    >>> found.nested[1].tolist(), bool(found.p_values[1, 0] < 0.05), bool(found.p_values[1, 2] < 0.01)
    ([True, True, False], True, True)
    """
    arrays = {name: np.asarray(each, dtype=np.float64) for name, each in models.items()}
    arrays = {name: each[:, None] if each.ndim == 1 else each for name, each in arrays.items()}
    if not arrays or any(each.ndim != 2 or not each.shape[1] for each in arrays.values()):
        raise ConfigurationError(
            f"expected name -> (T, K) factors of at least one model, got "
            f"{ {name: np.shape(each) for name, each in models.items()} }"
        )
    if len({len(each) for each in arrays.values()}) > 1:
        raise ConfigurationError(
            f"models must cover the same periods, got lengths { {k: len(v) for k, v in arrays.items()} }"
        )
    if isinstance(lags, bool) or not isinstance(lags, int) or lags < 0:
        raise ConfigurationError(f"lags must be a whole number >= 0, got {lags!r}")
    known = np.all([np.isfinite(each).all(axis=1) for each in arrays.values()], axis=0)
    factors = {name: each[known] for name, each in arrays.items()}
    n_periods = int(known.sum())
    for name, each in factors.items():
        if n_periods <= each.shape[1] + 2:
            raise InsufficientDataError(f"{n_periods} common periods are too few for the factors of {name!r}")
    found = [_attained(each, f"factors of {name!r} are collinear") for name, each in factors.items()]
    squared, paths = np.array([each[0] for each in found]), [each[1] for each in found]
    counts = np.array([each.shape[1] for each in factors.values()], dtype=np.int64)
    n_models, sets = len(factors), list(factors.values())
    nested = np.array([[_spans(big, small) for small in sets] for big in sets])
    p_values = np.full((n_models, n_models), np.nan)
    for i in range(n_models):
        for j in range(i):
            p = _p_value(sets, squared, paths, nested, i, j, lags)
            p_values[i, j] = p_values[j, i] = p
    return SharpeComparison(
        names=tuple(factors),
        squared=squared,
        adjusted=(n_periods - counts - 2) / n_periods * squared - counts / n_periods,
        differences=squared[:, None] - squared[None, :],
        p_values=p_values,
        nested=nested,
        n_factors=counts,
        n_periods=n_periods,
        n_incomplete=len(known) - n_periods,
    )


def _attained(f: FloatArray, trouble: str) -> tuple[float, FloatArray]:
    """Sh^2 and the path u_t = mu'W^-1 (f_t - mu)."""
    mean, centred = f.mean(axis=0), f - f.mean(axis=0)
    covariance = centred.T @ centred / len(f)
    squared = inverse_quadratic(covariance, mean, trouble)
    return squared, centred @ np.linalg.solve(covariance, mean)


def _spans(big: FloatArray, small: FloatArray) -> bool:
    """Whether every small factor is a combination of big ones, without a constant."""
    left = small - big @ np.linalg.lstsq(big, small, rcond=None)[0]
    return bool(np.all(np.square(left).sum(axis=0) <= _SAME**2 * np.square(small).sum(axis=0)))


def _p_value(
    sets: list[FloatArray],
    squared: FloatArray,
    paths: list[FloatArray],
    nested: npt.NDArray[np.bool_],
    i: int,
    j: int,
    lags: int,
) -> float:
    from scipy.special import ndtr

    if nested[i, j] and nested[j, i]:
        return float("nan")
    if nested[i, j] or nested[j, i]:
        big, small = (sets[i], sets[j]) if nested[i, j] else (sets[j], sets[i])
        return grs_test(_extra(big, small), small).p_value
    d = 2.0 * (paths[i] - paths[j]) - (paths[i] ** 2 - paths[j] ** 2) + squared[i] - squared[j]
    variance = float(long_run_sum((d - d.mean())[:, None], lags)[0, 0]) / len(d)
    z = float(np.sqrt(len(d)) * (squared[i] - squared[j]) / np.sqrt(variance)) if variance > 0 else np.nan
    return float(2.0 * ndtr(-abs(z)))


def _extra(big: FloatArray, small: FloatArray) -> FloatArray:
    """Factors of the big model that complete the small one to the big one's span."""
    chosen: list[int] = []
    for k in range(big.shape[1]):
        if not _spans(np.column_stack([small, big[:, chosen]]), big[:, [k]]):
            chosen.append(k)
    return big[:, chosen]
