"""From the law of a network's codes towards the maximum of the likelihood.

Codes are functions of one month's values, so with few series they carry much of the series' own noise:
loadings and VAR that are read off them are attenuated, and the filter smooths too little. Iterations of
quasi-maximum likelihood on the state space (`dynamic_factor_em`), started there, put that right: loadings,
persistence and VAR from what all months say about each, not from codes taken as observed. At the maximum
nothing is left of the network but the start: that is the linear dynamic factor model.

References: Doz, Giannone & Reichlin (2012), Review of Economics and Statistics 94(4), 1014-1024.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.code_dynamics import CodeDynamics
from latentfactors.kernels.dynamic_factor import expectation, observation_pattern
from latentfactors.kernels.dynamic_factor_em import Structure, fit_dynamic_factor

FloatArray = npt.NDArray[np.float64]
_TOLERANCE = 1e-2


def towards_likelihood(
    law: CodeDynamics,
    codes: FloatArray,
    values: FloatArray,
    weights: FloatArray,
    *,
    autoregressive: bool,
    max_iterations: int,
) -> tuple[CodeDynamics, tuple[float, ...]]:
    """The law after some iterations, and the log-likelihoods on the way.

    Parameters
    ----------
    law : of the codes
    codes : (T, r); the new `code_map` is their least squares on the smoothed factors
    values : (T, n) standardised, NaN where missing
    weights : (n, L) of aggregates, newest first
    max_iterations : evaluations of the likelihood, at most; fewer where parameters stand still to .01
    """
    n, r = law.parameters.loadings.shape
    structure = Structure(autoregressive, np.ones((n, r), dtype=bool), (np.arange(r, dtype=np.intp),))
    pattern = observation_pattern(
        values - law.intercept,
        autoregressive=autoregressive,
        lags=len(law.parameters.transition),
        weights=weights,
    )
    fit = fit_dynamic_factor(
        law.parameters, pattern, structure, tolerance=_TOLERANCE, max_iterations=max_iterations
    )
    factors = expectation(fit.parameters, pattern).means[pattern.lead :, :r]
    code_map = np.linalg.lstsq(factors, codes - law.code_mean)[0].T
    return replace(law, parameters=fit.parameters, code_map=code_map), fit.objective_path
