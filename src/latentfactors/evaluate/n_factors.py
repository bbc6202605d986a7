"""How many factors: every criterion from one set of eigenvalues.

Data             X (T, N) demeaned and standardised; m = min(T, N); mu_1 >= mu_2 >= ... eigenvalues of X'X
                 and V(k) = sum_(j > k) mu_j, the variance that k factors leave, as shares of the total
Bai-Ng           PC_p(k) = V(k) + k V(kmax) g,  IC_p(k) = log V(k) + k g, smallest;  with S = (N + T)/(NT)
                 g_1 = S log(1/S),  g_2 = S log m,  g_3 = log(m)/m
McCracken-Ng     what FRED-MD's own program (baing.m) calls PC_p2 is log V(k) + k g_2: IC_p2 here
Ahn-Horenstein   ER(k) = mu_k/mu_(k+1),  GR(k) = log(V(k-1)/V(k)) / log(V(k)/V(k+1)), largest; a mock
                 eigenvalue mu_0 = V(0)/log m lets both say zero
Onatski          ED: the largest k with mu_k - mu_(k+1) >= delta; delta twice the slope of five eigenvalues
                 after k on (j - 1)^(2/3), refined until k stands still
Missing cells    EM: fill with the fit of k factors, standardise again, k chosen anew by IC_p2, until the fit
                 moves by less than 1e-6 of its size

References: Bai & Ng (2002), Econometrica 70(1); Onatski (2010), REStat 92(4); Ahn & Horenstein (2013),
Econometrica 81(3); Stock & Watson (2002), JBES 20(2), appendix (EM); McCracken & Ng (2016), JBES 34(4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.estimator import at_least, freeze
from latentfactors.panel import Panel

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FactorCounts", "InformationCriterion", "choose_by_bic", "fill_by_factors", "number_of_factors"]

FloatArray = npt.NDArray[np.float64]
_STILL = 1e-6
_ONATSKI_POINTS = 5


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class FactorCounts:
    """How many factors each criterion finds.

    Attributes
    ----------
    chosen
        Criterion -> number: PC_p1..3, IC_p1..3, ER, GR, ED.
    eigenvalues : (m,)
        mu_j as shares of the total variance, descending: the scree.
    criteria
        Criterion -> (kmax + 1,) values for k = 0..kmax; ED has none.
    max_factors
        kmax.
    n_periods, n_assets
        T and N used.
    n_missing, n_iterations
        Cells filled by EM, and its steps.
    converged
        Whether EM came to rest (True without missing cells).
    left_out
        Labels or positions of series that are constant or never observed.
    """

    chosen: Mapping[str, int]
    eigenvalues: FloatArray
    criteria: Mapping[str, FloatArray]
    max_factors: int
    n_periods: int
    n_assets: int
    n_missing: int
    n_iterations: int
    converged: bool
    left_out: tuple[object, ...]

    def __post_init__(self) -> None:
        freeze(self)

    def frame(self) -> pl.DataFrame:
        """The scree table: a line for k = 0..kmax with eigenvalue, cumulative share, and every criterion."""
        import polars as pl

        k = np.arange(self.max_factors + 1)
        scree = np.concatenate([[np.nan], self.eigenvalues[: self.max_factors]])
        total = np.concatenate([[0.0], np.cumsum(self.eigenvalues)[: self.max_factors]])
        return pl.DataFrame({"k": k, "eigenvalue": scree, "cumulative": total, **self.criteria})

    def __repr__(self) -> str:
        found = ", ".join(f"{name} {k}" for name, k in self.chosen.items())
        return f"FactorCounts({found}; T = {self.n_periods}, N = {self.n_assets}, kmax = {self.max_factors})"


def number_of_factors(
    data: Panel | npt.ArrayLike,
    *,
    max_factors: int = 8,
    standardise: bool = True,
    max_iterations: int = 200,
) -> FactorCounts:
    """Count the factors of a panel by all criteria at once.

    Parameters
    ----------
    data : Panel or (T, N)
        NaN where missing; periods and series without any value are left out. Bring series to stationarity
        first.
    max_factors
        kmax >= 1. The PC criteria scale their penalty by V(kmax), and a criterion that answers kmax says only
        "at least".
    standardise
        Whether each series gets unit variance. Demeaned it is always.
    max_iterations
        Of EM.

    Returns
    -------
    FactorCounts

    Raises
    ------
    ConfigurationError, InsufficientDataError
        A panel too small for kmax: min(T, N) must exceed it by 5 (Onatski's regression and the ratios look
        beyond kmax).

    Notes
    -----
    PC_p3 and IC_p3 penalise least and overcount in small panels. Filled cells carry no noise, so with a tenth
    of the cells missing PC_p1 and PC_p2 begin to overcount too; IC_p2 and the ratios hold longest.

    Examples
    --------
    >>> from latentfactors.simulate import static_panel
    >>> panel = static_panel(n_assets=100, n_factors=2).panel
    >>> found = number_of_factors(panel)
    >>> found.chosen["IC_p2"], found.chosen["ER"]
    (2, 2)
    """
    at_least("max_factors", max_factors, 1)
    at_least("max_iterations", max_iterations, 1)
    values = data.wide() if isinstance(data, Panel) else np.asarray(data, dtype=np.float64)
    if values.ndim != 2 or np.isinf(values).any():
        raise ConfigurationError(f"expected a Panel or finite (T, N) values, got shape {values.shape}")
    labels = data.assets.tolist() if isinstance(data, Panel) else list(range(values.shape[1]))
    seen = np.isfinite(values)
    highest = np.where(seen, values, -np.inf).max(axis=0, initial=-np.inf)
    kept = highest > np.where(seen, values, np.inf).min(axis=0, initial=np.inf)
    values = values[:, kept][seen[:, kept].any(axis=1)]
    needed = max_factors + _ONATSKI_POINTS + 1
    if min(values.shape) < needed:
        raise InsufficientDataError(
            f"max_factors={max_factors} needs at least {needed} periods and varying series, got "
            f"{values.shape}: give a larger panel or a smaller max_factors"
        )
    n_missing = int(np.isnan(values).sum())
    filled, _, n_iterations, converged = fill_by_factors(
        values, None, max_factors=max_factors, standardise=standardise, max_iterations=max_iterations
    )
    shares = _shares(_scaled(filled, standardise)[0])
    criteria = _criteria(shares, values.shape, max_factors)
    chosen = {
        name: int(np.nanargmax(path) if name in ("ER", "GR") else np.argmin(path))
        for name, path in criteria.items()
    }
    chosen["ED"] = _onatski(shares, max_factors)
    return FactorCounts(
        chosen=chosen,
        eigenvalues=shares,
        criteria=criteria,
        max_factors=max_factors,
        n_periods=values.shape[0],
        n_assets=values.shape[1],
        n_missing=n_missing,
        n_iterations=n_iterations,
        converged=converged,
        left_out=tuple(label for label, keep in zip(labels, kept.tolist(), strict=True) if not keep),
    )


def fill_by_factors(
    values: npt.ArrayLike,
    n_factors: int | None = None,
    *,
    max_factors: int = 8,
    standardise: bool = True,
    max_iterations: int = 200,
) -> tuple[FloatArray, int, int, bool]:
    """Fill missing cells by principal components fitted to the filled table, until nothing moves.

    Two-sided: a filled cell knows the whole table. For counting and describing, not for forecasting.

    Parameters
    ----------
    values : (T, N), NaN where missing; every row and column has a value, every column varies
    n_factors
        Components; None: chosen by IC_p2 up to `max_factors` in every step.
    max_factors, standardise, max_iterations
        As in `number_of_factors`.

    Returns
    -------
    filled : (T, N), observed cells untouched
    n_factors, n_iterations : components of the last step, steps
    converged : whether the fit moved by less than 1e-6 of its size
    """
    x = np.asarray(values, dtype=np.float64)
    hidden = np.isnan(x)
    k = 0 if n_factors is None else n_factors
    filled = np.where(hidden, np.nanmean(x, axis=0), x)
    if not hidden.any():
        return filled, k, 0, True
    before = None
    for step in range(1, max_iterations + 1):
        z, centre, scale = _scaled(filled, standardise)
        moment = z.T @ z if z.shape[0] >= z.shape[1] else z @ z.T
        eigenvalues, vectors = np.linalg.eigh(moment)
        if n_factors is None:
            shares = np.maximum(eigenvalues[::-1], 0.0) / eigenvalues.sum()
            k = int(np.argmin(_criteria(shares, x.shape, max_factors)["IC_p2"]))
        axes = vectors[:, len(eigenvalues) - k :]
        fit = z @ axes @ axes.T if z.shape[0] >= z.shape[1] else axes @ (axes.T @ z)
        filled = np.where(hidden, centre + scale * fit, x)
        moved = np.inf if before is None else float(np.square(fit - before).sum())
        before = fit
        if moved <= _STILL * float(np.square(fit).sum()):
            return filled, k, step, True
    return filled, k, max_iterations, False


@dataclass(frozen=True, kw_only=True)
class InformationCriterion:
    """BIC over a family of likelihood models.

    Attributes
    ----------
    best
        The candidate with the smallest BIC.
    bic, log_likelihood
        By candidate, in the order tried.
    n_parameters
        By candidate.
    failed
        Candidate -> why its fit failed.
    """

    best: int
    bic: Mapping[int, float]
    log_likelihood: Mapping[int, float]
    n_parameters: Mapping[int, int]
    failed: Mapping[int, str]


def choose_by_bic(
    fit: Callable[[int], tuple[float, int]], candidates: Iterable[int], n_observations: int
) -> InformationCriterion:
    """Smallest BIC(k) = -2 log L(k) + n_parameters(k) log n over a family of models.

    Parameters
    ----------
    fit
        k -> (log-likelihood, number of free parameters), in one unit for all k. A fit that raises an error of
        this library or a ValueError is reported and left out.
    candidates
        Numbers of factors to try.
    n_observations
        n, by the convention of the model: periods for factor models of fixed N.

    Raises
    ------
    ConfigurationError
        No candidate, or a fit that gives no finite likelihood.
    InsufficientDataError
        Every fit failed.

    Examples
    --------
    >>> choose_by_bic(lambda k: (-100.0 + 20.0 * min(k, 2) + k, 5 * k), range(5), 100).best
    2
    """
    at_least("n_observations", n_observations, 2)
    likelihoods, parameters, failed = {}, {}, {}
    for k in candidates:
        try:
            value, n = fit(k)
        except ValueError as error:  # the library's data errors are ValueErrors too
            failed[k] = f"{type(error).__name__}: {error}"
            continue
        if not np.isfinite(value):
            raise ConfigurationError(f"fit({k}) gave the log-likelihood {value!r}, expected a finite number")
        likelihoods[k], parameters[k] = float(value), int(n)
    if not likelihoods:
        if failed:
            raise InsufficientDataError(f"every fit failed; the first: {next(iter(failed.values()))}")
        raise ConfigurationError("choose_by_bic needs at least one candidate")
    bic = {k: -2.0 * likelihoods[k] + parameters[k] * float(np.log(n_observations)) for k in likelihoods}
    return InformationCriterion(
        best=min(bic, key=lambda k: bic[k]),
        bic=bic,
        log_likelihood=likelihoods,
        n_parameters=parameters,
        failed=failed,
    )


# ----------------------------------------------------------------------------- the parts


def _scaled(filled: FloatArray, standardise: bool) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Table demeaned (and standardised, ddof 0), and what was taken out: z = (x - centre)/scale."""
    centre = filled.mean(axis=0)
    centred = filled - centre
    # without standardising still one common scale, so that nothing depends on the unit
    scale = filled.std(axis=0) if standardise else np.full(filled.shape[1], filled.std(axis=0).max())
    return centred / scale, centre, scale


def _shares(z: FloatArray) -> FloatArray:
    """(m,) eigenvalues of z'z as shares of their sum, descending."""
    squares = np.square(np.linalg.svd(z, compute_uv=False))
    return squares / squares.sum()


def _criteria(shares: FloatArray, shape: tuple[int, ...], kmax: int) -> dict[str, FloatArray]:
    """Every criterion for k = 0..kmax from eigenvalue shares."""
    (T, N), m, sizes = shape, min(shape), np.arange(kmax + 1)
    left = np.maximum(1.0 - np.concatenate([[0.0], np.cumsum(shares)[: kmax + 1]]), 1e-300)
    S = (N + T) / (N * T)
    penalties = (S * np.log(1.0 / S), S * np.log(m), np.log(m) / m)
    out = {f"PC_p{i}": left[:-1] + sizes * left[kmax] * g for i, g in enumerate(penalties, 1)}
    out |= {f"IC_p{i}": np.log(left[:-1]) + sizes * g for i, g in enumerate(penalties, 1)}
    mu = np.concatenate([[1.0 / np.log(m)], shares[: kmax + 1]])
    out["ER"] = mu[:-1] / np.maximum(mu[1:], 1e-300)
    growth = np.log1p(mu / left)
    out["GR"] = growth[:-1] / growth[1:]
    return out


def _onatski(shares: FloatArray, kmax: int) -> int:
    """ED: largest k <= kmax with mu_k - mu_(k+1) >= delta, delta from eigenvalues after the last answer."""
    gaps = shares[:kmax] - shares[1 : kmax + 1]
    k = kmax
    for _ in range(10):
        places = np.arange(k + 1, k + 1 + _ONATSKI_POINTS)  # j in 1, 2, ...
        slope = np.polyfit((places - 1.0) ** (2 / 3), shares[places - 1], 1)[0]
        large = np.flatnonzero(gaps >= 2.0 * abs(slope))
        found = int(large[-1]) + 1 if large.size else 0
        if found == k:
            break
        k = found
    return k
