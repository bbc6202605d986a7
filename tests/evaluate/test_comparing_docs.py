"""The page about comparisons runs as written."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "comparing.md"


def test_the_examples_run_as_written(tmp_path):
    code = "\n".join(
        re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "known values are forecast by all 4 predictors" in done.stdout.splitlines()[0]
    assert "'neural network'" in done.stdout.splitlines()[1]
