"""How fast the dynamic factor model is: an EM iteration, a fit, and the memory of one, beside its peers.

    python benchmarks/dfm.py [--repeats 5] [--small]

The peers are statsmodels (`DynamicFactorMQ`, EM on a state with every idiosyncratic term) and NowcastBox
(`MixedFreqDFM`), where they are installed; an absent one is named. Data are the same arrays in the same
process, calls in turns. An iteration is the difference of fits of k + 1 and of 1 iterations. Processor time
stands beside wall time: a busy machine changes the second.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

import numpy as np
from _common import fresh_process, machine, markdown_table
from threadpoolctl import threadpool_limits

from latentfactors.kernels.dynamic_factor import (
    DynamicFactorParameters,
    expectation,
    loglikelihood,
    observation_pattern,
)
from latentfactors.kernels.dynamic_factor_em import Structure, fit_dynamic_factor, maximise, start_parameters
from latentfactors.kernels.mixed_frequency import mariano_murasawa_weights

# series, periods, factors, share missing, AR(1) terms, quarterly series, peer's iterations, bar
CASES = [
    (20, 200, 2, 0.0, False, 0, 20, "10x"),
    (100, 300, 3, 0.0, False, 0, 5, "60x"),
    (100, 300, 3, 0.1, False, 0, 5, "100x"),
    (300, 480, 4, 0.1, False, 0, 1, "500x"),
    (130, 480, 1, 0.0, True, 1, 1, "80x"),
]


def installed(name: str) -> str | None:
    """Its version, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def simulate(
    n: int, T: int, r: int, missing: float, ar: bool, low: int, *, phi: float = 0.5, noise: float = 1.0
) -> np.ndarray:
    """Standardised (T, n + low) values; the last `low` are quarterly with Mariano-Murasawa weights."""
    rng = np.random.default_rng(0)
    f, e = np.zeros((T + 50, r)), np.zeros((T + 50, n + low))
    loadings = rng.normal(size=(n + low, r))
    for t in range(1, T + 50):
        f[t] = np.linspace(0.8, 0.5, r) * f[t - 1] + rng.normal(size=r)
        e[t] = (phi if ar else 0.0) * e[t - 1] + noise * rng.normal(size=n + low)
    y = f @ loadings.T + e
    for j in range(n, n + low):
        monthly = np.convolve(y[:, j], mariano_murasawa_weights())[: T + 50]
        y[:, j] = np.where((np.arange(T + 50) - 50) % 3 == 2, monthly, np.nan)
    y = y[50:]
    hidden = rng.uniform(size=y.shape) < missing
    hidden[:, n:] = False
    y[hidden] = np.nan
    return (y - np.nanmean(y, axis=0)) / np.nanstd(y, axis=0, ddof=1)


def setting(n: int, r: int, ar: bool, low: int) -> tuple[np.ndarray, Structure]:
    """Weights and structure."""
    weights = np.zeros((n + low, 5 if low else 1))
    weights[:, 0] = 1.0
    if low:
        weights[n:] = mariano_murasawa_weights()
    return weights, Structure(ar, np.ones((n + low, r), dtype=bool), (np.arange(r),))


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def statsmodels_fit(values: np.ndarray, r: int, ar: bool, low: int, iterations: int, tolerance: float) -> Any:
    """Its EM for a number of iterations."""
    import pandas as pd
    from statsmodels.tsa.statespace.dynamic_factor_mq import DynamicFactorMQ

    T, n = values.shape
    months = pd.period_range("1980-01", periods=T, freq="M")
    monthly = pd.DataFrame(values[:, : n - low], index=months, columns=[f"y{i}" for i in range(n - low)])
    quarterly = None
    if low:
        kept = values[2::3, n - low :]
        quarters = pd.period_range("1980Q1", periods=len(kept), freq="Q")
        quarterly = pd.DataFrame(kept, index=quarters, columns=[f"q{i}" for i in range(low)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = DynamicFactorMQ(
            monthly,
            endog_quarterly=quarterly,
            factors=1,
            factor_multiplicities=r,
            idiosyncratic_ar1=ar,
            standardize=False,
        )
        return model.fit(disp=False, maxiter=iterations, tolerance=tolerance, cov_type="none")


def iteration_rows(repeats: int, small: bool) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """Milliseconds an iteration, ours and theirs; then fits to convergence."""
    peer = installed("statsmodels")
    rows, fits = [], []
    for n, T, r, missing, ar, low, k, bar in CASES:
        values = simulate(n, T, r, missing, ar, low)
        weights, structure = setting(n, r, ar, low)
        pattern = observation_pattern(values, autoregressive=ar, lags=1, weights=weights)
        start = start_parameters(values, weights, structure, 1)

        def sweeps(
            count: int, start: Any = start, pattern: Any = pattern, structure: Any = structure
        ) -> DynamicFactorParameters:
            parameters = start
            for _ in range(count):
                parameters = maximise(parameters, expectation(parameters, pattern), pattern, structure)
            return parameters

        def fit(
            values: Any = values, weights: Any = weights, structure: Any = structure, ar: bool = ar
        ) -> Any:
            pattern = observation_pattern(values, autoregressive=ar, lags=1, weights=weights)
            start = start_parameters(values, weights, structure, 1)
            return fit_dynamic_factor(start, pattern, structure, tolerance=1e-5, max_iterations=3000)

        label = f"n={n}{f'+{low} quarterly' if low else ''}, T={T}, r={r}"
        label += f"{', 10% missing' if missing else ''}{', AR(1)' if ar else ''}"
        heavy = n >= 300 or low > 0
        sweeps(2)
        ours, theirs = [], []
        for _ in range(1 if heavy and small else repeats):
            ours.append(timed(partial(sweeps, 20)))
            if peer and not (heavy and small):
                long = timed(partial(statsmodels_fit, values, r, ar, low, k + 1, 0.0))
                short = timed(partial(statsmodels_fit, values, r, ar, low, 1, 0.0))
                theirs.append(((long[0] - short[0]) / k, (long[1] - short[1]) / k))
            if heavy and len(theirs) == 2:
                break
        own = [1e3 * median(each) / 20 for each in zip(*ours, strict=True)]
        if theirs:
            other = [1e3 * median(each) for each in zip(*theirs, strict=True)]
            rows.append(
                (
                    label,
                    *(f"{x:.2f}" for x in own),
                    *(f"{x:.0f}" for x in other),
                    f"{other[1] / own[1]:.0f}x",
                    bar,
                )
            )
        else:
            rows.append((label, *(f"{x:.2f}" for x in own), "-", "-", "-", bar))
        found = fit()
        taken = [timed(fit) for _ in range(repeats)]
        line = [label, found.n_iterations, *(f"{median(each):.3f}" for each in zip(*taken, strict=True))]
        if peer and not heavy:
            spent = timed(partial(statsmodels_fit, values, r, ar, low, 500, 1e-6))
            line += [f"{spent[0]:.2f}", f"{spent[0] / float(line[2]):.0f}x"]
        else:
            line += ["-", "-"]
        fits.append(tuple(line))
    return rows, fits


def nowcastbox_row(repeats: int) -> list[tuple[object, ...]]:
    """n=100, T=300, three factors, AR(1): likelihoods of both parameter vectors under our likelihood."""
    values = simulate(100, 300, 3, 0.0, True, 0, noise=1.5)
    weights, structure = setting(100, 3, True, 0)

    def fit() -> Any:
        pattern = observation_pattern(values, autoregressive=True, lags=1, weights=weights)
        start = start_parameters(values, weights, structure, 1)
        return fit_dynamic_factor(start, pattern, structure, tolerance=1e-5, max_iterations=3000)

    found = fit()
    pattern = observation_pattern(values, autoregressive=True, lags=1, weights=weights)
    taken = [timed(fit) for _ in range(repeats)]
    wall, processor = (median(each) for each in zip(*taken, strict=True))
    rows: list[tuple[object, ...]] = [
        ("latentfactors", found.n_iterations, f"{found.loglikelihood:.2f}", f"{wall:.2f}", f"{processor:.2f}")
    ]
    if installed("nowcastbox") is None:
        return [*rows, ("nowcastbox", "not installed", "-", "-", "-")]
    import pandas as pd
    from nowcastbox.models import MixedFreqDFM

    frame = pd.DataFrame(
        values,
        index=pd.period_range("1990-01", periods=300, freq="M"),
        columns=[f"y{i}" for i in range(100)],
    )
    for label, options in (("its default tolerance", {}), ("300 iterations", {"tol": 0.0, "max_iter": 300})):
        results: list[Any] = []

        def peer(options: Any = options, results: Any = results) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results.append(MixedFreqDFM(n_factors=3, **options).fit(frame, target="y0"))

        spent = timed(peer)
        theirs = results[0].em_parameters
        same = DynamicFactorParameters(
            np.asarray(theirs.loadings)[:, :3],
            np.asarray(theirs.idio_ar),
            np.asarray(theirs.idio_var),
            np.asarray(theirs.transition[0])[None, :, :3],
            np.asarray(theirs.factor_cov[0]),
        )
        reached = loglikelihood(same, pattern)
        steps = len(results[0].loglikelihood_path) - 1
        rows.append((f"nowcastbox, {label}", steps, f"{reached:.2f}", *(f"{x:.2f}" for x in spent)))
    return rows


def memory_rows(small: bool) -> list[tuple[object, ...]]:
    """Peak of a fresh process, and what importing and simulating alone takes."""
    here = __file__.rsplit("/", 1)[0]
    setup = (
        f"import sys; sys.path.insert(0, {here!r})\n"
        "from dfm import *\nvalues = simulate(130, 480, 1, 0.0, True, 1)\n"
        "weights, structure = setting(130, 1, True, 1)"
    )
    ours = (
        "pattern = observation_pattern(values, autoregressive=True, lags=1, weights=weights)\n"
        "start = start_parameters(values, weights, structure, 1)\n"
        "fit_dynamic_factor(start, pattern, structure, tolerance=1e-5, max_iterations=3000)"
    )
    calls = {"latentfactors, to convergence": ours}
    if installed("statsmodels") and not small:
        calls["statsmodels, one iteration"] = "statsmodels_fit(values, 1, True, 1, 1, 0.0)"
    rows: list[tuple[object, ...]] = []
    for name, code in calls.items():
        measured = fresh_process(code, setup)
        rows.append(
            (name, f"{measured.before_bytes / 1e6:.0f}", f"{measured.peak_bytes / 1e6:.0f}", "< 300 MB")
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="leave out the peer's slowest cases")
    arguments = parser.parse_args()
    peers = ", ".join(
        f"{name} {installed(name) or 'not installed'}" for name in ("statsmodels", "nowcastbox")
    )
    print(f"{machine()}; peers: {peers}. One BLAS thread.\n")
    memory = memory_rows(arguments.small)
    with threadpool_limits(limits=1):
        rows, fits = iteration_rows(arguments.repeats, arguments.small)
        print("Milliseconds of one EM iteration (medians; ratio of processor times).\n")
        head = ("case", "wall", "CPU", "statsmodels wall", "CPU", "ratio", "bar")
        print(markdown_table(head, rows))
        print("\nFrom values to a converged fit, seconds; statsmodels to its default tolerance, once.\n")
        head = ("case", "evaluations", "wall", "CPU", "statsmodels wall", "ratio")
        print(markdown_table(head, fits))
        print("\nn=100, T=300, r=3, AR(1), seconds; log-likelihoods all evaluated here, without noise.\n")
        table = nowcastbox_row(arguments.repeats)
        print(markdown_table(("code", "iterations", "log-likelihood", "wall", "CPU"), table))
    print("\nMegabytes of a fresh process, n=130+1 quarterly, T=480, AR(1).\n")
    print(markdown_table(("code", "before", "peak", "bar"), memory))


if __name__ == "__main__":
    main()
