"""How fast PTFA's likelihood is maximised, and how high, beside the `ptfa` package (0.4.8) where installed.

    python benchmarks/targeted.py [--slow-peer]

Both get the same standardised arrays in one process; the peer runs to its own tolerance
(`r2_stop=False`). Its log-likelihood is computed here from the parameters that it ends with. `--slow-peer`
adds its minutes-long VAR.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from _common import machine, markdown_table
from threadpoolctl import threadpool_limits

from latentfactors.kernels.mixed_frequency import series_block
from latentfactors.kernels.targeted_dynamics import (
    FactorParameters,
    dynamic_start,
    filter_factors,
    fit_factors,
)
from latentfactors.kernels.targeted_em import fill, fit_targeted
from latentfactors.kernels.targeted_posterior import noise_by_series, posterior_moments

CASES = {
    "200, 10, 3, 2": ((200, 10, 3, 2, 0.0), "20x"),
    "740, 126, 1, 7": ((740, 126, 1, 7, 0.0), "50x"),
    "2000, 500, 3, 5": ((2000, 500, 3, 5, 0.0), "50x"),
    "740, 126, 1, 7, 20% missing": ((740, 126, 1, 7, 0.2), "20x"),
}


def peers():
    """The peer's static and dynamic classes, or None."""
    try:
        from ptfa import ProbabilisticTFA, ProbabilisticTFA_DynamicFactors
    except ImportError:
        return None
    return ProbabilisticTFA, ProbabilisticTFA_DynamicFactors


def draw(n_periods, p, q, k, missing=0.0, persistence=0.0):
    """Uniform loadings, unit noise, standardised over observed cells."""
    rng = np.random.default_rng(0)
    f = rng.normal(size=(n_periods, k))
    for t in range(1, n_periods):
        f[t] += persistence * f[t - 1]
    z = f @ rng.uniform(size=(p + q, k)).T + rng.normal(size=(n_periods, p + q))
    z[rng.uniform(size=z.shape) < missing] = np.nan
    z = (z - np.nanmean(z, axis=0)) / np.nanstd(z, axis=0)
    return z[:, :p], z[:, p:]


def static_value(x, y, peer):
    """Log-likelihood of the peer's parameters."""
    loadings = np.vstack([peer.P, peer.Q])
    noise = noise_by_series(float(peer.sigma2_x), float(peer.sigma2_y), x.shape[1], len(loadings))
    return posterior_moments(*fill(np.hstack([x, y])), loadings, noise)[2]


def peer_fit(kind, x, y, k):
    """The peer, converged by its own rule, from a fixed start; it writes into what it is given."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = kind(k)
        model.fit(
            x.copy(), y.copy(), standardize=False, track_r2=False, r2_stop=False, rng=np.random.default_rng(0)
        )
    return model


def timed(call):
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def static_rows(found):
    """One line a case: median wall and CPU seconds of both, in turns, and both log-likelihoods."""
    for name, ((n, p, q, k, missing), bar) in CASES.items():
        x, y = draw(n, p, q, k, missing)
        ours = fit_targeted(x, y, k)
        mine, theirs = [], []
        peer = None
        for _ in range(3):
            mine += [timed(lambda: fit_targeted(x, y, k)) for _ in range(9)]  # noqa: B023
            if found:
                kept = []
                theirs.append(timed(lambda: kept.append(peer_fit(found[0], x, y, k))))  # noqa: B023
                peer = kept[0]
        here = np.median(mine, axis=0)
        row = [name, f"{here[0]:.4f}", f"{here[1]:.4f}", "not installed", "", "", ""]
        if theirs:
            there = np.median(theirs, axis=0)
            row[3:] = [f"{each:.3f}" for each in there] + [f"{each:.0f}x" for each in there / here]
        yield *row, bar, f"{ours.loglikelihood:.1f}", f"{static_value(x, y, peer):.1f}" if peer else ""


def dynamic_row(found, with_peer):
    """VAR(1), T=740, p=126, q=1, k=7."""
    n, p, q, k = 740, 126, 1, 7
    x, y = draw(n, p, q, k, persistence=0.7)
    blocks = [series_block(x, group=0), series_block(y, group=1)]

    def fit():
        static = fit_targeted(x, y, k)
        given = FactorParameters(
            (static.loadings[:p], static.loadings[p:]),
            np.array([static.x_variance, static.y_variance]),
            np.zeros((0, k, k)),
        )
        return fit_factors(blocks, dynamic_start(blocks, given, 1))

    ours = fit()
    mine, cpu = np.median([timed(fit) for _ in range(3)], axis=0)
    slow = slow_cpu = ratio = ratio_cpu = value = ""
    if found and with_peer:
        kept = []
        taken, taken_cpu = timed(lambda: kept.append(peer_fit(found[1], x, y, k)))
        peer = kept[0]
        slow, slow_cpu = f"{taken:.1f}", f"{taken_cpu:.1f}"
        ratio, ratio_cpu = f"{taken / mine:.0f}x", f"{taken_cpu / cpu:.0f}x"
        # the peer's rows are x_t' = f_t' P', f_t' = f_(t-1)' A; innovations N(0, I)
        given = FactorParameters(
            (peer.P, peer.Q), np.array([peer.sigma2_x, peer.sigma2_y], dtype=float), peer.A.T[None]
        )
        try:
            value = f"{filter_factors(blocks, given).loglikelihood:.1f}"
        except ValueError as error:
            value = f"none: {error}"
    speeds = (f"{mine:.3f}", f"{cpu:.3f}", slow, slow_cpu, ratio, ratio_cpu, "30x")
    return "740, 126, 1, 7, VAR(1)", *speeds, f"{ours.loglikelihood:.1f}", value


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slow-peer", action="store_true", help="also run the peer's VAR: minutes")
    arguments = parser.parse_args()
    found = peers()
    with threadpool_limits(limits=1, user_api="blas"):
        rows = [*static_rows(found), dynamic_row(found, arguments.slow_peer)]
    print(f"Seconds (medians) and log-likelihoods, BLAS on one thread ({machine()}).\n")
    head = (
        "T, p, q, k",
        "here, wall",
        "here, CPU",
        "ptfa, wall",
        "ptfa, CPU",
        "ratio, wall",
        "ratio, CPU",
        "bar",
        "log-likelihood here",
        "of ptfa",
    )
    print(markdown_table(head, rows))


if __name__ == "__main__":
    main()
