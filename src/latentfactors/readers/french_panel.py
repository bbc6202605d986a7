"""A characteristic panel from Kenneth French's files: 175 portfolios that stand in for stocks.

Assets           seven 5x5 sorts on size and a second variable, 25 portfolios each

    sort     second variable                   file
    BEME     book-to-market equity             25_Portfolios_5x5
    AC       accruals                          25_Portfolios_ME_AC_5x5
    BETA     market beta                       25_Portfolios_ME_BETA_5x5
    INV      investment                        25_Portfolios_ME_INV_5x5
    OP       operating profitability           25_Portfolios_ME_OP_5x5
    RESVAR   variance of three-factor residuals  25_Portfolios_ME_RESVAR_5x5
    VAR      variance of daily returns         25_Portfolios_ME_VAR_5x5

Values           value-weighted monthly returns less the one-month Treasury bill, decimal, subtracted once
Characteristics  size   log of the average market capitalisation of the portfolio's firms (million USD)
                 beme   average book equity over market equity, June's book over December's market
                 op     average operating profitability over book equity
                 inv    average log growth of assets
                 and those of `characteristics_from_returns`: momentum, reversals, volatility, beta, ...
Weights          number of firms times average market capitalisation, of the same line as the characteristics

When was it known. French sorts at the end of June of year t on accounts of fiscal years that end in t-1, and
holds the portfolios from July of t to June of t+1. The lines of the sections on averages are monthly: the
accounting numbers of the sort, weighted with the month's market capitalisations. In the files of February
2026 the average market capitalisation changes from line m to line m+1 as the return of month m does
(correlation 0.97 off June; 0.13 with the return of m+1): line m stands for the *beginning* of month m. The
files do not say so, and nothing says it of the averages; therefore `lag=1`, the default, gives row m the line
of month m-1, which uses nothing of month m however the files count. Its price: in July the row carries the
numbers that the portfolio had before that June's sort. `lag=0` trusts the beginning-of-month reading.

The risk-free rate ends before the portfolios do. The panel ends there as well, with one live month behind it
(characteristics, no values); what was left out is counted in `notes`. Nothing is ever filled.

References       Fama & French (1993), JFE 33(1); Fama & French (2015), JFE 116(1), the sorts and factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.characteristics import RETURN_CHARACTERISTICS, characteristics_from_returns
from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.panel import Panel
from latentfactors.readers.french import (
    choose_section,
    excess_panel,
    read_french_csv,
    read_french_factors,
    read_french_risk_free,
    read_sections,
)
from latentfactors.validate import count

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FRENCH_SORTS", "french_characteristic_panel", "momentum_spread"]

FRENCH_SORTS = {
    "BEME": "25_Portfolios_5x5",
    "AC": "25_Portfolios_ME_AC_5x5",
    "BETA": "25_Portfolios_ME_BETA_5x5",
    "INV": "25_Portfolios_ME_INV_5x5",
    "OP": "25_Portfolios_ME_OP_5x5",
    "RESVAR": "25_Portfolios_ME_RESVAR_5x5",
    "VAR": "25_Portfolios_ME_VAR_5x5",
}
_SECTIONS = {
    "ret": "Average Value Weighted Returns -- Monthly",
    "firms": "Number of Firms",
    "cap": "Average Market Cap",
    "beme": "/ ME(Dec t-1)",
    "op": "Average of OP",
    "inv": "Average of investment",
}
_CHARACTERISTICS = ("size", "beme", "op", "inv")
_FIVE_FACTORS = "F-F_Research_Data_5_Factors_2x3"
_MOMENTUM = "F-F_Momentum_Factor"
_SIZE_MOMENTUM = "25_Portfolios_ME_Prior_12_2"
_ENDINGS = (".csv", ".CSV", ".csv.gz", ".zip")


def french_characteristic_panel(
    folder: str | Path,
    *,
    sorts: Sequence[str] = tuple(FRENCH_SORTS),
    lag: Literal[0, 1] = 1,
    momentum: Literal["published", "sorts"] = "published",
    price_based: Sequence[str] = RETURN_CHARACTERISTICS,
) -> Panel:
    """Assemble portfolios, characteristics and factors from a folder with French's files.

    Parameters
    ----------
    folder
        Files under their published names, as .csv, .csv.gz or .zip: those of `sorts`, the five-factor file
        and a momentum file.
    sorts
        Which of `FRENCH_SORTS`.
    lag
        1: row m has the line of month m-1. 0: of month m, read as the beginning of the month. See above.
    momentum
        Where the factor Mom comes from. "published": the momentum factor's file, NaN where it has ended,
        which is noted. "sorts": `momentum_spread` of the size and momentum portfolios.
    price_based
        Names of `RETURN_CHARACTERISTICS` to append, with Mkt-RF as the market; () for none. They need up to
        36 months of the past, so early rows are NaN: `fill_missing` comes next.

    Returns
    -------
    Panel
        Monthly, "excess_return"; assets such as "OP: ME1 OP2" with attributes sort, size and second (quintile
        1 to 5); weights; observed factors Mkt-RF, SMB, HML, RMW, CMA, Mom.

    Raises
    ------
    ConfigurationError
        Unknown sorts or options.
    PanelError
        A file or section that is missing, or two files for one name.

    Examples
    --------
    >>> panel = french_characteristic_panel("../shared/data/french_portfolios")  # doctest: +SKIP
    >>> panel = rank_standardise(fill_missing(panel, "drop"))  # doctest: +SKIP
    """
    chosen = (sorts,) if isinstance(sorts, str) else tuple(sorts)
    unknown = [name for name in chosen if name not in FRENCH_SORTS]
    if unknown or not chosen or len(set(chosen)) < len(chosen):
        raise ConfigurationError(
            f"sorts must be some of {', '.join(FRENCH_SORTS)}, each once, got {', '.join(map(str, chosen))!r}"
        )
    if momentum not in ("published", "sorts"):
        raise ConfigurationError(f"momentum must be 'published' or 'sorts', got {momentum!r}")
    factor_file = _find(folder, _FIVE_FACTORS)
    rate = read_french_risk_free(factor_file)
    tables = [_sort_table(_find(folder, FRENCH_SORTS[name]), name) for name in chosen]
    panel = _raw_panel(tables, rate["date"].to_numpy(), lag)
    factors = read_french_factors(factor_file)
    if momentum == "published":
        mom = read_french_factors(_find(folder, _MOMENTUM, exact=False))
        mom = mom.rename({mom.columns[1]: "Mom"})
    else:
        mom = momentum_spread(_find(folder, _SIZE_MOMENTUM))
    panel = excess_panel(panel, rate).with_observed_factors(
        factors.join(mom, on="date", how="left"), time="date"
    )
    ended = mom["date"].max()
    assert panel.observed_factors is not None
    gap = int(np.isnan(panel.observed_factors[: panel.n_realised, -1]).sum())
    if gap:
        panel = replace(
            panel, notes=(*panel.notes, f"Mom is missing in {count(gap, 'month')}, it ends {ended}")
        )
    panel = panel.with_attributes(_attributes(tables), asset="asset")
    if not price_based:
        return panel
    return characteristics_from_returns(panel, tuple(price_based), market="Mkt-RF")


def momentum_spread(path: str | Path) -> pl.DataFrame:
    """Winners minus losers from the 25 portfolios on size and prior return: `date` and `Mom`, decimal.

    Mom = mean over the five size quintiles of (fifth minus first quintile of returns from t-12 to t-2),
    value-weighted within portfolios. A stand-in where the published factor (which uses halves of size and
    30% tails) has ended; NaN where a portfolio is missing.

    Raises
    ------
    PanelError
        Not the file of 25 portfolios on size and prior return.

    Examples
    --------
    >>> import tempfile
    >>> names = [f"ME{i} PRIOR{j}" for i in range(1, 6) for j in range(1, 6)]
    >>> line = ",".join(str(j) for i in range(5) for j in range(5))  # 0% of losers to 4% of winners
    >>> file = Path(tempfile.mkdtemp()) / "25_Portfolios_ME_Prior_12_2.csv"
    >>> title = "Average Value Weighted Returns -- Monthly"
    >>> _ = file.write_text(chr(10).join([title, "," + ",".join(names), "196307," + line]))
    >>> momentum_spread(file)["Mom"].to_list()
    [0.04]
    """
    import polars as pl

    frame = read_french_csv(path, _SECTIONS["ret"])
    names = frame.columns[1:]
    if len(names) != 25 or "PRIOR" not in names[1].upper():
        raise PanelError(
            f"{str(path)!r} is not the file of 25 portfolios on size and prior return: it has {names[:3]}..."
        )
    returns = frame.select(names).to_numpy().reshape(-1, 5, 5)
    return pl.DataFrame({"date": frame["date"], "Mom": (returns[:, :, 4] - returns[:, :, 0]).mean(axis=1)})


# ------------------------------------------------------------------------------------ from files to rows


def _find(folder: str | Path, stem: str, *, exact: bool = True) -> Path:
    """The one file of a published name, whatever its ending."""
    root = Path(folder)
    if not root.is_dir():
        raise PanelError(f"there is no folder {str(root)!r} with French's files")
    found = [path for path in sorted(root.iterdir()) if path.name.endswith(_ENDINGS)]
    found = [path for path in found if path.name.startswith(stem)]
    if exact:
        # "_CSV" is how the library's own archives are called
        found = [path for path in found if path.name[len(stem) :] in (*_ENDINGS, "_CSV.zip")]
    if len(found) != 1:
        what = f"{len(found)} files" if found else "no file"
        raise PanelError(f"{str(root)!r} has {what} {stem}*.csv, .csv.gz or .zip: expected one")
    return found[0]


def _sort_table(path: Path, sort: str) -> dict[str, Any]:
    """date (T,), asset labels (25,), published names, and a (T, 25) array per entry of `_SECTIONS`."""
    sections = read_sections(path)
    found = {key: choose_section(sections, title, path) for key, title in _SECTIONS.items()}
    names = found["ret"].names
    if len(names) != 25 or any(each.names != names for each in found.values()):
        raise PanelError(
            f"{str(path)!r}: expected the same 25 portfolios in all sections, got {names[:3]}..."
        )
    dates = found["ret"].dates
    for each in found.values():
        dates = np.intersect1d(dates, each.dates)
    table: dict[str, Any] = {
        key: each.values[np.searchsorted(each.dates, dates)] for key, each in found.items()
    }
    # Published in percent, like every return of the library.
    table["ret"] = 0.01 * table["ret"]
    labels = np.array([f"{sort}: {name}" for name in names])
    return table | {"dates": dates, "labels": labels, "sort": sort}


def _raw_panel(tables: list[dict[str, Any]], rated: npt.NDArray[Any], lag: int) -> Panel:
    """Raw returns with the characteristics of the files, from the first to the last month with a rate."""
    import polars as pl

    rated = rated.astype("M8[D]")
    frames = []
    for table in tables:
        dates = table["dates"][table["dates"] >= rated[0]]
        rows = slice(len(table["dates"]) - len(dates), None)
        cap, firms = table["cap"][rows], table["firms"][rows]
        known = (cap > 0) & (firms > 0)
        columns = {
            "ret": table["ret"][rows],
            "size": np.where(known, np.log(np.where(known, cap, 1.0)), np.nan),
            "market_cap": np.where(known, cap * firms, np.nan),
            **{key: table[key][rows] for key in ("beme", "op", "inv")},
        }
        flat = {name: values.ravel() for name, values in columns.items()}
        keys = {"date": np.repeat(dates, 25), "asset": np.tile(table["labels"], len(dates))}
        frames.append(pl.DataFrame(keys | flat))
    frame = pl.concat(frames).sort("date", "asset")
    panel = Panel.from_frame(
        frame, time="date", asset="asset", value="ret", characteristics=_CHARACTERISTICS, lag=lag,
        weights="market_cap", frequency="M", value_kind="return",
    )  # fmt: skip
    labels = np.concatenate([table["labels"] for table in tables])
    panel = panel.select(labels)  # the order of the files, not of the alphabet
    # One live month is kept: its characteristics were known when the last rate was.
    stop = min(int(np.searchsorted(panel.times, rated[-1], side="right")) + 1, panel.n_periods)
    lost = panel.n_realised - stop + 1
    notes = [f"{count(lost, 'month')} after {rated[-1]} without a risk-free rate left out"] * (lost > 0)
    panel = panel.between(0, stop)
    live = panel.index.rows(stop - 1)
    if panel.times[-1] > rated[-1]:
        values = panel.values.copy()
        values[live] = np.nan
        panel = panel.with_values(values)
    return replace(panel, notes=(*panel.notes, *notes))


def _attributes(tables: list[dict[str, Any]]) -> pl.DataFrame:
    import polars as pl

    lines = [
        {"asset": label, "sort": table["sort"], "size": f"ME{j // 5 + 1}", "second": str(j % 5 + 1)}
        for table in tables
        for j, label in enumerate(table["labels"])
    ]
    return pl.DataFrame(lines)
