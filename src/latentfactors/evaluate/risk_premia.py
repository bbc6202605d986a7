"""Prices of risk from cross-sections of returns on given exposures: betas or characteristics.

Every period     r_t = X_t l_t + u_t             X_t (N, P) exposures, a column of ones first if wanted
Premia           l = mean_t l_t                  l_t (P,) least squares over the period's observed assets
Covariance       S(l_t)/T                        S Newey-West long-run covariance of the slopes, divisor T

The exposures are taken as known. Betas that were estimated over the same periods belong into `two_pass`.

References: Fama & MacBeth (1973), JPE 81(3); Newey & West (1987), Econometrica 55(3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.estimator import freeze
from latentfactors.frames import to_frame
from latentfactors.kernels.moments import unit_columns
from latentfactors.kernels.newey_west import automatic_lags, long_run_sum
from latentfactors.panel import Panel

__all__ = ["FamaMacBeth", "PremiumEstimates", "characteristic_premia", "fama_macbeth"]

FloatArray = npt.NDArray[np.float64]
_RATIO = 1e-10


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class PremiumEstimates:
    """Prices of risk and how sure they are, however they were estimated.

    Attributes
    ----------
    names : of the P premia, "intercept" first where there is one
    premia : (P,) in the returns' unit per period
    covariance : (P, P) of the premia
    r_squared : share of the cross-section that exposures explain
    n_periods : periods used
    lags : Newey-West lags
    """

    names: tuple[str, ...]
    premia: FloatArray
    covariance: FloatArray
    r_squared: float
    n_periods: int
    lags: int

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def standard_errors(self) -> FloatArray:
        """(P,) roots of the covariance's diagonal."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))

    @property
    def t_statistics(self) -> FloatArray:
        """(P,) premium / standard error."""
        return over(self.premia, self.standard_errors)

    def frame(self, backend: str = "polars") -> Any:
        """One line per premium: name, premium, standard_error, t."""
        return to_frame(self._columns(), backend)

    def _columns(self) -> dict[str, Any]:
        columns = {"name": np.array(self.names), "premium": self.premia}
        return columns | {"standard_error": self.standard_errors, "t": self.t_statistics}

    def __repr__(self) -> str:
        each = ", ".join(
            f"{name} {premium:.4g} (t {t:.2f})"
            for name, premium, t in zip(self.names, self.premia, self.t_statistics, strict=True)
        )
        return f"{type(self).__name__}({each}; {self._remark()}{self.n_periods} periods)"

    def _remark(self) -> str:
        return ""


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class FamaMacBeth(PremiumEstimates):
    """Premia of given exposures, with the errors of Newey and West.

    Beside what `PremiumEstimates` has; `r_squared` is the mean over periods of
    1 - sum u^2 / sum (r - mean r)^2.

    Attributes
    ----------
    slopes : (T, P) of every period; NaN where too few assets are observed or exposures are collinear
    n_skipped : periods with returns that were left out
    n_assets : mean number of assets in the periods used
    """

    slopes: FloatArray
    n_skipped: int
    n_assets: float


def fama_macbeth(
    returns: npt.ArrayLike,
    exposures: npt.ArrayLike,
    *,
    names: Sequence[str] = (),
    intercept: bool = True,
    lags: int | None = None,
    min_assets: int | None = None,
) -> FamaMacBeth:
    """Average the slopes of one cross-sectional regression per period.

    Parameters
    ----------
    returns : (T, N)
        NaN where missing.
    exposures : (N, K) or (T, N, K)
        Betas or characteristics known before the period. Betas estimated over the same periods belong into
        `two_pass`: their estimation error is not in these standard errors.
    names
        K names; none: "exposure 1" and so on.
    intercept
        Whether to add a column of ones.
    lags
        Newey-West lags; None: floor(4 (T/100)^(2/9)); 0: the classical standard error with divisor T.
    min_assets
        Assets with a return and exposures that a period needs. None: one more than there are premia.

    Returns
    -------
    FamaMacBeth

    Raises
    ------
    ConfigurationError
        Shapes that do not fit.
    InsufficientDataError
        Fewer than two usable periods.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(240, 100, 2))
    >>> r = z @ [0.3, 0.0] + rng.normal(size=(240, 100))
    >>> found = fama_macbeth(r, z, names=["value", "size"])
    >>> found.names, round(float(found.premia[1]), 1)
    (('intercept', 'value', 'size'), 0.3)
    """
    r, x = np.asarray(returns, dtype=np.float64), np.asarray(exposures, dtype=np.float64)
    fits = r.ndim == 2 and x.ndim in (2, 3) and x.shape[-2] == r.shape[1] and x.shape[-1] > 0
    if not fits or (x.ndim == 3 and len(x) != len(r)):
        raise ConfigurationError(
            f"expected returns (T, N) and exposures (N, K) or (T, N, K), got {r.shape} and {x.shape}"
        )
    every = np.broadcast_to(x, (len(r), *x.shape[-2:]))
    labels = tuple(names) or tuple(f"exposure {k + 1}" for k in range(x.shape[-1]))
    return _average(list(zip(r, every, strict=True)), labels, intercept, lags, min_assets)


def characteristic_premia(
    panel: Panel,
    characteristics: Sequence[str] = (),
    *,
    intercept: bool = True,
    lags: int | None = None,
    min_assets: int | None = None,
) -> FamaMacBeth:
    """Fama-MacBeth premia of a panel's characteristics, which are known before the period by contract.

    Parameters
    ----------
    panel
        With characteristics.
    characteristics
        Names; none: all of them.
    intercept, lags, min_assets
        As in `fama_macbeth`.

    Returns
    -------
    FamaMacBeth

    Raises
    ------
    ConfigurationError, InsufficientDataError
        Unknown names or no characteristics; fewer than two usable periods.

    Examples
    --------
    >>> from latentfactors.simulate import characteristic_panel
    >>> panel = characteristic_panel(n_periods=60, n_assets=50, n_factors=2, seed=1).panel
    >>> characteristic_premia(panel, panel.characteristic_names[:2]).slopes.shape
    (60, 3)
    """
    labels = tuple(characteristics) or panel.characteristic_names
    unknown = [name for name in labels if name not in panel.characteristic_names]
    if unknown or panel.characteristics is None:
        raise ConfigurationError(
            f"no characteristic {', '.join(map(repr, unknown)) or 'at all'} in this panel, it has "
            f"{panel.characteristic_names}"
        )
    columns = [panel.characteristic_names.index(name) for name in labels]
    z = panel.characteristics[:, columns].astype(np.float64)
    periods = [(panel.values[a:b], z[a:b]) for a, b in pairwise(panel.offsets)]
    return _average(periods, labels, intercept, lags, min_assets)


def _average(
    periods: Sequence[tuple[FloatArray, FloatArray]],
    labels: tuple[str, ...],
    intercept: bool,
    lags: int | None,
    min_assets: int | None,
) -> FamaMacBeth:
    n_columns = len(labels) + intercept
    if any(x.shape[1] != len(labels) for _, x in periods[:1]):
        raise ConfigurationError(f"{len(labels)} names {labels} for {periods[0][1].shape[1]} exposures")
    least = max(n_columns + 1 if min_assets is None else min_assets, n_columns)
    slopes = np.full((len(periods), n_columns), np.nan)
    fit, counts, n_skipped = [], [], 0
    for t, (r, x) in enumerate(periods):
        seen = np.isfinite(r) & np.isfinite(x).all(axis=1)
        design = np.column_stack([np.ones(int(seen.sum())), x[seen]]) if intercept else x[seen]
        found = None if seen.sum() < least else least_squares(design, r[seen])
        if found is None:
            n_skipped += bool(np.isfinite(r).any())
            continue
        slopes[t] = found
        total = float(np.square(r[seen] - r[seen].mean()).sum())
        fit.append(1.0 - float(np.square(r[seen] - design @ found).sum()) / total if total > 0 else np.nan)
        counts.append(int(seen.sum()))
    if len(counts) < 2:
        raise InsufficientDataError(
            f"{len(counts)} of {len(periods)} periods have {least} assets with a return and exposures that "
            "are not collinear, expected at least 2: use fewer exposures or a fuller panel"
        )
    used = slopes[np.isfinite(slopes).all(axis=1)]
    n_lags = checked_lags(lags, len(used))
    covariance = long_run_sum(used - used.mean(axis=0), n_lags) / len(used) ** 2
    return FamaMacBeth(
        names=("intercept", *labels) if intercept else labels,
        premia=used.mean(axis=0),
        covariance=covariance,
        slopes=slopes,
        r_squared=float(np.nanmean(fit)) if np.isfinite(fit).any() else float("nan"),
        n_periods=len(used),
        n_skipped=n_skipped,
        n_assets=float(np.mean(counts)),
        lags=n_lags,
    )


def least_squares(design: FloatArray, target: FloatArray) -> FloatArray | None:
    """Coefficients (P,) or (P, m) of a design (n, P), or None where its columns are collinear."""
    unit, lengths = unit_columns(design, centred=False)
    left, values, right = np.linalg.svd(unit, full_matrices=False)
    if np.any(lengths == 0) or values.size < design.shape[1] or values[-1] <= _RATIO * values[0]:
        return None
    turned = left.T @ target
    scaled = turned / (values if target.ndim == 1 else values[:, None])
    found: FloatArray = right.T @ scaled
    return found / (lengths if target.ndim == 1 else lengths[:, None])


def checked_lags(lags: int | None, n_periods: int) -> int:
    """Newey-West lags: as given, or by the automatic rule for None; at most T - 1.

    Raises
    ------
    ConfigurationError
        Anything but None and whole numbers >= 0.
    """
    if lags is not None and (isinstance(lags, bool) or not isinstance(lags, int) or lags < 0):
        raise ConfigurationError(
            f"lags must be a whole number >= 0 or None for the automatic rule, got {lags!r}"
        )
    return automatic_lags(n_periods) if lags is None else min(lags, n_periods - 1)


def over(premia: FloatArray, errors: FloatArray) -> FloatArray:
    """(P,) t statistics, NaN where there is no error."""
    return np.divide(premia, errors, out=np.full(premia.size, np.nan), where=errors > 0)
