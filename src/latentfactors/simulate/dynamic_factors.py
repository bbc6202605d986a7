"""Dynamic factor panels, linear and nonlinear, and the metric their factors are judged by.

Measurement      y_t = Lambda F_t + eps_t              Lambda (n, r~), entries N(0, 1)
                 linear: F_t = f_t, r~ = r; nonlinear: F_t = (f_t, all products f_i f_j with i <= j, sgn f_t),
                 r~ = 2r + r(r + 1)/2
Factors          f_t = rho f_(t-1) + u_t,              u_t ~ N(0, I_r)
Idiosyncratic    eps_t = alpha eps_(t-1) + e_t,        e_t ~ N(0, Q)
                 Q_ij = tau^|i-j| (1 - alpha^2) sqrt(g_i g_j), so that eps_i has variance g_i
Signal           g_i = b_i/(1 - b_i) * 1/(1 - rho^2) * sum_j Lambda_ij^2,  b_i ~ U(u, 1 - u): in the linear
                 process b_i is the share of idiosyncratic variance. noise="reference_code" puts
                 1/(1 - alpha^2) in place of 1/(1 - rho^2), as the authors' code does: a variance 3.95 times
                 smaller at rho = .9, alpha = .5
Start            f and eps in their stationary distributions
Grid             r in {1, 3}, n in {10, 100}, rho in {.5, .9}, alpha in {0, .5}, T in {50, 200}, missing in
                 {0, .3}; u = .1 and tau = 0, which the paper leaves unstated
Metric           trace R2 = tr(F'G (G'G)^-1 G'F) / tr(F'F), F the r~ true features, G the estimated factors:
                 as printed (uncentred, no intercept), with an intercept in G, and with both sides centred

References: Andreini, Izzo & Ricco (2020), Deep Dynamic Factor Models, eqs. (19)-(27) (the process), (28) (the
metric); Doz, Giannone & Reichlin (2012), REStat 94(4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError
from latentfactors.estimator import at_least, freeze
from latentfactors.kernels.scores import trace_r_squared
from latentfactors.panel import Panel
from latentfactors.periods import period_range
from latentfactors.simulate.parts import first_order, streams

__all__ = ["SimulatedDynamicPanel", "dynamic_factor_panel", "nonlinear_features", "trace_r_squareds"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class SimulatedDynamicPanel:
    """A panel of series and the truth behind it.

    Attributes
    ----------
    panel
        Monthly series from 1990-01-31.
    factors : (T, r)
        f_t.
    features : (T, r~)
        F_t; the factors themselves in the linear process.
    loadings : (n, r~)
        Lambda.
    idiosyncratic : (T, n)
        eps_t.
    idiosyncratic_variance : (n,)
        g_i, the stationary variance of eps_i.
    complete : (T, n)
        Values before any was hidden.
    """

    panel: Panel
    factors: FloatArray
    features: FloatArray
    loadings: FloatArray
    idiosyncratic: FloatArray
    idiosyncratic_variance: FloatArray
    complete: FloatArray

    def __post_init__(self) -> None:
        freeze(self)


def dynamic_factor_panel(
    n_periods: int = 200,
    n_series: int = 100,
    n_factors: int = 1,
    *,
    measurement: Literal["linear", "nonlinear"] = "linear",
    rho: float = 0.9,
    alpha: float = 0.5,
    tau: float = 0.0,
    u: float = 0.1,
    noise: Literal["paper", "reference_code"] = "paper",
    missing: float = 0.0,
    seed: int = 0,
) -> SimulatedDynamicPanel:
    """Draw a panel from the process above.

    Every part has a random stream of its own: another share of missing cells hides more of the same panel.

    Parameters
    ----------
    n_periods, n_series, n_factors
        T, n, r, at least 1 each.
    measurement
        Whether series load on the factors or on the features made of them.
    rho, alpha
        Autoregressive coefficients of factors and idiosyncratic terms, in (-1, 1).
    tau
        Cross-sectional correlation of neighbours' innovations, in [0, 1).
    u
        Bounds of the noise shares b_i, in (0, 1/2].
    noise
        Which variance the noise is scaled by.
    missing
        Share of cells hidden at random, in [0, 1).
    seed
        >= 0.

    Returns
    -------
    SimulatedDynamicPanel

    Raises
    ------
    ConfigurationError
        A parameter outside its range.

    Examples
    --------
    >>> truth = dynamic_factor_panel(n_series=10, n_factors=3, measurement="nonlinear")
    >>> truth.features.shape, truth.loadings.shape  # 2 * 3 + 3 * 4 / 2 features
    ((200, 12), (10, 12))
    """
    _check(locals())
    rng = streams(seed, ("loadings", "factors", "shares", "idiosyncratic", "hidden"))
    factors = first_order(rng["factors"].normal(size=(n_periods, n_factors)), rho)
    features = factors if measurement == "linear" else nonlinear_features(factors)
    loadings = rng["loadings"].normal(size=(n_series, features.shape[1]))
    share = rng["shares"].uniform(u, 1.0 - u, size=n_series)
    driver = rho if noise == "paper" else alpha
    variance = share / (1.0 - share) / (1.0 - driver**2) * (loadings**2).sum(axis=1)
    idiosyncratic = _idiosyncratic(rng["idiosyncratic"], n_periods, variance, alpha, tau)
    complete = features @ loadings.T + idiosyncratic
    hidden = rng["hidden"].random(size=complete.shape) < missing
    last = np.datetime64("1990-01") + np.timedelta64(n_periods - 1, "M")
    width = len(str(n_series))
    panel = Panel.from_wide(
        np.where(hidden, np.nan, complete),
        universe="all",
        times=period_range("1990-01-31", last.astype("datetime64[D]"), "M"),
        assets=[f"y{i + 1:0{width}d}" for i in range(n_series)],
        frequency="M",
        value_kind="series",
    )
    return SimulatedDynamicPanel(
        panel=panel,
        factors=factors,
        features=features,
        loadings=loadings,
        idiosyncratic=idiosyncratic,
        idiosyncratic_variance=variance,
        complete=complete,
    )


def nonlinear_features(factors: npt.ArrayLike) -> FloatArray:
    """(T, 2r + r(r + 1)/2) features of factors (T, r): f, all products f_i f_j with i <= j, sgn f.

    >>> nonlinear_features([[2.0, -3.0]])
    array([[ 2., -3.,  4., -6.,  9.,  1., -1.]])
    """
    f = np.asarray(factors, dtype=np.float64)
    first, second = np.triu_indices(f.shape[1])
    return np.hstack([f, f[:, first] * f[:, second], np.sign(f)])


def trace_r_squareds(features: npt.ArrayLike, estimated: npt.ArrayLike) -> dict[str, float]:
    """The trace R2 of estimated factors, as it is printed and as it can be compared.

    A code that is never negative (ReLU) carries a constant, which the printed metric rewards; with an
    intercept a linear model's factors have the same chance. Read the three side by side.

    Parameters
    ----------
    features : (T, r~)
        True features, of a simulated panel.
    estimated : (T, K)
        Periods with NaN in either are left out.

    Returns
    -------
    dict
        "printed" (uncentred, no intercept), "intercept", "centred"; each 1 when the features are spanned.

    Examples
    --------
    >>> truth = dynamic_factor_panel(n_series=10, n_factors=2)
    >>> scores = trace_r_squareds(truth.features, truth.factors @ [[1.0, 2.0], [0.0, 1.0]])
    >>> {name: round(score, 6) for name, score in scores.items()}
    {'printed': 1.0, 'intercept': 1.0, 'centred': 1.0}
    """
    return {
        "printed": trace_r_squared(features, estimated),
        "intercept": trace_r_squared(features, estimated, intercept=True),
        "centred": trace_r_squared(features, estimated, centred=True),
    }


# -------------------------------------------------------------------- the parts of a process


def _idiosyncratic(
    rng: np.random.Generator, T: int, variance: FloatArray, alpha: float, tau: float
) -> FloatArray:
    """(T, n) paths with Q_ij = tau^|i-j| (1 - alpha^2) sqrt(g_i g_j)."""
    draws = rng.normal(size=(T, variance.size))
    if tau > 0:
        places = np.arange(variance.size)
        draws = draws @ np.linalg.cholesky(tau ** np.abs(places[:, None] - places)).T
    return first_order(draws * np.sqrt((1.0 - alpha**2) * variance), alpha)


def _check(options: dict[str, Any]) -> None:
    for name in ("n_periods", "n_series", "n_factors"):
        at_least(name, options[name], 1)
    at_least("seed", options["seed"], 0)
    for name, known in (("measurement", ("linear", "nonlinear")), ("noise", ("paper", "reference_code"))):
        if options[name] not in known:
            raise ConfigurationError(f"{name} must be one of {', '.join(known)}, got {options[name]!r}")
    ranges = {
        "rho": (-1 < options["rho"] < 1, "lie in (-1, 1)"),
        "alpha": (-1 < options["alpha"] < 1, "lie in (-1, 1)"),
        "tau": (0 <= options["tau"] < 1, "lie in [0, 1)"),
        "u": (0 < options["u"] <= 0.5, "lie in (0, 1/2]"),
        "missing": (0 <= options["missing"] < 1, "be a share in [0, 1)"),
    }
    for name, (holds, words) in ranges.items():
        if not holds:
            raise ConfigurationError(f"{name} must {words}, got {options[name]!r}")
