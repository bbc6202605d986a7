"""What the studies share: where the data are, Markdown tables, a section of RESULTS.md each."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
OUTPUT = HERE / "output"  # ignored by git: figures
RESULTS = HERE / "RESULTS.md"
HEAD = """# Studies

Written by `make studies`, a section a study; the command at the head of a section writes it alone. The data
are not part of the repository: `../shared/data`, or the folder in `LATENTFACTORS_DATA`, or `--data FOLDER`.
"""


def arguments(description: str, more: argparse.ArgumentParser | None = None) -> argparse.Namespace:
    """`--data`, `--jobs` and `--quick`, which tries a study on little of its work and writes nothing."""
    parser = argparse.ArgumentParser(description=description, parents=[more] if more else [])
    default = os.environ.get("LATENTFACTORS_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default), help="folder of the data sets")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4), help="processes")
    parser.add_argument("--quick", action="store_true", help="little of the work, printed only")
    return parser.parse_args()


def data_folder(data: Path, name: str) -> Path:
    """The folder of a data set, or one line on how to get on and exit code 2."""
    folder = data / name
    if not folder.is_dir():
        print(
            f"{sys.argv[0]}: there is no folder {folder}: give the folder that holds {name} with --data "
            "or LATENTFACTORS_DATA",
            file=sys.stderr,
        )
        raise SystemExit(2)
    return folder


def table(heads: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A Markdown table: the first column left, the others right."""
    cells = [[str(cell) for cell in line] for line in [heads, *lines]]
    widths = [max(len(line[j]) for line in cells) for j in range(len(heads))]
    rows = [
        [c.ljust(w) if not j else c.rjust(w) for j, (c, w) in enumerate(zip(line, widths, strict=True))]
        for line in cells
    ]
    rule = ["-" * (w + 1) + ("-" if not j else ":") for j, w in enumerate(widths)]
    text = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([text[0], "|" + "|".join(rule) + "|", *text[1:]])


def number(value: float, digits: int = 2, unit: float = 1.0) -> str:
    """A number, or a dash where there is none; a true minus sign."""
    if value is None or not np.isfinite(value):
        return "–"
    text = f"{unit * value:,.{digits}f}"
    text = text.removeprefix("-") if float(text.replace(",", "")) == 0 else text
    return text.replace("-", "−")


def machine(*packages: str) -> str:
    """Where numbers were made."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("latentfactors", "numpy", *packages))
    where = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return f"{where}, Python {platform.python_version()}, {versions}"


def cpu_seconds() -> float:
    """Processor time of this process and of the children that ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def release_workers() -> None:
    """End joblib's worker processes, so that their processor time is counted."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)


def write_section(name: str, text: str) -> None:
    """Replace a study's section of RESULTS.md and leave those of the others as they are."""
    found: dict[str, str] = {}
    if RESULTS.exists():
        for part in RESULTS.read_text(encoding="utf-8").split("\n## ")[1:]:
            title, _, body = part.partition("\n")
            found[title.strip()] = body.strip()
    found[name] = text.strip()
    sections = [f"## {title}\n\n{found[title]}\n" for title in sorted(found)]
    RESULTS.write_text("\n".join([HEAD, *sections]), encoding="utf-8")
    print(f"written: {RESULTS}, section {name}")
