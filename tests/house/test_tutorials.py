"""Every tutorial runs as written, block after block, and prints what it says behind `#>`."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.md"))
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def same(printed, said):
    """The same words, and numbers apart by one unit of the last digit at most: machines round differently."""
    if NUMBER.sub("#", printed) != NUMBER.sub("#", said):
        return False
    pairs = zip(NUMBER.findall(printed), NUMBER.findall(said), strict=True)
    return all(
        a == b or ("." in b and abs(float(a) - float(b)) <= 1.01 * 10.0 ** -len(b.partition(".")[2]))
        for a, b in pairs
    )


def test_what_counts_as_the_same():
    assert same("F 1.23 of 5", "F 1.24 of 5")
    assert not same("F 1.23 of 5", "F 1.26 of 5")
    assert not same("F 1.23 of 5", "F 1.23 of 6")
    assert not same("G 1.23", "F 1.23")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs(page, tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert blocks
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, block in enumerate(blocks, 1):
        said = re.findall(r"^#> (.*)$", block, flags=re.M)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block, f"{page.name}, block {number}", "exec"), names)
        printed = out.getvalue().splitlines()
        assert len(printed) == len(said), (number, printed)
        for a, b in zip(printed, said, strict=True):
            assert same(a, b), (number, a, b)
