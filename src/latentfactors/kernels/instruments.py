"""What instruments can tell apart: asked of the data before Gamma is estimated, of the solution afterwards.

Before     periods, values, rank of the characteristics over all periods and of the given factors
After      convergence, curvature of the objective, agreement of the starts; the identified Gamma and
           factors, R2 and residual variance
What cannot be estimated is refused with names and numbers; what is odd but bearable is a sentence.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.kernels.ipca import InstrumentedFit, instrument_rank
from latentfactors.kernels.rotation import fix_signs, principal_rotation
from latentfactors.kernels.sufficient import PanelStatistics, gram_factors, mean_diagonals
from latentfactors.periods import first_offenders
from latentfactors.state import FitSummary
from latentfactors.validate import count

FloatArray = npt.NDArray[np.float64]


def check_instruments(
    statistics: PanelStatistics,
    given: FloatArray,
    *,
    n_factors: int,
    min_observed: int,
    names: tuple[str, ...],
    given_names: tuple[str, ...] = (),
    alpha: bool = False,
    intercept: bool = False,
) -> list[str]:
    """Remarks about collinear characteristics; refuses data that cannot hold the model.

    Parameters
    ----------
    statistics : of the T periods with `min_observed` observed assets.
    given : (T, M) factors that are known: a 1 first if `alpha`, then those of `given_names`.
    n_factors : K
    min_observed : observed assets a period needs.
    names : L names of characteristics; the last is a constant that was appended if `intercept`.

    Raises
    ------
    InsufficientDataError
        Too few periods, values all zero, characteristics of rank below K, collinear observed factors.
    ConfigurationError
        `intercept=True` although the characteristics already span a constant.
    """
    k, n_known = n_factors, given.shape[1]
    if min_observed < k or statistics.n_periods < k + n_known:
        raise too_few_periods(k + n_known, statistics.n_periods, max(min_observed, k))
    if not statistics.squares.sum() > 0:
        raise InsufficientDataError("all observed values are zero: there is nothing to explain")
    scale = np.sqrt(np.square(given).sum(axis=0))
    if n_known and (not scale.all() or np.linalg.matrix_rank(given / scale, tol=1e-10) < n_known):
        raise InsufficientDataError(
            f"observed factors {given_names}{' and the constant of alpha' * alpha} are "
            "collinear in training: leave one out"
        )
    rank, null = instrument_rank(statistics.grams)
    involved = np.abs(null).max(axis=1, initial=0.0) > 1e-6
    if intercept and involved[-1]:
        raise ConfigurationError(
            f"intercept=True, but {first_offenders([names[j] for j in np.flatnonzero(involved[:-1])], 6)} "
            "already span a constant: use intercept=False"
        )
    if k > rank:
        raise InsufficientDataError(
            f"n_factors={k} exceeds the rank {rank} of the {len(names)} characteristics: ask for fewer"
        )
    if rank == len(names):
        return []
    collinear = first_offenders([names[j] for j in np.flatnonzero(involved)], 6)
    return [f"characteristics have rank {rank} of {len(names)} ({collinear}): minimum-norm Gamma"]


def too_few_periods(needed: int, got: int, min_observed: int) -> InsufficientDataError:
    """The error of a panel too short or too thin."""
    return InsufficientDataError(
        f"the factors need {count(needed, 'period')} with {min_observed} observed assets that tell them "
        f"apart, the panel has {got}: ask for fewer factors, or give a longer or fuller panel"
    )


def fit_remarks(fit: InstrumentedFit, n_starts: int) -> list[str]:
    """Sentences about a solution that should not be trusted without a look."""
    remarks = []
    if not fit.converged:
        remarks.append(f"Gamma not converged, {fit.reason}: raise max_iterations, or ask for fewer factors")
    if fit.curvature < 1e-8:
        remarks.append(
            f"the objective is flat around Gamma (curvature {fit.curvature:.0e}): the data cannot tell "
            "this many factors apart"
        )
    if fit.n_agreeing < n_starts:
        remarks.append(f"{fit.n_agreeing} of {n_starts} starts agree: the best was kept")
    return remarks


def fit_summary(
    fit: InstrumentedFit, metrics: dict[str, float], remarks: list[str], n_starts: int, *, ridged: bool
) -> FitSummary:
    """How the iteration went, with the numbers that say how good a minimum was found."""
    certificate = {
        "gradient_norm": fit.gradient,
        "curvature": fit.curvature,
        "start_spread": fit.start_spread,
        "n_starts_agreeing": float(fit.n_agreeing),
    }
    return FitSummary(
        converged=fit.converged,
        reason=fit.reason,
        n_iterations=fit.n_iterations,
        objective=fit.objective_path,
        objective_name="SSE / SST of observed rows" + " + ridges" * ridged,
        metrics=metrics | certificate,
        warnings=(*remarks, *fit_remarks(fit, n_starts)),
    )


def identify(
    fit: InstrumentedFit,
    statistics: PanelStatistics,
    given: FloatArray,
    *,
    factor_ridge: float,
    min_observed: int,
) -> tuple[FloatArray, FloatArray]:
    """Gamma (L, K) with Gamma'Gamma = I, and factors (T, K) with F'F/T diagonal, falling, means >= 0.

    With fewer than K periods that have factors nothing is rotated.
    """
    W, gamma, k = statistics.grams, fit.gamma, fit.gamma.shape[1]
    known = given @ fit.delta.T
    crosses = (statistics.crosses - (W @ known[:, :, None])[:, :, 0]) @ gamma
    grams = gamma.T @ (W @ gamma) + (factor_ridge * mean_diagonals(W))[:, None, None] * np.eye(k)
    factors = gram_factors(grams, crosses, statistics.counts, min_observed=min_observed)
    if np.isfinite(factors).all(axis=1).sum() < k:
        return gamma, factors
    loading_rotation, factor_rotation = principal_rotation(gamma, factors)
    signs = fix_signs(factors @ factor_rotation, "mean_nonnegative")
    return gamma @ loading_rotation * signs, factors @ factor_rotation * signs


def fit_metrics(
    statistics: PanelStatistics, gamma: FloatArray, delta: FloatArray, factors: FloatArray, given: FloatArray
) -> tuple[dict[str, float], float]:
    """R2 of rows and of managed portfolios x_p/n_p, total and predictive, and the residual variance.

    With c_p = Gamma f_p + Delta h_p (predictive: their means over training) the residual sum of squares of a
    period is r_p'r_p - 2c_p'x_p + c_p'W_pc_p, and that of its portfolios |x_p - W_pc_p|^2/n_p^2.
    """
    realised = np.isfinite(factors).all(axis=1)
    kept, f, h = statistics.take(realised), factors[realised], given[realised]
    x, n = kept.crosses, kept.counts[:, None]
    total, portfolios = float(kept.squares.sum()), float(np.square(x / n).sum())
    coefficients = f @ gamma.T + h @ delta.T
    metrics, left = {}, []
    for name, c in (("total", coefficients), ("predictive", coefficients.mean(axis=0) + 0.0 * x)):
        fitted = (kept.grams @ c[:, :, None])[:, :, 0]
        left.append(max(total + float(np.vdot(c, fitted - 2.0 * x)), 0.0))
        metrics[f"{name}_r2"] = 1.0 - left[-1] / total
        metrics[f"managed_{name}_r2"] = 1.0 - float(np.square((x - fitted) / n).sum()) / portfolios
    free = f.size + (gamma.shape[0] - gamma.shape[1]) * (gamma.shape[1] + delta.shape[1])
    return metrics, left[0] / max(int(kept.counts.sum()) - free, 1)
