"""How fast the conditional autoencoder trains, beside a plain torch loop, and what compiling costs.

    python benchmarks/neural.py [--epochs 8] [--members 10]

The peer is torch in eager mode (2.13.0 was measured), where it is installed: the same network, loss,
optimiser and batches, one member after another, one thread. CPU seconds, because both use threads
differently. Ours is the whole `fit`: portfolios, training, alignment of members, identification.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
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


def training(panel, epochs: int, members: int) -> list[tuple[object, ...]]:
    """Ours by both axes and torch, in turns, after compilation."""
    has_torch = importlib.util.find_spec("torch") is not None
    rows: list[tuple[object, ...]] = []
    for batch in (1, 12):
        calls = {
            "CAEModel.fit, vmap": lambda b=batch: fit_once(panel, epochs, members, b),
            "CAEModel.fit, map": lambda b=batch: fit_once(panel, epochs, members, b, "map"),
        }
        if has_torch:
            import torch

            torch.set_num_threads(1)
            calls["torch eager, 1 thread"] = lambda b=batch: torch_loop(panel, epochs, members, b)
        for name in calls:
            if not name.startswith("torch"):
                calls[name]()
        taken = {name: [] for name in calls}
        for _ in range(3):
            for name, call in calls.items():
                taken[name].append(cpu_seconds(call))
        middle = {name: median(times) for name, times in taken.items()}
        base = middle["CAEModel.fit, vmap"]
        rows += [(name, batch, f"{each:.1f}", f"{each / base:.2f}") for name, each in middle.items()]
    return rows


def compiling(epochs: int, members: int) -> list[tuple[object, ...]]:
    """Fresh processes: first fit and a second one, with a filled cache, and after a shorter window."""
    here = str(Path(__file__).parent)
    setup = PANEL.format(here=here)
    fit = f"fit_once(panel, {epochs}, {members})"
    short = f"fit_once(panel.between(0, 150), {epochs}, {members})"
    with tempfile.TemporaryDirectory() as folder:
        cached = CACHE.format(folder=folder) + setup
        first = fresh_process(fit, setup)
        second = fresh_process(fit, setup + fit)
        fresh_process(fit, cached)
        again = fresh_process(fit, cached)
        window = fresh_process(fit, setup + short)
    peak = first.peak_bytes / 1e9
    return [
        ("first fit of a process", f"{first.seconds:.1f}", f"{peak:.2f}"),
        ("second fit, compiled", f"{second.seconds:.1f}", f"{second.peak_bytes / 1e9:.2f}"),
        ("first fit, persistent cache filled", f"{again.seconds:.1f}", f"{again.peak_bytes / 1e9:.2f}"),
        ("fit after one of 150 periods", f"{window.seconds:.1f}", f"{window.peak_bytes / 1e9:.2f}"),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--members", type=int, default=10)
    arguments = parser.parse_args()
    epochs, members = arguments.epochs, arguments.members
    # first, while this process is small: a child starts with its parent's peak
    fresh = compiling(epochs, members)
    print(f"T={T}, N={N}, L={L}, 30% missing, K={K}, hidden {HIDDEN}, {members} members, {epochs} epochs")
    print(f"({machine()}).\n")
    print("CPU seconds, medians of 3 taken in turns.\n")
    table = training(build_panel(), epochs, members)
    print(markdown_table(("training", "periods a batch", "CPU s", "times vmap"), table))
    print("\nWall seconds and peak memory, each in a process of its own.\n")
    print(markdown_table(("case", "seconds", "peak GB"), fresh))


if __name__ == "__main__":
    main()
