"""What the benchmarks share: timing, peak memory of a fresh process, interleaved repeats, Markdown tables."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

# Runs as `python -c`. Linux counts the peak in kilobytes, macOS in bytes.
_CHILD = """
import json, resource, sys, time
{setup}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.perf_counter()
{code}
seconds = time.perf_counter() - began
unit = 1 if sys.platform == "darwin" else 1024
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({{"seconds": seconds, "peak": peak * unit, "before": before * unit}}))
"""


@dataclass(frozen=True)
class Measured:
    """Wall time of the code, peak resident memory of its process, and the peak before the code began."""

    seconds: float
    peak_bytes: int
    before_bytes: int


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def fresh_process(code: str, setup: str = "") -> Measured:
    """Run `code` after `setup` in a new interpreter and measure it there.

    A process that was made by `fork` starts with its parent's peak, so nothing large may live in the caller.
    """
    script = _CHILD.format(setup=setup, code=code)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=os.environ
    )
    if done.returncode:
        raise RuntimeError(f"the measured process failed:\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Measured(found["seconds"], found["peak"], found["before"])


def interleaved(calls: Mapping[str, Callable[[], object]], repeats: int = 5) -> dict[str, list[float]]:
    """Times of several calls, taken in turns, so that a slow minute of the machine hits all alike.

    Every call runs once beforehand: compilation and cold caches are not what is compared.
    """
    for call in calls.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            taken[name].append(seconds(call))
    return taken


def ratio_of_medians(taken: Mapping[str, Sequence[float]], name: str, base: str) -> float:
    """How many times as long `name` takes as `base`."""
    return median(taken[name]) / median(taken[base])


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table with aligned columns: the first to the left, the others to the right."""
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if j == 0 else cell.rjust(width)
            for j, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = "|".join(
        "-" * (width + 2) if j == 0 else "-" * (width + 1) + ":" for j, width in enumerate(widths)
    )
    return "\n".join([line(lines[0]), f"|{rule}|", *map(line, lines[1:])])


def machine() -> str:
    """The kind of machine a table was measured on, in one line."""
    kind = f"{platform.system()} {platform.machine()}"
    return f"{kind}, {os.cpu_count()} cores, Python {platform.python_version()}"
