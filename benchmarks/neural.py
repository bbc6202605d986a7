"""How fast the conditional autoencoder trains, beside a plain torch loop, and what compiling costs.

    python benchmarks/neural.py [--epochs 8] [--members 10] [--repeats 3] [--ml4t /path/to/its/python]

One peer is torch in eager mode (2.13.0 was measured), where it is installed: the same network, loss,
optimiser and batches, one member after another, one thread. It trains and does nothing else, so beside our
whole `fit` (portfolios, training, alignment of members, identification) stands what our epochs alone take: as
many times the mean of all but the first. The other peer is the autoencoder of ml4t-models, run by the
interpreter of an environment that has it (it needs Python 3.12 and torch), in a process of its own and in
turns with ours; its minibatches are rows of all periods, so it is given batches of as many rows, and its fit
is whole as well. CPU seconds, because all use threads differently.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from _common import fresh_process, machine, markdown_table

T, N, L, K, HIDDEN, L1 = 180, 1000, 94, 5, (32, 16), 1e-5
PANEL = """
import sys; sys.path.insert(0, {here!r})
from neural import build_panel, fit_once
panel = build_panel()
"""
# Runs in the peer's environment: fits once, prints the CPU seconds of the fit and the versions.
ML4T = """
import json, os, sys, time
import numpy as np, torch
from importlib.metadata import version
from ml4t.models.configs import CAEConfig
from ml4t.models.latent_factors import CAEModel
from ml4t.models.types import CrossSectionBatch
torch.set_num_threads(1)
data = np.load({path!r})
z, r = data["z"], data["r"]
batch = CrossSectionBatch(
    characteristics=z, returns=r, mask=np.isfinite(r), timestamps=tuple(range(len(r))),
    asset_ids=tuple(str(i) for i in range(r.shape[1])),
)
config = CAEConfig(
    n_factors={k}, hidden_units={hidden}, n_ensemble={members}, n_epochs={epochs}, checkpoint_interval=None,
    checkpoint_epochs=({epochs},), lr=1e-3, lambda_l1={l1}, batch_size={rows}, device="cpu", dtype="float32",
)
model = CAEModel(config)
began = time.process_time()
model.fit(batch)
seconds = time.process_time() - began
print(json.dumps([seconds, version("ml4t-models"), version("torch")]))
"""
# How long tracing, lowering and compiling took: JAX times its own steps. One step runs inside another, so the
# spans are joined before they are added up.
TIMED = """
import jax, time
spans = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **_: spans.append((time.time() - seconds, time.time()))
    if name.startswith("/jax/core/compile/") else None
)
def joined():
    total, reached = 0.0, 0.0
    for began, ended in sorted(spans):
        total += max(ended - max(began, reached), 0.0)
        reached = max(reached, ended)
    return total
"""
NOTED = "; open({path!r}, 'w').write(str(joined()))"
CACHE = """
import jax
jax.config.update("jax_compilation_cache_dir", {folder!r})
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
"""


def build_panel():
    """T=180, N=1000, 94 characteristics, 30% missing, every asset alive throughout."""
    from latentfactors.simulate import characteristic_panel

    return characteristic_panel(T, N, K, L, missing=0.3, partial=0.0, seed=1).panel


def fit_once(panel, epochs: int = 8, members: int = 10, batch: int = 1, axis: str = "vmap"):
    """A fit without validation."""
    from latentfactors import CAEConfig, CAEModel, TrainingConfig

    training = TrainingConfig(epochs=epochs, n_ensemble=members, batch=batch, ensemble_axis=axis)
    model = CAEModel(CAEConfig(n_factors=K, architecture=HIDDEN, l1_penalty=L1, training=training))
    model.fit(panel)
    return model


def torch_loop(panel, epochs: int, members: int, batch: int) -> None:
    """The same training as a person would write it in torch."""
    import torch

    seen, period = panel.observed, panel.index.period_codes
    z = torch.from_numpy(panel.characteristics[seen].astype(np.float32) / 0.29)
    r = torch.from_numpy((panel.values[seen] / panel.values[seen].std()).astype(np.float32))
    counts = np.bincount(period[seen], minlength=T)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(T, L + 1)).astype(np.float32))
    for m in range(members):
        torch.manual_seed(m)
        layers: list[torch.nn.Module] = []
        for n_in, n_out in zip((L, *HIDDEN[:-1]), HIDDEN, strict=True):
            layers += [torch.nn.Linear(n_in, n_out, bias=False), torch.nn.BatchNorm1d(n_out), torch.nn.ReLU()]
        loadings = torch.nn.Sequential(*layers, torch.nn.Linear(HIDDEN[-1], K))
        factors = torch.nn.Linear(L + 1, K, bias=False)
        weights = [p for p in loadings.parameters() if p.ndim == 2] + list(factors.parameters())
        optimiser = torch.optim.Adam([*loadings.parameters(), *factors.parameters()], lr=1e-3)
        for epoch in range(epochs):
            order = np.random.default_rng(epoch).permutation(T)
            for i in range(0, T, batch):
                chosen = order[i : i + batch]
                rows = np.concatenate([np.arange(offsets[p], offsets[p + 1]) for p in chosen])
                if batch == 1:
                    a, b = int(offsets[chosen[0]]), int(offsets[chosen[0] + 1])
                    inputs, target, f = z[a:b], r[a:b], factors(x[chosen])
                else:
                    inputs, target = z[rows], r[rows]
                    f = factors(x[chosen]).repeat_interleave(torch.from_numpy(counts[chosen]), dim=0)
                error = target - (loadings(inputs) * f).sum(dim=1)
                loss = (error * error).mean() + L1 * sum(weight.abs().sum() for weight in weights)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()


def cpu_seconds(call) -> float:
    """CPU time of all threads of this process."""
    began = time.process_time()
    call()
    return time.process_time() - began


def with_epochs(call: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds of a fit, and of its epochs alone, by the mean of all but the first."""
    from latentfactors import watch

    clock: list[tuple[float, int]] = []

    def look(report) -> None:
        clock.append((time.process_time(), report.epochs))

    with watch(look):
        whole = cpu_seconds(call)
    (first, epochs), (last, _) = clock[0], clock[-1]
    return whole, (last - first) / (epochs - 1) * epochs


def training(panel, epochs: int, members: int, repeats: int) -> list[tuple[object, ...]]:
    """Ours by both axes and torch, in turns, after compilation."""
    has_torch = importlib.util.find_spec("torch") is not None
    rows: list[tuple[object, ...]] = []
    for batch in (1, 3, 12):
        ours = {
            axis: (lambda b=batch, a=axis: fit_once(panel, epochs, members, b, a)) for axis in ("vmap", "map")
        }
        taken: dict[str, list[float]] = {}
        for call in ours.values():
            call()
        for _ in range(repeats):
            for axis, call in ours.items():
                whole, alone = with_epochs(call)
                taken.setdefault(f"CAEModel.fit, {axis}", []).append(whole)
                taken.setdefault(f"its epochs alone, {axis}", []).append(alone)
            if has_torch:
                import torch

                torch.set_num_threads(1)
                seconds = cpu_seconds(lambda b=batch: torch_loop(panel, epochs, members, b))
                taken.setdefault("torch eager, 1 thread", []).append(seconds)
        middle = {name: median(times) for name, times in taken.items()}
        whole, alone = middle["CAEModel.fit, vmap"], middle["its epochs alone, vmap"]
        rows += [
            (name, batch, f"{each:.1f}", f"{each / whole:.2f}", f"{each / alone:.2f}")
            for name, each in middle.items()
        ]
    return rows


def beside_ml4t(
    panel, python: str, epochs: int, members: int, repeats: int
) -> tuple[str, list[tuple[object, ...]]]:
    """Versions of the peer, and CPU seconds of both in turns, after compilation."""
    rows: list[tuple[object, ...]] = []
    versions = ""
    per_period = int(panel.observed.sum()) // T
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "panel.npz")
        np.savez(path, z=panel.index.dense(panel.characteristics.astype(np.float64), 0.0), r=panel.wide())
        for batch in (1, 12):
            script = ML4T.format(
                path=path, k=K, hidden=HIDDEN, members=members, epochs=epochs, l1=L1, rows=batch * per_period
            )
            fit_once(panel, epochs, members, batch)
            ours, theirs = [], []
            for _ in range(repeats):
                ours.append(cpu_seconds(lambda b=batch: fit_once(panel, epochs, members, b)))
                environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""}
                done = subprocess.run(
                    [python, "-c", script], capture_output=True, text=True, check=False, env=environment
                )
                if done.returncode:
                    raise RuntimeError(f"the peer failed:\n{done.stderr}")
                used, own, torch = json.loads(done.stdout.splitlines()[-1])
                theirs.append(used)
                versions = f"ml4t-models {own}, torch {torch}"
            base = median(ours)
            rows.append(("CAEModel.fit, vmap", f"{batch} periods", f"{base:.1f}", "1.00"))
            ratio = f"{median(theirs) / base:.2f}"
            rows.append(("ml4t-models", f"{batch * per_period} rows", f"{median(theirs):.1f}", ratio))
    return versions, rows


def compiling(epochs: int, members: int) -> list[tuple[object, ...]]:
    """Fresh processes: first fit and a second one, with a filled cache, and after a shorter window."""
    here = str(Path(__file__).parent)
    fit = f"fit_once(panel, {epochs}, {members})"
    short = f"fit_once(panel.between(0, 150), {epochs}, {members})"
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        cached = CACHE.format(folder=folder)
        note = str(Path(folder) / "spent.txt")
        panel = PANEL.format(here=here)
        timed = TIMED
        reset = "spans.clear()\n"
        for name, setup in (
            ("first fit of a process", timed + panel),
            ("second fit, compiled", timed + panel + fit + "\n" + reset),
            ("", cached + timed + panel),  # fills the cache
            ("first fit, persistent cache filled", cached + timed + panel),
            ("fit after one of 150 periods", timed + panel + short + "\n" + reset),
        ):
            found = fresh_process(fit + NOTED.format(path=note), setup)
            spent = float(Path(note).read_text())
            lines.append((name, f"{spent:.2f}", f"{found.seconds:.1f}", f"{found.peak_bytes / 1e9:.2f}"))
    return [line for line in lines if line[0]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ml4t", default=None, help="interpreter of an environment with ml4t-models")
    parser.add_argument("--only-ml4t", action="store_true", help="leave the other tables out")
    parser.add_argument("--only-compile", action="store_true", help="time compilation and nothing else")
    arguments = parser.parse_args()
    if arguments.only_ml4t and not arguments.ml4t:
        parser.error("--only-ml4t needs --ml4t PYTHON")
    epochs, members = arguments.epochs, arguments.members
    # first, while this process is small: a child starts with its parent's peak
    fresh = None if arguments.only_ml4t else compiling(epochs, members)
    print(f"T={T}, N={N}, L={L}, 30% missing, K={K}, hidden {HIDDEN}, {members} members, {epochs} epochs")
    print(f"({machine()}).\n")
    turns = f"medians of {arguments.repeats} taken in turns" if arguments.repeats > 1 else "taken once"
    panel = build_panel()
    if arguments.ml4t:
        versions, rows = beside_ml4t(panel, arguments.ml4t, epochs, members, arguments.repeats)
        print(f"CPU seconds beside {versions}, {turns}.\n")
        print(markdown_table(("training", "batch", "CPU s", "times ours"), rows) + "\n")
    if fresh is not None:
        if not arguments.only_compile:
            print(f"CPU seconds, {turns}.\n")
            heads = ("training", "periods a batch", "CPU s", "times fit, vmap", "times epochs, vmap")
            table = training(panel, epochs, members, arguments.repeats)
            print(markdown_table(heads, table) + "\n")
        print("Each in a process of its own: tracing and compiling as JAX times it, wall seconds of the fit,")
        print("peak memory.\n")
        print(markdown_table(("case", "compile s", "fit s", "peak GB"), fresh))


if __name__ == "__main__":
    main()
