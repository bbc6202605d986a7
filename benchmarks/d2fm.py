"""How well and how fast the deep dynamic factor model finds factors, beside the linear one and PCA.

    python benchmarks/d2fm.py [--seeds 10] [--restarts 8] [--large]

The paper's processes (`simulate.dynamic_factor_panel`, n = 100, T = 200, rho = .9, alpha = .5). The metric is
the trace R2 of the codes: as the paper prints it (uncentred, without intercept), with an intercept, and
centred. The printed one rewards a code that carries a constant, as ReLU codes do; read the other two. The
process has r factors and r~ features; all models have r~ factors. Processor seconds of a fit beside it, since
a busy machine changes wall time; the first fit, which compiles, is timed in a fresh process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import numpy as np
from _common import machine, markdown_table
from threadpoolctl import threadpool_limits

from latentfactors import D2FMConfig, D2FMModel, DFMConfig, DynamicFactorModel, PCAConfig, PCAModel
from latentfactors.simulate import dynamic_factor_panel, trace_r_squareds

COLD = """
import time
from latentfactors import D2FMConfig, D2FMModel
from latentfactors.simulate import dynamic_factor_panel
panel = dynamic_factor_panel(200, 100, 1, measurement="nonlinear").panel
wall, cpu = time.perf_counter(), time.process_time()
D2FMModel(D2FMConfig(n_factors=3, hidden_units=(24, 12, 6), activation="relu", code_link="relu")).fit(panel)
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def deep(K: int, measurement: str, restarts: int, seed: int = 0) -> D2FMModel:
    """The paper's Monte Carlo network: widths 8K, 4K, 2K, K, ReLU; a linear code for the linear process."""
    return D2FMModel(
        D2FMConfig(
            n_factors=K,
            hidden_units=(8 * K, 4 * K, 2 * K),
            activation="relu",
            code_link="relu" if measurement == "nonlinear" else "linear",
            max_iterations=10,
            n_restarts=restarts,
            seed=seed,
        )
    )


def scores(measurement: str, r: int, seed: int, restarts: int) -> dict[str, tuple[float, ...]]:
    """Model -> printed, with intercept, centred, processor seconds."""
    truth = dynamic_factor_panel(200, 100, r, measurement=measurement, seed=seed)
    K, panel = truth.features.shape[1], truth.panel
    found = {}
    for name in ("D2FM", "DFM", "PCA"):
        began = time.process_time()
        if name == "D2FM":
            model = deep(K, measurement, restarts)
            model.fit(panel)
            spent, factors = time.process_time() - began, model.encode(panel)
        elif name == "DFM":
            model = DynamicFactorModel(DFMConfig(n_factors=K, tolerance=1e-3, max_iterations=300))
            model.fit(panel)
            spent, factors = time.process_time() - began, model.extract(panel).factor_returns
        else:
            wide = panel.wide()
            standard = panel.with_values(panel.index.gather((wide - wide.mean(axis=0)) / wide.std(axis=0)))
            model = PCAModel(PCAConfig(n_factors=K))
            model.fit(standard)
            spent, factors = time.process_time() - began, model.extract(standard).factor_returns
        found[name] = (*trace_r_squareds(truth.features, factors).values(), spent)
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--restarts", type=int, default=8)
    parser.add_argument("--large", action="store_true", help="also time a fit with n = 300, T = 300")
    options = parser.parse_args()
    print(machine())
    print(f"\nMedians (worst) of {options.seeds} seeds, best of {options.restarts} restarts by loss.\n")
    rows = []
    with threadpool_limits(limits=1, user_api="blas"):
        for measurement, r in (("nonlinear", 1), ("nonlinear", 3), ("linear", 1), ("linear", 3)):
            runs = [scores(measurement, r, seed, options.restarts) for seed in range(options.seeds)]
            for name in runs[0]:
                got = np.array([run[name] for run in runs])
                cells = [f"{np.median(got[:, j]):.3f} ({got[:, j].min():.3f})" for j in range(3)]
                rows.append([measurement, r, name, *cells, f"{np.median(got[:, 3]):.2f}"])
                print(rows[-1], file=sys.stderr, flush=True)
        header = ["process", "r", "model", "printed", "with intercept", "centred", "processor s a fit"]
        print(markdown_table(header, rows))
        print()
        timings = []
        for n, T in ((100, 200), *(((300, 300),) if options.large else ())):
            panel = dynamic_factor_panel(T, n, 1, measurement="nonlinear").panel
            for _ in range(2):
                began = time.process_time()
                summary = deep(3, "nonlinear", 1).fit(panel)
                spent = time.process_time() - began
            timings.append([f"warm, n={n}, T={T}", f"{spent:.2f}", f"{summary.n_iterations} iterations"])
        child = subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True, check=True)
        wall, cpu = map(float, child.stdout.split())
        timings.append(["first, n=100, T=200, with compilation", f"{cpu:.2f}", f"wall {wall:.1f} s"])
        print(markdown_table(["one restart", "processor s", ""], timings))


if __name__ == "__main__":
    main()
