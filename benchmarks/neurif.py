"""What an epoch of the instrumented factorisation costs as the cross-section grows.

    python benchmarks/neurif.py [--periods 480] [--sizes 750 1500 3000] [--spatial induced]

46 characteristics, 20% missing, every asset alive throughout, one member with the default widths: seconds of
an epoch after compilation, wall and processor, and the peak memory of a process that fits it. The exponent of
the assets is what a line through the logarithms has: 1 where cost is linear.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _common import fresh_process, machine, markdown_table

K, P = 3, 46
SETUP = "import sys; sys.path.insert(0, {here!r}); from neurif import build_panel, timed_epochs"


def build_panel(n_periods: int, n_assets: int):
    """Ranks of independent numbers and returns of three factors, drawn period by period in float32."""
    from latentfactors import Panel

    rng = np.random.default_rng(1)
    z = (rng.random(size=(n_periods, n_assets, P), dtype=np.float32) - 0.5).astype(np.float32)
    gamma = np.linalg.qr(rng.normal(size=(P, K)))[0].astype(np.float32)
    values = np.einsum("tnp,pk,tk->tn", z, gamma, rng.normal(size=(n_periods, K)) * 0.05, optimize=True)
    values = values + 0.03 * rng.normal(size=values.shape)
    values[rng.random(size=values.shape) < 0.2] = np.nan
    return Panel.from_arrays(values, z)


def timed_epochs(panel, spatial: str = "induced", epochs: int = 3) -> tuple[float, float]:
    """Wall and processor seconds of an epoch after the first, which compiles."""
    from latentfactors import NeurIFConfig, NeurIFModel, TrainingConfig, watch

    wall, cpu = [], []

    def look(_) -> None:
        wall.append(time.perf_counter())
        cpu.append(time.process_time())

    training = TrainingConfig(epochs=epochs, batch=12, optimiser="adamw")
    model = NeurIFModel(NeurIFConfig(n_factors=K, spatial=spatial, training=training))
    with watch(look):
        model.fit(panel)
    n = len(wall) - 1
    return (wall[-1] - wall[0]) / n, (cpu[-1] - cpu[0]) / n


def main() -> None:
    """Measure every size in a process of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--periods", type=int, default=480)
    parser.add_argument("--sizes", type=int, nargs="+", default=[750, 1500, 3000])
    parser.add_argument("--spatial", choices=["induced", "full"], default="induced")
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    setup = SETUP.format(here=str(Path(__file__).resolve().parent))
    rows, spent = [], []
    for n in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            note = Path(folder) / "epoch.json"
            code = (
                f"found = timed_epochs(build_panel({arguments.periods}, {n}), {arguments.spatial!r}, "
                f"{arguments.epochs})\nopen({str(note)!r}, 'w').write(json.dumps(found))"
            )
            measured = fresh_process(code, setup)
            wall, cpu = json.loads(note.read_text())
        spent.append(cpu)
        rows.append((n, f"{wall:.1f}", f"{cpu:.1f}", f"{measured.peak_bytes / 2**30:.2f}"))
        print(*rows[-1], file=sys.stderr, flush=True)  # a large size can take long on a busy machine
    print(machine())
    print(
        f"T={arguments.periods}, P={P}, spatial={arguments.spatial!r}, one member, load average "
        f"{os.getloadavg()[0]:.1f}; mean of {arguments.epochs - 1} epochs after the one that compiles\n"
    )
    if os.environ.get("XLA_FLAGS"):
        print(f"XLA_FLAGS={os.environ['XLA_FLAGS']}\n")
    print(markdown_table(("assets", "seconds an epoch", "processor seconds", "peak GB"), rows))
    if len(rows) > 1:
        slope = np.polyfit(np.log(arguments.sizes), np.log(spent), 1)[0]
        print(f"\nProcessor seconds grow with the assets to the power {slope:.2f}.")


if __name__ == "__main__":
    main()
