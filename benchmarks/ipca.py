"""How fast IPCA is: from a built panel to a fit, over expanding windows, and from a file of 2.5 million rows.

    python benchmarks/ipca.py [--rows 2500000] [--repeats 5] [--github-code /path/to/sjpsjpsjp-ipca/ipca.py]

Two peers, in the same process, on the same data, under one BLAS thread, all taken in turns: the `ipca`
package (0.6.7), where it is installed, and the code of github.com/sjpsjpsjp/ipca (2.1.1), a file whose path
the option names. The tables say how far from the minimum each of them stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
from _common import fresh_process, machine, markdown_table, seconds
from threadpoolctl import threadpool_limits

from latentfactors.forecasters import ExpandingMeanFactorForecaster
from latentfactors.kernels.ipca import fit_instrumented
from latentfactors.kernels.linalg import subspace_angle
from latentfactors.kernels.sufficient import period_statistics, projected_factors
from latentfactors.mappers import BetaLambdaMapper
from latentfactors.models.ipca import IPCAConfig, IPCAModel
from latentfactors.panel import Panel
from latentfactors.pipeline import LatentFactorForecastPipeline
from latentfactors.simulate import characteristic_panel
from latentfactors.splits import ExpandingWindow
from latentfactors.walkforward import walk_forward

N_ASSETS, N_CHARACTERISTICS = 5_000, 46
NAMES = [f"c{j:02d}" for j in range(N_CHARACTERISTICS)]
FILE = f"time='day', asset='id', value='ret', characteristics={NAMES!r}, lag=1"
IMPORT = """
import polars
from latentfactors.panel import Panel
from latentfactors.parquet_statistics import statistics_from_parquet
from latentfactors.models.ipca import IPCAConfig, IPCAModel
model = IPCAModel(IPCAConfig(n_factors=5))
"""


def large_panel() -> Panel:
    """T=600, N=1000 unbalanced, L=36, K=5."""
    return characteristic_panel(600, 1000, 5, 36, seed=1).panel


def rival_panel() -> Panel:
    """T=240, N=500, L=30, K=5, 30% missing, every asset alive throughout."""
    return characteristic_panel(240, 500, 5, 30, missing=0.3, partial=0.0, seed=1).panel


def fit(panel: Panel) -> IPCAModel:
    """A cold fit."""
    model = IPCAModel(IPCAConfig(n_factors=5))
    model.fit(panel)
    return model


def one_fit(panel: Panel, what: str, bar: str) -> tuple[object, ...]:
    """Steps and median seconds of five fits."""
    fit(panel.between(0, 60))
    taken = [seconds(lambda: fit(panel)) for _ in range(5)]
    summary = fit(panel).summary
    return (what, f"{panel.n_rows:,}", summary.n_iterations, f"{median(taken):.3f}", bar)


@dataclass(frozen=True)
class Taken:
    """Medians of wall and of CPU seconds: on a shared machine the second is the steadier."""

    wall: float
    cpu: float


def in_turns(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Taken]:
    """Every call once to warm up, then `repeats` rounds of all of them."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    with threadpool_limits(limits=1, user_api="blas"):
        for call in calls.values():
            call()
        for _ in range(repeats):
            for name, call in calls.items():
                cpu = time.process_time()
                wall = seconds(call)
                taken[name].append((wall, time.process_time() - cpu))
    return {
        name: Taken(median(wall for wall, _ in pairs), median(cpu for _, cpu in pairs))
        for name, pairs in taken.items()
    }


def quietly(call: Callable[[], Any]) -> Any:
    """What a call that prints and warns returns."""
    silent = io.StringIO()
    with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


class Package:
    """The `ipca` package."""

    name = "`ipca` 0.6.7"

    def __init__(self, panel: Panel) -> None:
        import pandas as pd

        here = Path(__file__).parent.resolve()  # this file has the peer's name
        sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
        from ipca import InstrumentedPCA

        self._build = InstrumentedPCA
        labels = [panel.asset_codes, panel.index.period_codes]
        index = pd.MultiIndex.from_arrays(labels, names=["asset", "period"])
        seen = panel.observed
        self._X = pd.DataFrame(panel.characteristics, index=index, columns=panel.characteristic_names)[seen]
        self._y = pd.Series(panel.values, index=index)[seen]

    def fit(self) -> Any:
        """A fit at the default tolerance, from a data frame."""
        peer = self._build(n_factors=5)
        quietly(lambda: peer.fit(X=self._X, y=self._y, data_type="panel"))
        return peer

    def gamma(self) -> Any:
        """(L, K) of a fit."""
        return self.fit().get_factors(label_ind=False)[0]


class GitHubCode:
    """The code of github.com/sjpsjpsjp/ipca, read from a file outside this repository."""

    name = "`sjpsjpsjp/ipca` 2.1.1"

    def __init__(self, panel: Panel, path: Path) -> None:
        import pandas as pd

        spec = importlib.util.spec_from_file_location("github_ipca", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        labels = [panel.index.period_codes, panel.asset_codes]
        index = pd.MultiIndex.from_arrays(labels, names=["Date", "AssetID"])
        frame = pd.DataFrame(panel.characteristics, index=index, columns=panel.characteristic_names)
        frame.insert(0, "ret", panel.values)
        self._frame, self._build = frame[panel.observed], module.ipca
        self._ready = self._read()

    def _read(self) -> Any:
        return quietly(lambda: self._build(RZ=self._frame, add_constant=False))

    def fit(self) -> Any:
        """A fit at the default tolerance, from a data frame."""
        return quietly(lambda: self._read().fit(K=5, R_fit=False))

    def gamma(self) -> Any:
        """(L, K) of a fit."""
        return self.fit()["Gamma"].to_numpy()

    def windows(self, first: int, tolerance: float) -> dict[int, Any]:
        """Its own expanding windows, warm starts, from statistics it has already: Gamma (L, K) by period."""
        ready, size = self._ready, len(self._frame.columns) - 1
        found = quietly(
            lambda: ready.fit(K=5, R_fit=False, OOS=True, OOS_window_specs=first, minTol=tolerance)
        )["Gamma"]
        periods = found.index.get_level_values(0)[::size]
        return dict(zip(periods, found.to_numpy().reshape(len(periods), size, -1), strict=True))


def shared_windows(panel: Panel, first: int, tolerance: float = 1e-8) -> dict[int, Any]:
    """Cold fits of the kernel to slices of statistics collected once: Gamma (L, K) by forecast period."""
    assert panel.characteristics is not None
    statistics = period_statistics(panel.values, panel.characteristics, panel.offsets)
    return {
        p: fit_instrumented(statistics.take(slice(0, p)), 5, tolerance=tolerance).gamma
        for p in range(first, panel.n_periods)
    }


def updated_windows(panel: Panel, first: int) -> None:
    """One model, a period more each time."""
    model = fit(panel.between(0, first))
    for p in range(first, panel.n_periods):
        model.update(panel.between(p, p + 1))


def pipeline_windows(panel: Panel, first: int) -> None:
    """`walk_forward`: fits, factor forecasts, asset forecasts with variances, factors of every refit."""
    pipeline = LatentFactorForecastPipeline(
        model=IPCAModel(IPCAConfig(n_factors=5)),
        forecaster=ExpandingMeanFactorForecaster(),
        mapper=BetaLambdaMapper(),
    )
    walk_forward(pipeline, panel, ExpandingWindow(first=first, step=1), n_jobs=1)


def timing_rows(taken: Mapping[str, Taken], base: str, bar: str) -> list[tuple[object, ...]]:
    """A line for every call, with the ratio of its medians to those of `base`; the bar is for our own."""
    return [
        (
            name,
            f"{t.wall:.3f}",
            f"{t.cpu:.3f}",
            f"{t.cpu / taken[base].cpu:.2f}",
            "" if "`" in name else bar,
        )
        for name, t in taken.items()
    ]


def distances(panel: Panel, gammas: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """SSE/SST with a Gamma's best factors, its excess over the minimum, and the angle to the minimum."""
    assert panel.characteristics is not None
    statistics = period_statistics(panel.values, panel.characteristics, panel.offsets)
    best = fit_instrumented(statistics, 5, tolerance=1e-12)

    def objective(gamma: Any) -> float:
        factors, _ = projected_factors(statistics, gamma, min_observed=5)
        return 1.0 - float(np.vdot(factors, statistics.crosses @ gamma)) / float(statistics.squares.sum())

    rows: list[tuple[object, ...]] = []
    for name, gamma in gammas.items():
        found, angle = objective(gamma), subspace_angle(gamma, best.gamma)
        excess = max(found / objective(best.gamma) - 1.0, 0.0)
        rows.append((name, f"{found:.12f}", f"{excess:.0e}", f"{angle:.0e}"))
    return rows


def against_peers(panel: Panel, first: int, code: Path | None, repeats: int) -> None:
    """Print the tables of one panel: fits, windows, how far each stopped from the minimum."""
    peers: list[Package | GitHubCode] = []
    try:
        peers.append(Package(panel))
    except ImportError:
        print("The `ipca` package is not installed: left out.\n")
    if code is None:
        print("--github-code not given: the code of sjpsjpsjp/ipca is left out.\n")
    else:
        peers.append(GitHubCode(panel, code))
    ours = "latentfactors"
    head = ("", "wall s", "CPU s", "CPU ratio", "bar")
    fits = in_turns({ours: lambda: fit(panel), **{peer.name: peer.fit for peer in peers}}, repeats)
    print("One fit, statistics included (the peers' from a data frame), default tolerances.\n")
    print(markdown_table(head, timing_rows(fits, ours, "< 0.3 s")))
    gammas = {ours: fit(panel).estimates.gamma, **{peer.name: peer.gamma() for peer in peers}}
    print("\nWhere they stopped.\n")
    columns = ("", "SSE / SST", "relative excess", "sine of the angle to the minimum")
    print(markdown_table(columns, distances(panel, gammas)))

    walk = "walk_forward of a pipeline"
    ways: dict[str, Callable[[], object]] = {
        walk: lambda: pipeline_windows(panel, first),
        "kernels, statistics shared, cold starts": lambda: shared_windows(panel, first),
        "update, warm starts": lambda: updated_windows(panel, first),
    }
    exact = shared_windows(panel, first, 1e-12)
    stopped = {"kernels": shared_windows(panel, first)}
    for peer in peers:
        for tolerance in (1e-4, 1e-8) if isinstance(peer, GitHubCode) else ():
            call = partial(peer.windows, first, tolerance)
            name = f"{peer.name}, warm starts, tolerance {tolerance:g}"
            ways[name], stopped[name] = call, call()
    taken = in_turns(ways, max(repeats // 2, 1))
    print(f"\n{panel.n_periods - first} expanding windows, {first} to {panel.n_periods - 1} periods.\n")
    print(markdown_table(head, timing_rows(taken, walk, "< 2 s")))
    print("\nLargest sine of the angle between a window's Gamma and its minimum, over all windows.\n")
    angles = [
        (name, f"{max(subspace_angle(gammas[p], exact[p]) for p in exact):.0e}")
        for name, gammas in stopped.items()
    ]
    print(markdown_table(("", "sine"), angles))


def write_panel(path: Path, n_rows: int) -> None:
    """A Parquet file of daily dates x 5,000 assets, sorted by date, with five factors in it."""
    rng = np.random.default_rng(0)
    gamma = np.linalg.qr(rng.normal(size=(N_CHARACTERISTICS, 5)))[0].astype(np.float32)
    n_periods = -(-n_rows // N_ASSETS)
    Z = rng.standard_normal((n_periods * N_ASSETS, N_CHARACTERISTICS), dtype=np.float32)
    factors = rng.normal(0, 0.02, (n_periods, 5)) * 0.8 ** np.arange(5)
    explained = np.einsum("rk,rk->r", Z @ gamma, np.repeat(factors, N_ASSETS, axis=0))
    columns = {
        "day": np.repeat(np.arange(n_periods).astype("datetime64[D]"), N_ASSETS),
        "id": np.tile(np.arange(10_000, 10_000 + N_ASSETS), n_periods),
        "ret": explained + rng.normal(0, 0.05, len(Z)),
    }
    columns |= {name: Z[:, j] for j, name in enumerate(NAMES)}
    pl.DataFrame(columns).head(n_rows).write_parquet(path)


def from_file(n_rows: int) -> list[tuple[object, ...]]:
    """Seconds and peak memory of a fresh interpreter, imports not counted as time."""
    here = str(Path(__file__).parent)
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "panel.parquet"
        call = f"write_panel(Path({str(path)!r}), {n_rows})"
        fresh_process(call, f"import sys; sys.path.insert(0, {here!r})\nfrom ipca import Path, write_panel")
        ways = {
            "Panel.from_parquet, fit": f"model.fit(Panel.from_parquet({str(path)!r}, {FILE}))",
            "statistics_from_parquet, fit_statistics": (
                f"times, found = statistics_from_parquet({str(path)!r}, {FILE})\n"
                f"model.fit_statistics(times, found, {NAMES!r}, frequency='D')"
            ),
        }
        for name, code in ways.items():
            measured = fresh_process(code, IMPORT)
            rows.append(
                (name, f"{measured.seconds:.2f}", f"{measured.peak_bytes / 1e9:.2f}", "< 12 s, 1.6 GB")
            )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_500_000, help="lines of the large file")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of the comparison with the peers")
    parser.add_argument("--github-code", type=Path, help="ipca.py of github.com/sjpsjpsjp/ipca")
    arguments = parser.parse_args()
    # first, while this process is small: a child starts with its parent's peak
    table = from_file(arguments.rows)
    print(f"K = 5 throughout ({machine()}).\n")
    print(
        f"{arguments.rows:,} lines x {N_CHARACTERISTICS} float32 characteristics, from Parquet to fitted.\n"
    )
    print(markdown_table(("way", "seconds", "peak GB", "bar"), table))

    print("\nFrom a built panel to fitted, cold (medians of 5).\n")
    rival = rival_panel()
    fits = [
        one_fit(large_panel(), "T=600 N=1000 L=36, unbalanced", "< 0.6 s"),
        one_fit(rival, "T=240 N=500 L=30, 30% missing", "< 0.3 s"),
    ]
    print(markdown_table(("panel", "rows", "steps", "seconds", "bar"), fits))
    print(f"\nThe second panel beside the peers (medians, in turns, {arguments.repeats} rounds).\n")
    against_peers(rival, 120, arguments.github_code, arguments.repeats)


if __name__ == "__main__":
    main()
