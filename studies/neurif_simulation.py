"""Neural instrumented factorisation on simulated panels, out of sample.

    python studies/neurif_simulation.py [--seeds 5] [--epochs 12] [--members 3] [--null 10]

N=300, T=360, P=12, K=3; fitted on the first two thirds, of which the last 36 months validate; measured on
the last third. Layers are half as wide and half as many as the defaults, to fit a small machine. Writes the
section neurif_simulation of studies/RESULTS.md; panels without signal have a section of their own (`--null`),
so that each can be run alone. Ablations: neurif_ablation.py.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _common import cpu_seconds, machine, table, write_section

from latentfactors import (
    BetaLambdaMapper,
    ExpandingMeanFactorForecaster,
    IPCAConfig,
    IPCAModel,
    LatentFactorForecastPipeline,
    NativeFactorForecaster,
    NeurIFConfig,
    NeurIFModel,
    TrainingConfig,
    VARFactorForecaster,
)
from latentfactors.simulate import InstrumentedTruth, instrumented_panel

CUT, VALIDATION, K = 240, 36, 3
FORECASTERS = {
    "native": NativeFactorForecaster,
    "mean": ExpandingMeanFactorForecaster,
    "VAR(1)": VARFactorForecaster,
}


def config(epochs: int, members: int, validation: int = VALIDATION) -> NeurIFConfig:
    """One configuration for all processes."""
    training = TrainingConfig(
        epochs=epochs,
        batch=12,
        optimiser="adamw",
        learning_rate=4e-3,
        weight_decay=1e-5,
        schedule="cosine",
        gradient_clip=1.0,
        validation=validation,
        patience=10,
        default_checkpoint="best",
        n_ensemble=members,
    )
    return NeurIFConfig(n_factors=K, width=32, temporal_layers=2, induced_points=16, training=training)


def scores(truth: InstrumentedTruth, model: Any, names: tuple[str, ...], cut: int = CUT) -> dict[str, float]:
    """Total R2, and predictive R2 by forecasters, from period `cut` on."""
    model.fit(truth.panel.between(0, cut))
    state = model.extract(truth.panel)
    found = {"total": truth.r2(state.reconstruction(), cut)}
    for name in names:
        flow = LatentFactorForecastPipeline(
            model=model, forecaster=FORECASTERS[name](), mapper=BetaLambdaMapper()
        )
        forecaster = flow.forecaster
        forecaster.fit(model.extract(truth.panel.between(0, cut)))
        forecast = flow.mapper.predict(state, forecaster.predict(state))
        found[name] = truth.r2(forecast.expected_values, cut)
    return found


def one_seed(kind: str, seed: int, epochs: int, members: int) -> dict[str, float]:
    """All models on one panel."""
    truth = instrumented_panel(kind, seed=seed)
    ipca = scores(truth, IPCAModel(IPCAConfig(n_factors=K)), ("mean", "VAR(1)"))
    model = NeurIFModel(config(epochs, members))
    found = scores(truth, model, ("native", "mean", "VAR(1)"))
    row = {
        "oracle total": truth.oracle_total_r2(CUT),
        "IPCA total": ipca["total"],
        "NeurIF total": found["total"],
        "oracle predictive": truth.oracle_predictive_r2(CUT),
        "IPCA mean": ipca["mean"],
        "IPCA VAR(1)": ipca["VAR(1)"],
        "NeurIF mean": found["mean"],
        "NeurIF VAR(1)": found["VAR(1)"],
        "NeurIF premia": found["native"],
        "epochs": float(model.summary.n_iterations),
    }
    print(kind, seed, {name: round(value, 4) for name, value in row.items()}, flush=True)
    return row


def null_seeds(n: int, epochs: int, members: int) -> np.ndarray:
    """(n,) predictive R2 of panels without any signal, N=100."""
    found = []
    for seed in range(n):
        truth = instrumented_panel("nonlinear", n_assets=100, null=True, seed=seed)
        found.append(scores(truth, NeurIFModel(config(epochs, members)), ("native",))["native"])
        print("null", seed, round(found[-1], 5), flush=True)
    return np.array(found)


def spread(values: np.ndarray, digits: int = 3) -> str:
    """Mean and range."""
    return f"{values.mean():.{digits}f} ({values.min():.{digits}f} to {values.max():.{digits}f})"


def bars(results: dict[str, list[dict[str, float]]]) -> list[str]:
    """What was asked for, and in how many seeds it holds."""

    def of(kind: str, name: str) -> np.ndarray:
        return np.array([row[name] for row in results[kind]])

    checks = {}
    if "linear" in results:
        checks["linear: total R2 within .5 point of IPCA"] = (
            of("linear", "NeurIF total") >= of("linear", "IPCA total") - 0.005
        )
    if "nonlinear" in results:
        kind = "nonlinear"
        checks["nonlinear: total R2 at least 90% of the oracle's"] = of(kind, "NeurIF total") >= 0.9 * of(
            kind, "oracle total"
        )
        checks["nonlinear: predictive R2 of the model's own premia at least half of the oracle's"] = of(
            kind, "NeurIF premia"
        ) >= 0.5 * of(kind, "oracle predictive")
    return [f"- {name}: {int(held.sum())} of {held.size} seeds" for name, held in checks.items()]


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--null", type=int, default=0, help="seeds of the panel without signal")
    arguments = parser.parse_args()
    sizes = (arguments.epochs, arguments.members)
    if arguments.null:
        command = f"studies/neurif_simulation.py --null {arguments.null} --members {arguments.members}"
        report("neurif_no_signal", command, without_signal, arguments.null, *sizes)
    else:
        report("neurif_simulation", "studies/neurif_simulation.py", recovery, arguments.seeds, *sizes)


def report(
    name: str,
    command: str,
    study: Callable[[int, int, int], list[str]],
    seeds: int,
    epochs: int,
    members: int,
) -> None:
    """Run a study and write its section with what it cost."""
    began, cpu = time.perf_counter(), cpu_seconds()
    found = study(seeds, epochs, members)
    text = [
        f"`python {command}`: K=3, 20% missing; fitted on the first two thirds of the months, measured",
        "on the last third. Width 32, 2 temporal layers, 16 induced points, "
        f"{members} {'member' if members == 1 else 'members'},",
        f"at most {epochs} epochs, AdamW 4e-3 with a cosine schedule. R2 against zero, mean over",
        f"{seeds} seeds (smallest to largest).",
        "",
        *found,
        "",
        f"{machine('jax')}; {time.perf_counter() - began:,.0f} s of wall time and "
        f"{cpu_seconds() - cpu:,.0f} s of processor time, on a machine shared with other work (load average "
        f"{os.getloadavg()[2]:.0f})"
        + ("; some programs came compiled from JAX's persistent cache." if cached() else "."),
    ]
    write_section(name, "\n".join(text))


def cached() -> bool:
    """Whether JAX keeps compiled programs, so that the time of a run says less."""
    return bool(os.environ.get("JAX_COMPILATION_CACHE_DIR"))


def recovery(seeds: int, epochs: int, members: int) -> list[str]:
    """Linear and nonlinear loadings against IPCA and the oracle."""
    results: dict[str, list[dict[str, float]]] = {"linear": [], "nonlinear": []}
    for seed in range(seeds):
        for kind, rows in results.items():
            rows.append(one_seed(kind, seed, epochs, members))
    names = [name for name in results["linear"][0] if name != "epochs"]
    lines = [
        [name, *(spread(np.array([row[name] for row in rows])) for rows in results.values())]
        for name in names
    ]
    return [
        "N=300, P=12, T=360, of which 36 months validate.",
        "",
        table(["R2", *results], lines),
        "",
        *bars(results),
    ]


def without_signal(seeds: int, epochs: int, members: int) -> list[str]:
    """Returns permuted across all cells: nothing can be forecast."""
    null = null_seeds(seeds, epochs, members)
    error = null.std(ddof=1) / np.sqrt(null.size)
    verdict = "below" if null.mean() < 2 * error else "not below"
    return [
        f"N=100, P=12, T=360, of which 36 months validate; returns permuted across cells: mean predictive R2 "
        f"{null.mean():.5f}, standard error {error:.5f}, {verdict} two standard errors."
    ]


if __name__ == "__main__":
    main()
