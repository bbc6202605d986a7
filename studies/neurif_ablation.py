"""What each part of NeurIF is worth on the simulated process that has the part's feature, out of sample.

    python studies/neurif_ablation.py [--seeds 5] [--epochs 12] [--members 1] [--only "channel gate"]

    temporal attention   premia move slowly and are hidden in the factors: a mean does not follow them
    channel gate         the slope of every characteristic depends on the next one, by one rule
    spatial attention    a loading depends on the period's mean of a characteristic
    residual stack       characteristics far apart in the feature order multiply

Fitted on the first two thirds of the months, the last of which, a tenth of all, validate; measured on the
last third. 360 months of 150 assets; for premia, which take longer to learn, 720 months of 100. Network and
training are those of neurif_simulation.py, the same for every process, part and seed. Writes the section
neurif_ablation of studies/RESULTS.md.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import numpy as np
from _common import table
from neurif_simulation import config, report, scores, spread

from latentfactors import NeurIFModel
from latentfactors.evaluate import ablations
from latentfactors.simulate import instrumented_panel

P = 16


class Feature(NamedTuple):
    """A part, the process that has its feature, which R2 shows it, and what else is tried there."""

    part: str
    process: dict[str, Any]
    words: str
    score: str
    n_assets: int = 150
    n_periods: int = 360
    beside: str | None = None


FEATURES = (
    Feature(
        "temporal attention",
        {"loadings": "linear", "hidden_premia": True},
        "hidden premia",
        "predictive",
        n_assets=100,
        n_periods=720,
        beside="with 0 temporal layers",
    ),
    Feature("channel gate", {"loadings": "gated"}, "gated", "total"),
    Feature("spatial attention", {"loadings": "linear", "peers": True}, "peers", "total"),
    Feature("residual stack", {"loadings": "crossed"}, "crossed", "total"),
)


def measured(feature: Feature, seed: int, epochs: int, members: int) -> dict[str, float]:
    """R2 of the oracle, of all parts, without the part, and of what else is tried."""
    cut, total = feature.n_periods * 2 // 3, feature.score == "total"
    truth = instrumented_panel(
        **feature.process,
        n_periods=feature.n_periods,
        n_assets=feature.n_assets,
        n_characteristics=P,
        seed=seed,
    )
    found = {"oracle": truth.oracle_total_r2(cut) if total else truth.oracle_predictive_r2(cut)}
    variants = ablations(config(epochs, members, validation=feature.n_periods // 10), layers=(0,))
    for name in ("all parts", f"without {feature.part}", feature.beside):
        if name is not None:
            realised = variants[name].factor_mode == "realized"  # has no premia of its own
            key = "mean" if realised else "native"
            found[name] = scores(truth, NeurIFModel(variants[name]), (key,), cut)["total" if total else key]
    print(feature.part, seed, {name: round(value, 4) for name, value in found.items()}, flush=True)
    return found


def study(parts: list[str]) -> Any:
    """The study of these parts, as `report` runs it."""

    def ablation_table(seeds: int, epochs: int, members: int) -> list[str]:
        rows, notes, held = [], [], 0
        for feature in FEATURES:
            if feature.part not in parts:
                continue
            found = [measured(feature, seed, epochs, members) for seed in range(seeds)]
            of = {name: np.array([each[name] for each in found]) for name in found[0]}
            whole, without = of["all parts"], of[f"without {feature.part}"]
            worse = int((without < whole).sum())
            held += worse >= 0.8 * seeds
            error = (whole - without).std(ddof=1) / np.sqrt(seeds) if seeds > 1 else np.nan
            rows.append(
                [
                    f"without {feature.part}",
                    f"{feature.words}, N={feature.n_assets}, T={feature.n_periods}",
                    feature.score,
                    spread(of["oracle"]),
                    spread(whole, 4),
                    spread(without, 4),
                    f"{(whole - without).mean():.4f} ({error:.4f})",
                    f"{worse} of {seeds}",
                ]
            )
            if feature.beside is not None:
                beside = of[feature.beside]
                notes.append(
                    f"{feature.words}, {feature.beside} (premia are a VAR(1)): {spread(beside, 4)}, worse "
                    f"than all parts in {int((beside < whole).sum())} of {seeds} seeds."
                )
        heads = ["ablation", "process", "R2", "oracle", "all parts", "without", "gain (s.e.)", "worse"]
        verdict = f"Each ablation worse in at least four fifths of the seeds: {held} of {len(rows)} parts."
        return [
            f"P={P}; a tenth of the months validates. The processes are options of "
            "`simulate.instrumented_panel`, one for each part, with fixed parameters; all else is the same "
            "everywhere.",
            "",
            table(heads, rows),
            "",
            *notes,
            "",
            verdict,
        ]

    return ablation_table


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--members", type=int, default=1)
    parts = [feature.part for feature in FEATURES]
    parser.add_argument("--only", choices=parts, help="one part, printed only")
    arguments = parser.parse_args()
    sizes = (arguments.seeds, arguments.epochs, arguments.members)
    if arguments.only:
        print("\n".join(study([arguments.only])(*sizes)))
    else:
        report("neurif_ablation", "studies/neurif_ablation.py", study(parts), *sizes)


if __name__ == "__main__":
    main()
