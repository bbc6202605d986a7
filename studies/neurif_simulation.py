"""Neural instrumented factorisation on simulated panels, out of sample.

    python studies/neurif_simulation.py [--seeds 5] [--epochs 12] [--members 1] [--null 10] [--ablation]

N=300, T=360, P=12, K=3; fitted on the first two thirds, of which the last 36 months validate; measured on the
last third. Layers are half as wide and half as many as the defaults, to fit a small machine. Writes the section
neurif_simulation of studies/RESULTS.md.
"""

from __future__ import annotations

import argparse
import os
import time
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
from latentfactors.evaluate import ablations
from latentfactors.simulate import InstrumentedTruth, instrumented_panel

CUT, VALIDATION, K = 240, 36, 3
FORECASTERS = {
    "native": NativeFactorForecaster,
    "mean": ExpandingMeanFactorForecaster,
    "VAR(1)": VARFactorForecaster,
}


def config(epochs: int, members: int, **options: Any) -> NeurIFConfig:
    """One configuration for all processes."""
    training = TrainingConfig(
        epochs=epochs,
        batch=12,
        optimiser="adamw",
        learning_rate=4e-3,
        weight_decay=1e-5,
        schedule="cosine",
        gradient_clip=1.0,
        validation=VALIDATION,
        patience=10,
        default_checkpoint="best",
        n_ensemble=members,
    )
    sizes = {"width": 32, "temporal_layers": 2, "induced_points": 16}
    return NeurIFConfig(n_factors=K, training=training, **(sizes | options))


def scores(truth: InstrumentedTruth, model: Any, names: tuple[str, ...]) -> dict[str, float]:
    """Total R2, and predictive R2 by forecasters, on the last third."""
    model.fit(truth.panel.between(0, CUT))
    state = model.extract(truth.panel)
    found = {"total": truth.r2(state.reconstruction(), CUT)}
    for name in names:
        flow = LatentFactorForecastPipeline(
            model=model, forecaster=FORECASTERS[name](), mapper=BetaLambdaMapper()
        )
        forecaster = flow.forecaster
        forecaster.fit(model.extract(truth.panel.between(0, CUT)))
        forecast = flow.mapper.predict(state, forecaster.predict(state))
        found[name] = truth.r2(forecast.expected_values, CUT)
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


PROCESSES = {
    "without temporal attention": ({"loadings": "nonlinear"}, "native"),
    "without channel gate": ({"loadings": "nonlinear"}, "total"),
    "without spatial attention": ({"loadings": "linear", "peers": True}, "total"),
    "without residual stack": ({"loadings": "nonlinear"}, "total"),
}


def ablation_seeds(seeds: int, epochs: int, members: int) -> list[tuple[str, int, str, float, float]]:
    """(ablation, seed, score, all parts, without) on the process that has the feature."""
    found = []
    for seed in range(seeds):
        base: dict[str, dict[str, float]] = {}
        for name, (process, score) in PROCESSES.items():
            truth, key = instrumented_panel(**process, seed=seed), str(process)
            variants = ablations(config(epochs, members))
            if key not in base:
                base[key] = scores(truth, NeurIFModel(variants["all parts"]), ("native",))
            native = variants[name].factor_mode != "realized"
            other = scores(truth, NeurIFModel(variants[name]), ("native" if native else "mean",))
            without = other.get(score, other.get("mean", np.nan))
            found.append((name, seed, score, base[key][score], without))
            print(*found[-1], flush=True)
    return found


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
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--null", type=int, default=0, help="seeds of the panel without signal")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--kinds", nargs="+", default=["linear", "nonlinear"])
    arguments = parser.parse_args()
    began, cpu = time.perf_counter(), cpu_seconds()
    sizes = (arguments.epochs, arguments.members)
    results: dict[str, list[dict[str, float]]] = {kind: [] for kind in arguments.kinds}
    for seed in range(arguments.seeds):
        for kind in arguments.kinds:
            results[kind].append(one_seed(kind, seed, *sizes))
    names = [name for name in results[arguments.kinds[0]][0] if name != "epochs"]
    lines = [
        [name, *(spread(np.array([row[name] for row in results[kind]])) for kind in arguments.kinds)]
        for name in names
    ]
    text = [
        "`python studies/neurif_simulation.py`: N=300, T=360, P=12, K=3, 20% missing; fitted on 240 months, of",
        f"which 36 validate, measured on 120. Width 32, 2 temporal layers, 16 induced points, {sizes[1]} member(s),",
        f"at most {sizes[0]} epochs, AdamW 4e-3 with a cosine schedule. R2 against zero, mean over",
        f"{arguments.seeds} seeds (smallest to largest).",
        "",
        table(["R2", *arguments.kinds], lines),
        "",
        *bars(results),
    ]
    if arguments.null:
        null = null_seeds(arguments.null, *sizes)
        error = null.std(ddof=1) / np.sqrt(null.size)
        text += [
            "",
            f"No signal (returns permuted across cells, N=100), {null.size} seeds: mean predictive R2 "
            f"{null.mean():.5f}, standard error {error:.5f}.",
        ]
    if arguments.ablation:
        found = ablation_seeds(arguments.seeds, *sizes)
        rows = []
        for name in PROCESSES:
            mine = np.array([row[3:] for row in found if row[0] == name])
            worse = int((mine[:, 1] < mine[:, 0]).sum())
            rows.append([name, str(PROCESSES[name][0]), spread(mine[:, 0]), spread(mine[:, 1]), worse])
        text += ["", table(["ablation", "process", "all parts", "without", "seeds worse"], rows)]
    load = os.getloadavg()[2]
    text += [
        "",
        f"{machine('jax')}; {time.perf_counter() - began:,.0f} s of wall time, {cpu_seconds() - cpu:,.0f} s of "
        f"processor time, on a machine shared with other work (load average {load:.0f}).",
    ]
    write_section("neurif_simulation", "\n".join(text))


if __name__ == "__main__":
    main()
