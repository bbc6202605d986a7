"""Run every benchmark and write their tables into benchmarks/RESULTS.md.

python benchmarks/run.py [name ...]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Run the benchmarks named, or all of them, one after another; stop at the first failure."""
    wanted = sys.argv[1:]
    files = [path for path in sorted(HERE.glob("*.py")) if path.name != "run.py" and path.name[0] != "_"]
    parts = ["# Benchmarks", "", "Written by `python benchmarks/run.py`. Tests assert results, never time."]
    for path in files:
        if wanted and path.stem not in wanted:
            continue
        print(f"benchmarks/{path.name}", flush=True)
        done = subprocess.run([sys.executable, str(path)], stdout=subprocess.PIPE, text=True, check=True)
        parts += ["", f"## {path.stem}", "", f"`python benchmarks/{path.name}`", "", done.stdout.strip()]
        print(done.stdout)
    target = HERE / "RESULTS.md"
    if not wanted:
        target.write_text("\n".join(parts) + "\n")
        print(f"written: {target}")


if __name__ == "__main__":
    main()
