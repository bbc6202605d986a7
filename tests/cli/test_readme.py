"""What the README shows runs as written and prints what it says."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from latentfactors import Comparison, cli
from latentfactors.jobs import parse_job

README = Path(__file__).parents[2] / "README.md"
PAGE = README.parent / "docs" / "walk-forward.md"


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def test_the_ten_lines_run_as_written(tmp_path):
    code, comparison = blocks(README, "python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    printed = re.findall(r"#> (.*)", code)
    assert done.stdout.splitlines() == printed
    assert (tmp_path / "forecasts" / "predictions.parquet").is_file()
    for name in set(re.findall(r"found\.(\w+)", comparison)):
        assert hasattr(Comparison, name) or name in Comparison.__dataclass_fields__, name


@pytest.mark.parametrize("path", [README, PAGE], ids=lambda path: path.name)
def test_configurations_are_jobs(path):
    whole, *parts = map(tomllib.loads, blocks(path, "toml"))
    parse_job(whole)
    for part in parts:  # shown later on the page: sections that replace those of the first
        parse_job(whole | part)


def test_commands_exist(capsys):
    shown = set(re.findall(r"^latentfactors ([a-z][a-z-]*)", README.read_text(encoding="utf-8"), flags=re.M))
    assert shown == {"demo", "walk-forward", "compare", "report"}
    for command in shown:
        with pytest.raises(SystemExit) as leaving:
            cli.main([command, "--help"])
        assert not leaving.value.code
    capsys.readouterr()
