"""A folder of files in the form of French's data library: the seven 5x5 sorts, factors, momentum."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from latentfactors.readers.french_panel import FRENCH_SORTS

MONTHS = 60
RATED = 54  # the risk-free rate ends before the portfolios do
MOMENTUM = 50


def months(n: int) -> list[str]:
    return [f"{1963 + (6 + m) // 12}{(6 + m) % 12 + 1:02d}" for m in range(n)]


def portfolio_names(code: str) -> list[str]:
    names = [f"ME{i} {code}{j}" for i in range(1, 6) for j in range(1, 6)]
    names[0], names[4], names[20], names[24] = (
        f"SMALL Lo{code}", f"SMALL Hi{code}", f"BIG Lo{code}", f"BIG Hi{code}",
    )  # fmt: skip
    return names


def section(title: str, names: list[str], values: np.ndarray) -> str:
    dates = months(len(values))
    rows = [f"{d}," + ",".join(f"{v:.6f}" for v in row) for d, row in zip(dates, values, strict=True)]
    return "\n".join([title, "," + ",".join(names), *rows, "", ""])


def sort_tables(number: int) -> dict[str, np.ndarray]:
    """Percent returns, firms, cap, beme, beme in June, op, inv: (60, 25) each."""
    rng = np.random.default_rng(number)
    shape = (MONTHS, 25)
    return {
        "ret": rng.normal(1.0, 5.0, shape),
        "firms": rng.integers(5, 200, shape).astype(float),
        "cap": np.exp(rng.normal(6.0, 2.0, shape)),
        "beme": np.exp(rng.normal(0.0, 0.5, shape)),
        "june": np.full(shape, 7.7),
        "op": rng.normal(0.3, 0.2, shape),
        "inv": rng.normal(0.1, 0.1, shape),
    }


def write_files(folder: Path) -> Path:
    titles = {
        "ret": "  Average Value Weighted Returns -- Monthly",
        "firms": "  Number of Firms in Portfolios",
        "cap": "  Average Market Cap",
        "beme": "  Value Weight Average of BE/ME Calculated for June of t to June of t+1 as:\n"
        "  Sum[ME(Mth) * BE(Fiscal Year t-1) / ME(Dec t-1)] / Sum[ME(Mth)]",
        "june": "  Value Weight Average of BE/ME Calculated for June of t to June of t+1 as:\n"
        "  Sum[ME(Mth) * BE(Fiscal Year t-1) / ME(Jun t)] / Sum[ME(Mth)]",
        "op": "  Value Weight Average of OP Calculated as:",
        "inv": "  Value Weight Average of investment (rate of growth of assets) Calculated as:",
    }
    for number, (sort, stem) in enumerate(FRENCH_SORTS.items()):
        names, tables = portfolio_names(sort), sort_tables(number)
        text = "\n".join(section(titles[key], names, tables[key]) for key in titles)
        path = folder / f"{stem}.csv.gz"
        path.write_bytes(gzip.compress(("Made up.\n\n" + text).encode()))
    rng = np.random.default_rng(99)
    factors = np.column_stack([rng.normal(0.5, 4.0, (RATED, 5)), np.full(RATED, 0.25)])
    text = section("Made up.\n", ["Mkt-RF", "SMB", "HML", "RMW", "CMA", "RF"], factors)
    (folder / "F-F_Research_Data_5_Factors_2x3.csv").write_text(text)
    momentum = section("", ["Mom   "], rng.normal(0.6, 4.0, (MOMENTUM, 1)))
    (folder / "F-F_Momentum_Factor.csv").write_text(momentum.lstrip())
    prior = section(titles["ret"], portfolio_names("PRIOR"), rng.normal(1.0, 5.0, (MONTHS, 25)))
    (folder / "25_Portfolios_ME_Prior_12_2.csv").write_text(prior)
    return folder
