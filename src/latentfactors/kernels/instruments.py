"""What instruments can tell apart: asked of the data before Gamma is estimated, of the solution afterwards.

Before     periods, values, rank of the characteristics over all periods and of the given factors
After      convergence, curvature of the objective, agreement of the starts
What cannot be estimated is refused with names and numbers; what is odd but bearable is a sentence.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.kernels.ipca import InstrumentedFit, instrument_rank
from latentfactors.kernels.sufficient import PanelStatistics
from latentfactors.periods import first_offenders
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


def certificate(fit: InstrumentedFit) -> dict[str, float]:
    """The numbers that say how good a minimum was found."""
    return {
        "gradient_norm": fit.gradient,
        "curvature": fit.curvature,
        "start_spread": fit.start_spread,
        "n_starts_agreeing": float(fit.n_agreeing),
    }


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
