"""The conditional autoencoder on the simulated designs of Gu, Kelly & Xiu (2021), out of sample.

    python studies/cae_simulation.py [--seeds 5] [--members 5]

N=500, T=480, P=20; fitted on the first two thirds, of which the last 64 months validate; measured on the last
third. The factors of the process depend on portfolios that the characteristics do not span, so the factor
network is also given those portfolios. Writes studies/results/cae_simulation.md.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from latentfactors import CAEConfig, CAEModel, IPCAConfig, IPCAModel, TrainingConfig
from latentfactors.kernels.scores import r_squared
from latentfactors.kernels.sufficient import conditional_factors
from latentfactors.simulate import ConditionalTruth, conditional_panel

T, CUT, VALIDATION, K = 480, 320, 64, 3
TARGET = Path(__file__).parent / "results" / "cae_simulation.md"


def config(architecture: str, members: int, inputs: tuple[str, ...] = ()) -> CAEConfig:
    """One configuration for all designs."""
    return CAEConfig(
        n_factors=K,
        architecture=architecture,
        l1_penalty=1e-3,
        inputs=inputs,
        training=TrainingConfig(
            epochs=80,
            validation=VALIDATION,
            patience=10,
            default_checkpoint="best",
            n_ensemble=members,
        ),
    )


def out_of_sample(truth: ConditionalTruth, fitted: np.ndarray) -> float:
    """Total R2 against zero in the last third."""
    rows = slice(int(truth.panel.offsets[CUT]), None)
    return r_squared(truth.panel.values[rows], fitted[rows])


def fitted_values(truth: ConditionalTruth, loadings: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """(R,) loadings . factors."""
    return np.einsum("rk,rk->r", loadings, factors[truth.panel.index.period_codes])


def scores(truth: ConditionalTruth, model: CAEModel) -> dict[str, float]:
    """R2 of the ensemble by both ways to realised factors, and of its members."""
    panel, estimates = truth.panel, model.estimates
    members, least = estimates.members, estimates.min_observed

    def projected(loadings: np.ndarray) -> float:
        factors = conditional_factors(loadings, panel.values, panel.offsets, min_observed=least)
        return out_of_sample(truth, fitted_values(truth, loadings, factors))

    state = model.extract(panel)
    loadings = state.measurement.loadings.rows()
    network = members.network_factors(model.factor_inputs(panel))
    alone = [
        projected(members.only(m).loadings(panel.characteristics, panel.offsets))
        for m in range(members.n_members)
    ]
    return {
        "projection": out_of_sample(truth, state.reconstruction()),
        "network": out_of_sample(truth, fitted_values(truth, loadings, network)),
        "members": float(np.mean(alone)),
        "epochs": float(np.mean(training_epochs(model))),
    }


def training_epochs(model: CAEModel) -> np.ndarray:
    """(M,) best epochs."""
    return model.estimates_at("last")[1].training.best_epoch


def one_seed(design: str, seed: int, members: int) -> dict[str, dict[str, float]]:
    """All models on one panel, R2 as shares of the oracle's."""
    truth = conditional_panel(design, T, seed=seed)
    panel, training = truth.panel, truth.panel.between(0, CUT)
    oracle = truth.oracle_r2(CUT)
    ipca = IPCAModel(IPCAConfig(n_factors=K))
    ipca.fit(training)
    found = {
        "oracle": {"projection": oracle},
        "IPCA": {"projection": out_of_sample(truth, ipca.extract(panel).reconstruction())},
    }
    for name in ("CA0", "CA2"):
        for inputs in ((), panel.observed_factor_names):
            if inputs and name == "CA0":
                continue
            model = CAEModel(config(name, members, inputs))
            summary = model.fit(training)
            label = f"{name}, given portfolios" if inputs else name
            found[label] = scores(truth, model)
            print(
                design,
                seed,
                label,
                {key: round(v, 3) for key, v in found[label].items()},
                summary.reason,
                flush=True,
            )
    return found


def report(results: dict[str, list[dict[str, dict[str, float]]]], members: int) -> str:
    """The page: means over seeds, their range, and the bars."""
    lines = [
        "# The conditional autoencoder on simulated data",
        "",
        "Written by `python studies/cae_simulation.py`.",
        "",
        f"N=500, T=480, P=20, K=3; {members} members. Total R2 against zero on the last third, mean over",
        "seeds (smallest to largest). The oracle has the true loadings and the true factors; a projection",
        "may come out above it, because its factors are fitted to the same cross-section.",
    ]
    for design, runs in results.items():
        lines += ["", f"## {design}, {len(runs)} seeds", ""]
        head = ("model", "projection", "share of oracle", "network factors", "share of oracle", "mean member")
        lines.append(f"| {' | '.join(head)} |")
        lines.append("|---|--:|--:|--:|--:|--:|")
        oracle = np.array([run["oracle"]["projection"] for run in runs])
        for name in runs[0]:
            cells = [name]
            for way in ("projection", "network"):
                if way not in runs[0][name]:
                    cells += ["", ""]
                    continue
                values = np.array([run[name][way] for run in runs])
                cells += [spread(values), spread(values / oracle)]
            known = "members" in runs[0][name]
            cells.append(spread(np.array([run[name]["members"] for run in runs])) if known else "")
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", *bars(design, runs, oracle)]
    return "\n".join(lines) + "\n"


def spread(values: np.ndarray) -> str:
    """Mean and range."""
    return f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})"


def bars(design: str, runs: list[dict[str, dict[str, float]]], oracle: np.ndarray) -> list[str]:
    """What was asked for, and whether every seed has it."""

    def of(name: str, way: str) -> np.ndarray:
        return np.array([run[name][way] for run in runs])

    if design == "linear":
        checks = {
            f"{name} within 1 point of IPCA": of(name, "projection") >= of("IPCA", "projection") - 0.01
            for name in ("CA0", "CA2")
        }
    else:
        given = "CA2, given portfolios"
        checks = {
            "CA2 projected, at least 80% of the oracle": of("CA2", "projection") >= 0.8 * oracle,
            "CA2 with given portfolios projected, at least 90%": of(given, "projection") >= 0.9 * oracle,
            "CA2 with given portfolios, network factors, at least 90%": of(given, "network") >= 0.9 * oracle,
        }
    names = [name for name in runs[0] if "members" in runs[0][name]]
    better = np.array([of(name, "projection") >= of(name, "members") for name in names])
    checks["ensembles at least as good as their mean member"] = better.ravel()
    return [f"- {name}: {int(held.sum())} of {held.size}" for name, held in checks.items()]


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--members", type=int, default=5)
    arguments = parser.parse_args()
    results: dict[str, list[dict[str, dict[str, float]]]] = defaultdict(list)
    for seed in range(arguments.seeds):
        for design in ("linear", "nonlinear"):
            results[design].append(one_seed(design, seed, arguments.members))
    page = report(results, arguments.members)
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
