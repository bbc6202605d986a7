"""How long the library takes to start: the bare import, and the first fit of a new interpreter.

    python benchmarks/startup.py [--repeats 5]

Every figure is a whole process, from its start to its end, in turns with the others; the disk is warm.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from statistics import median

from _common import interleaved, machine, markdown_table

PANEL = """
import numpy as np
from latentfactors import Panel
values = np.random.default_rng(0).normal(size=(120, 25)).cumsum(axis=1)
{hide}
panel = Panel.from_wide(values, universe="all")
"""
FIT = """
from latentfactors import PCAConfig, PCAModel
PCAModel(PCAConfig(n_factors=3)).fit(panel)
"""
PIPELINE = """
from latentfactors import (
    BetaLambdaMapper, ExpandingMeanFactorForecaster, LatentFactorForecastPipeline, PCAConfig, PCAModel
)
model, forecaster = PCAModel(PCAConfig(n_factors=3)), ExpandingMeanFactorForecaster()
pipeline = LatentFactorForecastPipeline(model=model, forecaster=forecaster, mapper=BetaLambdaMapper())
pipeline.fit(panel)
pipeline.predict(panel)
"""
COMPLETE, HOLED = PANEL.format(hide=""), PANEL.format(hide="values[::7, ::5] = np.nan")
PROGRAMS = {
    "bare interpreter": ("pass", None),
    "import numpy": ("import numpy", None),
    "import latentfactors": ("import latentfactors", 0.3),
    "first PCA fit, 120 x 25": (COMPLETE + FIT, 1.0),
    "first PCA fit, missing cells": (HOLED + FIT, 1.0),
    "first pipeline, fit and predict": (COMPLETE + PIPELINE, None),
}


def main() -> None:
    """Run the programs in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats

    def run(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True)

    taken = interleaved({name: lambda code=code: run(code) for name, (code, _) in PROGRAMS.items()}, repeats)
    bare = median(taken["bare interpreter"])
    rows = []
    for name, (_, bar) in PROGRAMS.items():
        middle = median(taken[name])
        limit = "" if bar is None else f"{bar:.1f} s, {'held' if middle - bare < bar else 'MISSED'}"
        rows.append([name, f"{middle:.3f} s", f"{middle - bare:.3f} s", limit])
    print(markdown_table(["process", "wall time", "above bare", "bar"], rows))
    print(f"\nMedians of {repeats}; {machine()}.")


if __name__ == "__main__":
    main()
