"""Predictors and targets that share factors: the designs of probabilistic targeted factor analysis.

Model            x_t = P f_t + e_x,t    P (p, k)        y_t = Q f_t + e_y,t    Q (q, k)
Loadings         entries U(0, 1), or N(0, 1)
Factors          f_t ~ N(0, I_k), or f_t = A f_(t-1) + u_t with A = diag(persistence), u_t ~ N(0, I_k),
                 started in its stationary distribution
DGP.1            e_x ~ N(0, s_x^2 I), e_y ~ N(0, s_y^2 I)
DGP.2            e_x ~ N(0, s_x^2 C_p), e_y ~ N(0, s_y^2 C_q), C Toeplitz with entries .5^|i-j|
DGP.3            e_x = s_x t(3), e_y = chi^2(1), independent: heavy tails, and a skewed noise of mean 1
Volatility       s^2(t) = decay s^2(t-1) + (1 - decay) |e_(t-1)|^2 / n, separately for x and y, started at
                 s_x^2 and s_y^2 (DGP.1): what an EWMA filter takes the world to be
Quarterly        each target is seen once a quarter, in its last month, as the mean of its three months
Missing          cells of x and of y hidden at random, with shares of their own

Defaults are the paper's: T = 200, p = 10, q = 3, k = 2, s_x = s_y = 1.
References: Herculano & Montoya-Blandon (2026), Probabilistic Targeted Factor Analysis, DGP.1-3 and
appendix E.2 (missing cells).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError
from latentfactors.estimator import at_least, check_number, freeze
from latentfactors.panel import Panel
from latentfactors.periods import Frequency, period_range
from latentfactors.rows import SeriesInfo
from latentfactors.simulate.parts import first_order, streams

__all__ = ["SimulatedTargets", "targeted_panel"]

FloatArray = npt.NDArray[np.float64]
Process = Literal["DGP.1", "DGP.2", "DGP.3"]
_CORRELATION = 0.5  # of neighbours in DGP.2
_QUARTER = 3


@dataclass(frozen=True, eq=False, kw_only=True)
class SimulatedTargets:
    """A panel of predictors and targets, and the truth behind it.

    Attributes
    ----------
    panel
        Monthly series from 1990-01-31: predictors x1..xp, then targets y1..yq.
    predictors, targets
        Their names.
    factors : (T, k)
    predictor_loadings, target_loadings : (p, k), (q, k)
        P and Q.
    complete : (T, p + q)
        Values before any was hidden; of quarterly targets the monthly ones.
    common : (T, p + q)
        P f_t and Q f_t without noise.
    volatility : (T, 2)
        s_x(t) and s_y(t), standard deviations; constant without EWMA volatility.
    """

    panel: Panel
    predictors: tuple[str, ...]
    targets: tuple[str, ...]
    factors: FloatArray
    predictor_loadings: FloatArray
    target_loadings: FloatArray
    complete: FloatArray
    common: FloatArray
    volatility: FloatArray

    def __post_init__(self) -> None:
        freeze(self)


def targeted_panel(
    n_periods: int = 200,
    n_predictors: int = 10,
    n_targets: int = 3,
    n_factors: int = 2,
    *,
    process: Process = "DGP.1",
    loadings: Literal["uniform", "normal"] = "uniform",
    predictor_noise: float = 1.0,
    target_noise: float = 1.0,
    missing_predictors: float = 0.0,
    missing_targets: float = 0.0,
    persistence: Sequence[float] | None = None,
    decay: float | None = None,
    quarterly_targets: bool = False,
    seed: int = 0,
) -> SimulatedTargets:
    """Draw predictors and targets from one of the designs above.

    Every part has a random stream of its own: another share of missing cells hides more of the same panel.

    Parameters
    ----------
    n_periods, n_predictors, n_targets, n_factors
        T, p, q, k, at least 1 each.
    process
        Law of the noise.
    loadings
        Law of the entries of P and Q; "normal" is what the authors' package draws.
    predictor_noise, target_noise
        s_x and s_y, >= 0. DGP.3 has no s_y.
    missing_predictors, missing_targets
        Shares of cells hidden at random, in [0, 1).
    persistence
        (k,) diagonal of A, each in (-1, 1), such as (.8, .5); None: independent factors.
    decay
        Of EWMA volatility, in (0, 1), such as .94; None: constant. DGP.1 only.
    quarterly_targets
        Whether targets are quarterly means; an incomplete last quarter is not seen.
    seed
        >= 0.

    Returns
    -------
    SimulatedTargets

    Raises
    ------
    ConfigurationError
        A parameter outside its range, or a combination that the designs do not have.

    Examples
    --------
    >>> truth = targeted_panel(seed=1)
    >>> truth.panel
    Panel(200 periods 1990-01-31..2006-08-31, 13 assets, 2600 rows, series, 'M')
    >>> truth.targets, truth.target_loadings.shape
    (('y1', 'y2', 'y3'), (3, 2))
    """
    _check(locals())
    rng = streams(seed, ("loadings", "factors", "noise x", "noise y", "hidden x", "hidden y"))
    n = (n_predictors, n_targets)
    draw = rng["loadings"].uniform if loadings == "uniform" else rng["loadings"].normal
    P, Q = (draw(size=(size, n_factors)) for size in n)
    factors = _factors(rng["factors"], n_periods, n_factors, persistence)
    common = factors @ np.vstack([P, Q]).T
    sides = [
        _noise(rng[f"noise {side}"], (n_periods, size), side, process, scale, decay)
        for side, size, scale in zip("xy", n, (predictor_noise, target_noise), strict=True)
    ]
    complete = common + np.hstack([noise for noise, _ in sides])
    values = complete.copy()
    if quarterly_targets:
        values[:, n_predictors:] = _quarterly_means(complete[:, n_predictors:])
    for side, columns, share in (
        ("x", slice(None, n_predictors), missing_predictors),
        ("y", slice(n_predictors, None), missing_targets),
    ):
        hidden = rng[f"hidden {side}"].random(size=values[:, columns].shape) < share
        values[:, columns][hidden] = np.nan
    names = tuple(f"{side}{i + 1}" for side, size in zip("xy", n, strict=True) for i in range(size))
    last = np.datetime64("1990-01") + np.timedelta64(n_periods - 1, "M")
    kinds: dict[bool, Frequency] = {False: "M", True: "Q"}
    frequencies: tuple[Frequency, ...] = tuple(
        kinds[quarterly_targets and i >= n_predictors] for i in range(sum(n))
    )
    panel = Panel.from_wide(
        values,
        universe="all",
        times=period_range("1990-01-31", last.astype("datetime64[D]"), "M"),
        assets=names,
        frequency="M",
        value_kind="series",
        series=SeriesInfo(frequency=frequencies),
    )
    return SimulatedTargets(
        panel=panel,
        predictors=names[:n_predictors],
        targets=names[n_predictors:],
        factors=factors,
        predictor_loadings=P,
        target_loadings=Q,
        complete=complete,
        common=common,
        volatility=np.column_stack([path for _, path in sides]),
    )


# -------------------------------------------------------------------- the parts of a process


def _factors(rng: np.random.Generator, T: int, k: int, persistence: Sequence[float] | None) -> FloatArray:
    """f_t = A f_(t-1) + u_t, u_t ~ N(0, I), A diagonal, from f_1 ~ N(0, (I - A^2)^-1)."""
    return first_order(rng.normal(size=(T, k)), 0.0 if persistence is None else persistence)


def _noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    side: str,
    process: Process,
    scale: float,
    decay: float | None,
) -> tuple[FloatArray, FloatArray]:
    """Noise (T, n) of one side and its standard deviation (T,) before each period."""
    T, n = shape
    if process == "DGP.3":
        draws = scale * rng.standard_t(3, size=shape) if side == "x" else rng.chisquare(1, size=shape)
        # the variance of t(3) is 3, of chi^2(1) 2
        return draws, np.full(T, scale * np.sqrt(3.0) if side == "x" else np.sqrt(2.0))
    draws = rng.normal(size=shape)
    if process == "DGP.2":
        places = np.arange(n)
        draws = draws @ np.linalg.cholesky(_CORRELATION ** np.abs(places[:, None] - places)).T
    volatility = np.full(T, scale)
    if decay is not None:
        for t in range(1, T):
            step = decay + (1.0 - decay) * np.mean(draws[t - 1] ** 2)
            volatility[t] = volatility[t - 1] * np.sqrt(step)
    return draws * volatility[:, None], volatility


def _quarterly_means(values: FloatArray) -> FloatArray:
    """The mean of each calendar quarter in its last month, NaN in the others."""
    out = np.full_like(values, np.nan)
    quarters = len(values) // _QUARTER
    means = values[: quarters * _QUARTER].reshape(quarters, _QUARTER, -1).mean(axis=1)
    out[_QUARTER - 1 : quarters * _QUARTER : _QUARTER] = means
    return out


def _check(options: dict[str, Any]) -> None:
    for name in ("n_periods", "n_predictors", "n_targets", "n_factors"):
        at_least(name, options[name], 1)
    at_least("seed", options["seed"], 0)
    for name, known in (("process", get_args(Process)), ("loadings", ("uniform", "normal"))):
        if options[name] not in known:
            raise ConfigurationError(f"{name} must be one of {', '.join(known)}, got {options[name]!r}")
    for name in ("predictor_noise", "target_noise"):
        check_number(name, options[name])
    for name in ("missing_predictors", "missing_targets"):
        if not 0 <= options[name] < 1:
            raise ConfigurationError(f"{name} must be a share in [0, 1), got {options[name]!r}")
    process, decay, persistence = options["process"], options["decay"], options["persistence"]
    if process == "DGP.3" and options["target_noise"] != 1.0:
        raise ConfigurationError("DGP.3 draws the targets' noise from chi^2(1): leave target_noise at 1")
    if decay is not None and (process != "DGP.1" or not 0 < decay < 1):
        raise ConfigurationError(
            f"decay must lie in (0, 1) and go with process='DGP.1', got {decay!r} and {process!r}"
        )
    if persistence is not None:
        a = np.asarray(persistence, dtype=np.float64)
        if a.shape != (options["n_factors"],) or not np.all(np.abs(a) < 1):
            raise ConfigurationError(
                f"persistence must hold {options['n_factors']} numbers in (-1, 1), one per factor, got "
                f"{persistence!r}"
            )
