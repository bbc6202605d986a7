"""How fast IPCA is: from a built panel to a fit, over expanding windows, and from a file of 2.5 million rows.

    python benchmarks/ipca.py [--rows 2500000] [--peer-iterations 20]

The peer is the `ipca` package (0.6.7), where it is installed. It needs hundreds of iterations to 1e-6, so
only the first ones are run if asked for, and their mean time is compared with that of a whole fit here.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import warnings
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl
from _common import fresh_process, machine, markdown_table, seconds
from threadpoolctl import threadpool_limits

from latentfactors.forecasters import ExpandingMeanFactorForecaster
from latentfactors.kernels.ipca import fit_instrumented
from latentfactors.kernels.sufficient import period_statistics
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


def peer_iterations(panel: Panel, n: int) -> float:
    """Seconds an iteration of the `ipca` package, over its first n."""
    import pandas as pd

    here = Path(__file__).parent.resolve()  # this file has the peer's name
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    from ipca import InstrumentedPCA

    period = panel.index.period_codes
    index = pd.MultiIndex.from_arrays([panel.asset_codes, period], names=["asset", "period"])
    seen = panel.observed
    X = pd.DataFrame(panel.characteristics, index=index, columns=panel.characteristic_names)[seen]
    y = pd.Series(panel.values, index=index)[seen]

    def run(iterations: int) -> float:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer = InstrumentedPCA(n_factors=5, max_iter=iterations, iter_tol=1e-300)
            return seconds(lambda: peer.fit(X=X, y=y, data_type="panel"))

    return (run(n + 1) - run(1)) / n


def windows(panel: Panel, first: int) -> list[tuple[object, ...]]:
    """Expanding windows, one period at a time, three ways."""
    n = panel.n_periods - first

    def updates() -> None:
        model = fit(panel.between(0, first))
        for p in range(first, panel.n_periods):
            model.update(panel.between(p, p + 1))

    def shared() -> None:
        assert panel.characteristics is not None
        statistics = period_statistics(panel.values, panel.characteristics, panel.offsets)
        with threadpool_limits(limits=1, user_api="blas"):
            for p in range(first, panel.n_periods):
                fit_instrumented(statistics.take(slice(0, p)), 5)

    def walk() -> None:
        pipeline = LatentFactorForecastPipeline(
            model=IPCAModel(IPCAConfig(n_factors=5)),
            forecaster=ExpandingMeanFactorForecaster(),
            mapper=BetaLambdaMapper(),
        )
        walk_forward(pipeline, panel, ExpandingWindow(first=first, step=1), n_jobs=1)

    ways = {
        "statistics shared, cold starts (kernels)": shared,
        "`update`, warm starts": updates,
        "`walk_forward` of a pipeline, nothing shared": walk,
    }
    return [(name, n, f"{seconds(call):.2f}", "< 2 s") for name, call in ways.items()]


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
    parser.add_argument("--peer-iterations", type=int, default=0, help="minutes: it prepares its panel twice")
    arguments = parser.parse_args()
    # first, while this process is small: a child starts with its parent's peak
    table = from_file(arguments.rows)
    print(f"K = 5 throughout ({machine()}).\n")
    print(
        f"{arguments.rows:,} lines x {N_CHARACTERISTICS} float32 characteristics, from Parquet to fitted.\n"
    )
    print(markdown_table(("way", "seconds", "peak GB", "bar"), table))

    large, rival = large_panel(), rival_panel()
    print("\nFrom a built panel to fitted, cold (medians of 5).\n")
    fits = [
        one_fit(large, "T=600 N=1000 L=36, unbalanced", "< 0.6 s"),
        one_fit(rival, "T=240 N=500 L=30, 30% missing", "< 0.3 s"),
    ]
    print(markdown_table(("panel", "rows", "steps", "seconds", "bar"), fits))
    if arguments.peer_iterations:
        each = peer_iterations(large, arguments.peer_iterations)
        share = float(str(fits[0][3])) / each
        print(f"\nOne iteration of `ipca` there: {1e3 * each:.0f} ms; a fit here: {share:.1f} of them.")
    print("\n120 expanding windows of the second panel, 120 to 239 periods.\n")
    print(markdown_table(("way", "windows", "seconds", "bar"), windows(rival, 120)))


if __name__ == "__main__":
    main()
