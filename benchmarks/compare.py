"""All models side by side on 200 assets x 240 months: how long `compare` takes, and where.

The process is linear in twenty characteristics (Gu, Kelly & Xiu 2021), ten refits. One
process; processor time does not depend on what else the machine does, wall time does. The second run
finds every split in the store.
"""

from __future__ import annotations

import tempfile
import time

from _common import machine, markdown_table

from latentfactors import ExpandingWindow, compare, default_models
from latentfactors.simulate import conditional_panel

SPLITS = ExpandingWindow(first=120, step=12)
EIGHT = (
    "historical mean", "PCA(3)", "RP-PCA(3)", "ridge", "neural network", "boosted trees", "IPCA(3)", "CAE(3)",
)  # fmt: skip


def main() -> None:
    """Print the table."""
    panel = conditional_panel("linear", n_periods=240, n_assets=200, n_characteristics=20, seed=1).panel
    models = {name: each for name, each in default_models(panel).models.items() if name in EIGHT}
    began, spent = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as store:
        found = compare(panel, models, splits=SPLITS, store=store)
        first, processor = time.perf_counter() - began, time.process_time() - spent
        began = time.perf_counter()
        again = compare(panel, models, splits=SPLITS, store=store)
        second = time.perf_counter() - began
    began = time.perf_counter()
    table = found.table().to_dicts()
    judged = time.perf_counter() - began
    print(f"{len(models)} models side by side.\n")
    print(f"{machine()}. 200 assets x 240 months, 20 characteristics, 10 refits each, one process.\n")
    rows = [
        (row["name"], f"{100 * row['r2_zero']:.2f}%", f"{100 * row['r2_mean']:.2f}%",
         f"{row['rank_ic']:.3f}", f"{row['long_short_sharpe']:.2f}", f"{row['seconds']:.1f} s")
        for row in table
    ]  # fmt: skip
    heads = ("model", "R2 vs zero", "R2 vs mean", "rank IC", "long-short Sharpe", "fits and forecasts")
    print(markdown_table(heads, rows))
    reused = sum(each.n_reused for each in again.results.values())
    print(
        f"\nAll together {processor:.0f} s of processor time, {first:.0f} s of wall time; a second run "
        f"{second:.1f} s, {reused} of {10 * len(models)} splits from the store; scores, portfolios and tests "
        f"{judged:.1f} s."
    )


if __name__ == "__main__":
    main()
