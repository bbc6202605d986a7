"""All models side by side on 200 assets x 240 months: how long `compare` takes, and where.

The process is linear in twenty characteristics (Gu, Kelly & Xiu 2021), ten yearly refits on an expanding window.
Times are of the machine as it was, with two processes; the second run finds every split in the store.
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
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as store:
        found = compare(panel, models, splits=SPLITS, n_jobs=2, store=store)
        first = time.perf_counter() - began
        began = time.perf_counter()
        again = compare(panel, models, splits=SPLITS, n_jobs=2, store=store)
        second = time.perf_counter() - began
    began = time.perf_counter()
    table = found.table().to_dicts()
    judged = time.perf_counter() - began
    print(f"## Comparison of {len(models)} models\n")
    print(
        f"{machine()}. 200 assets x 240 months, 20 characteristics, 10 refits of each model, two processes.\n"
    )
    rows = [
        (row["name"], f"{100 * row['r2_zero']:.2f}%", f"{100 * row['r2_mean']:.2f}%",
         f"{row['rank_ic']:.3f}", f"{row['long_short_sharpe']:.2f}", f"{row['seconds']:.1f} s")
        for row in table
    ]  # fmt: skip
    heads = ("model", "R2 vs zero", "R2 vs mean", "rank IC", "long-short Sharpe", "fits and forecasts")
    print(markdown_table(heads, rows))
    reused = sum(each.n_reused for each in again.results.values())
    print(
        f"\nAll together {first:.0f} s; a second run {second:.1f} s, {reused} of {10 * len(models)} splits from "
        f"the store; scores, portfolios and {len(models) * (len(models) - 1) // 2} tests {judged:.1f} s."
    )


if __name__ == "__main__":
    main()
