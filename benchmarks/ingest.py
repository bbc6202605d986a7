"""How fast and in how much memory a large panel is read.

    python benchmarks/ingest.py [--rows 2500000]

The file is a monthly-like panel of 5,000 assets with 46 float32 characteristics, the size of a CRSP study.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl
from _common import fresh_process, machine, markdown_table

N_ASSETS, N_CHARACTERISTICS = 5_000, 46
NAMES = [f"c{j:02d}" for j in range(N_CHARACTERISTICS)]
ARGUMENTS = f"time='day', asset='id', value='ret', characteristics={NAMES!r}, lag=1"
IMPORT = "from latentfactors.panel import Panel"


def write_panel(path: Path, n_rows: int, *, text_ids: bool) -> None:
    """A Parquet file of daily dates x 5,000 assets, sorted by date and asset."""
    rng = np.random.default_rng(0)
    n_periods = -(-n_rows // N_ASSETS)
    days = np.arange(n_periods).astype("datetime64[D]")
    ids = np.arange(10_000, 10_000 + N_ASSETS)
    columns = {
        "day": np.repeat(days, N_ASSETS)[:n_rows],
        "id": np.tile(np.char.mod("A%05d", ids) if text_ids else ids, n_periods)[:n_rows],
        "ret": rng.normal(0, 0.1, n_rows),
    }
    columns |= {name: rng.standard_normal(n_rows, dtype=np.float32) for name in NAMES}
    pl.DataFrame(columns).write_parquet(path)


def read_file(path: Path) -> tuple[float, int]:
    """Seconds and peak bytes of `Panel.from_parquet` in a fresh interpreter, imports not counted as time."""
    measured = fresh_process(f"Panel.from_parquet({str(path)!r}, {ARGUMENTS})", f"{IMPORT}\nimport polars")
    return measured.seconds, measured.peak_bytes


def read_frame(path: Path) -> tuple[float, int]:
    """Seconds and peak bytes (the frame included) of `Panel.from_frame` on the same polars frame."""
    setup = f"{IMPORT}\nimport polars\nframe = polars.read_parquet({str(path)!r})"
    measured = fresh_process(f"Panel.from_frame(frame, {ARGUMENTS})", setup)
    return measured.seconds, measured.peak_bytes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_500_000, help="lines of the large file")
    n_rows = parser.parse_args().rows
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "panel.parquet"
        for text_ids in (False, True):
            write_in_own_process(path, n_rows, text_ids=text_ids)
            for what, read, bar in (("from_parquet", read_file, 10), ("from_frame (polars)", read_frame, 8)):
                taken, peak = read(path)
                labels = "text" if text_ids else "int"
                rows.append((what, labels, f"{n_rows:,}", f"{taken:.2f}", f"{peak / 1e9:.2f}", f"< {bar} s"))
        print(f"{n_rows:,} lines x {N_CHARACTERISTICS} characteristics ({machine()}).")
        print("from_parquet must stay below 1.3 GB; the peak of from_frame includes the frame itself.\n")
        print(markdown_table(("constructor", "labels", "lines", "seconds", "peak GB", "bar"), rows))
        print("\nTime is linear in lines (text labels, medians of 3 fresh processes).\n")
        print(linearity(path, [n_rows // 10, n_rows // 5, 2 * n_rows // 5, 4 * n_rows // 5]))


def linearity(path: Path, sizes: list[int]) -> str:
    """Seconds and seconds per million lines of both constructors at sizes that double."""
    rows = []
    for n_rows in sizes:
        write_in_own_process(path, n_rows, text_ids=True)
        times = [median(read(path)[0] for _ in range(3)) for read in (read_file, read_frame)]
        rows.append((f"{n_rows:,}", *(f"{x:.2f}" for t in times for x in (t, 1e6 * t / n_rows))))
    per_million = "s per million"
    return markdown_table(("lines", "from_parquet s", per_million, "from_frame s", per_million), rows)


def write_in_own_process(path: Path, n_rows: int, *, text_ids: bool) -> None:
    """Write the file elsewhere: what this process once held would count in every child it forks."""
    here = str(Path(__file__).parent)
    call = f"write_panel(Path({str(path)!r}), {n_rows}, text_ids={text_ids})"
    fresh_process(call, f"import sys; sys.path.insert(0, {here!r})\nfrom ingest import Path, write_panel")


if __name__ == "__main__":
    main()
