"""Do new assets add anything to benchmark assets? Huberman and Kandel's test, exact and step by step.

Regressions      x_t = a + B y_t + e_t           x (N,) test assets, y (K,) benchmarks, raw returns
Spanning         a = 0 and d = 1 - B 1 = 0: every test asset is a benchmark portfolio plus noise
Exact law        U = |S_u| / |S_r|, residual determinants without and with the restrictions; normal errors
                 N = 1:  (1/U - 1)(T - K - 1)/2         ~  F(2, T - K - 1)
                 N > 1:  (1/sqrt(U) - 1)(T - K - N)/N   ~  F(2N, 2(T - K - N))
Step-down        first a = 0                (|S_a|/|S_u| - 1)(T - K - N)/N       ~  F(N, T - K - N)
                 then d = 0 given a = 0     (|S_r|/|S_a| - 1)(T - K - N + 1)/N   ~  F(N, T - K - N + 1)

The first step is the GRS statistic and asks about the tangency portfolio. The second asks about the portfolio
of least variance, where tiny departures are found with great power: read the two apart. They are independent,
so levels p and q together have 1 - (1 - p)(1 - q). Excess returns span if a = 0 alone, since the riskless
asset absorbs d: use `grs_test`. Restricted fits are least squares: for d = 0 of x - y_K on the other
benchmarks minus y_K.

References: Huberman & Kandel (1987), JF 42(4); Kan & Zhou (2012), Annals of Economics and Finance 13(1), the
exact and the step-down tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.errors import InsufficientDataError
from latentfactors.estimator import freeze
from latentfactors.evaluate.pricing_tests import complete_periods
from latentfactors.kernels.quadratic_forms import inverse_quadratic

__all__ = ["SpanningTest", "spanning_test"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class SpanningTest:
    """Huberman and Kandel's test with its step-down parts.

    Attributes
    ----------
    statistic, p_value : F of a = 0 and d = 0, with `degrees` of freedom
    degrees : numerator, denominator
    alpha_statistic, alpha_p_value : F of a = 0
    beta_statistic, beta_p_value : F of d = 0 given a = 0
    alphas : (N,) intercepts, per period
    deltas : (N,) 1 - sum of the betas
    n_periods, n_assets, n_benchmarks, n_incomplete : T used, N, K, periods left out
    """

    statistic: float
    p_value: float
    degrees: tuple[int, int]
    alpha_statistic: float
    alpha_p_value: float
    beta_statistic: float
    beta_p_value: float
    alphas: FloatArray
    deltas: FloatArray
    n_periods: int
    n_assets: int
    n_benchmarks: int
    n_incomplete: int = 0

    def __post_init__(self) -> None:
        freeze(self)

    def __repr__(self) -> str:
        a, b = self.degrees
        return (
            f"SpanningTest(F({a}, {b}) = {self.statistic:.3f}, p = {self.p_value:.3g}; alpha = 0: p = "
            f"{self.alpha_p_value:.3g}, then betas add up to 1: p = {self.beta_p_value:.3g})"
        )


def spanning_test(assets: npt.ArrayLike, benchmarks: npt.ArrayLike) -> SpanningTest:
    """Test whether benchmark assets span test assets, jointly and step by step.

    Parameters
    ----------
    assets : (T, N) or (T,)
        Raw (or real) returns of the assets that may be redundant.
    benchmarks : (T, K) or (T,)
        Raw returns of the benchmark assets. With excess returns only the alpha part has a meaning.

    Returns
    -------
    SpanningTest

    Raises
    ------
    ConfigurationError, InsufficientDataError
        Shapes that do not fit; T <= K + N complete periods; assets that repeat each other or a benchmark,
        collinear benchmarks.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = 0.01 + 0.05 * rng.normal(size=(240, 3))
    >>> spanned = y @ [0.5, 0.3, 0.2] + 0.02 * rng.normal(size=240)
    >>> spanning_test(spanned, y).p_value > 0.05, spanning_test(0.5 * spanned, y).beta_p_value < 1e-6
    (True, True)
    """
    from scipy.special import fdtrc  # the F law; scipy.stats takes much longer to load

    x, y, n_incomplete = complete_periods(assets, benchmarks)
    (n_periods, n_assets), n_benchmarks = x.shape, y.shape[1]
    freedom = n_periods - n_benchmarks - n_assets
    if freedom <= 0:
        raise InsufficientDataError(
            f"a spanning test needs more complete periods than assets and benchmarks, got {n_periods} for "
            f"{n_assets} + {n_benchmarks}"
        )
    centred = y - y.mean(axis=0)
    inverse_quadratic(centred.T @ centred, np.zeros(n_benchmarks), "benchmarks are collinear")
    free, betas = _residuals(x - x.mean(axis=0), centred)
    alphas, deltas = x.mean(axis=0) - betas @ y.mean(axis=0), 1.0 - betas.sum(axis=1)
    inverse_quadratic(free.T @ free, np.zeros(n_assets), "test assets repeat each other")
    total = np.square(x - x.mean(axis=0)).sum(axis=0)
    if np.any(np.square(free).sum(axis=0) <= 1e-20 * total):
        raise InsufficientDataError("a test asset is a combination of the benchmarks: leave it out")
    no_alpha, _ = _residuals(x, y)
    others = y[:, :-1] - y[:, -1:]
    spanned = _residuals(x - y[:, -1:], others)[0] if n_benchmarks > 1 else x - y
    base, first, second = (_log_determinant(u) for u in (free, no_alpha, spanned))
    if n_assets == 1:
        degrees = (2, freedom)
        statistic = float(np.expm1(second - base)) * freedom / 2
    else:
        degrees = (2 * n_assets, 2 * freedom)
        statistic = float(np.expm1(0.5 * (second - base))) * freedom / n_assets
    alpha = float(np.expm1(first - base)) * freedom / n_assets
    beta = float(np.expm1(second - first)) * (freedom + 1) / n_assets
    return SpanningTest(
        statistic=statistic,
        p_value=float(fdtrc(*degrees, max(statistic, 0.0))),
        degrees=degrees,
        alpha_statistic=alpha,
        alpha_p_value=float(fdtrc(n_assets, freedom, max(alpha, 0.0))),
        beta_statistic=beta,
        beta_p_value=float(fdtrc(n_assets, freedom + 1, max(beta, 0.0))),
        alphas=alphas,
        deltas=deltas,
        n_periods=n_periods,
        n_assets=n_assets,
        n_benchmarks=n_benchmarks,
        n_incomplete=n_incomplete,
    )


def _residuals(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Residuals (T, N) and coefficients (N, K) of least squares without a constant."""
    coefficients: FloatArray = np.linalg.lstsq(y, x, rcond=None)[0].astype(np.float64, copy=False)
    return x - y @ coefficients, coefficients.T


def _log_determinant(residuals: FloatArray) -> float:
    """log |E'E| from the singular values of E, which keep twice the digits of E'E."""
    return 2.0 * float(np.log(np.linalg.svd(residuals, compute_uv=False)).sum())
