"""Samples that ship inside other packages, as panels.

| function        | what                                                              | from           |
|-----------------|-------------------------------------------------------------------|----------------|
| `french_sample` | 30 US portfolios and 4 factors, monthly 1949-2017, excess returns | `linearmodels` |
| `french_frame`  | the same portfolios as a long frame, as a user has them on disk   | `linearmodels` |

Source           Kenneth R. French's data library, as packaged by Kevin Sheppard in linearmodels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import MissingCapabilityError
from latentfactors.panel import Panel
from latentfactors.periods import period_end

if TYPE_CHECKING:
    import polars as pl

__all__ = ["french_frame", "french_sample"]

_FACTORS = ("MktRF", "SMB", "HML", "Mom")
_RISK_FREE = "RF"
_DATE = "dates"


def french_sample() -> Panel:
    """US portfolios and factors, monthly from 1949-01 to 2017-03: 819 months, no cell missing.

    Twelve industry portfolios (NoDur to Other), nine sorted on size and value (S1V1 to S5V5) and nine on size
    and momentum (S1M1 to S5M5): S5 is large, V5 has a high book-to-market ratio, M5 are the winners. The
    one-month Treasury bill's rate is subtracted from the raw returns, once.

    Returns
    -------
    Panel
        Values (819 * 30,), decimal excess returns; observed factors MktRF, SMB, HML, Mom (819, 4), decimal;
        every cell a row; frequency "M". No characteristics: `characteristics_from_returns` makes some.

    Raises
    ------
    MissingCapabilityError
        Without `linearmodels`.

    Examples
    --------
    >>> panel = french_sample()
    >>> panel
    Panel(819 periods 1949-01-31..2017-03-31, 30 assets, 24570 rows, 4 observed factors, excess_return, 'M')
    >>> (100 * panel.observed_factors.mean(axis=0)).round(2)  # percent a month
    array([0.65, 0.16, 0.35, 0.7 ])
    """
    raw = _french()
    dates, portfolios, excess = _excess_returns(raw)
    panel = Panel.from_wide(
        excess, universe="all", times=dates, assets=portfolios, frequency="M", value_kind="excess_return"
    )
    factors = raw[list(_FACTORS)].to_numpy(dtype=np.float64)
    return replace(panel, observed_factors=factors, observed_factor_names=_FACTORS)


def french_frame() -> pl.DataFrame:
    """Excess returns of `french_sample` as a long polars frame.

    Returns
    -------
    polars.DataFrame
        24,570 lines sorted by date: `date` (month end), `portfolio`, `excess_return` (decimal), and the
        factors `MktRF`, `SMB`, `HML`, `Mom` (decimal, the same for all portfolios of a month).

    Raises
    ------
    MissingCapabilityError
        Without `linearmodels`.

    Examples
    --------
    >>> frame = french_frame()
    >>> frame.columns, frame.height
    (['date', 'portfolio', 'excess_return', 'MktRF', 'SMB', 'HML', 'Mom'], 24570)
    >>> panel = Panel.from_frame(frame, time="date", asset="portfolio", value="excess_return", lag=0)
    """
    import polars as pl

    raw = _french()
    dates, portfolios, excess = _excess_returns(raw)
    return pl.DataFrame(
        {
            "date": np.repeat(dates, portfolios.size),
            "portfolio": np.tile(portfolios, dates.size),
            "excess_return": excess.ravel(),
            **{name: np.repeat(raw[name].to_numpy(), portfolios.size) for name in _FACTORS},
        }
    )


def _french() -> Any:
    try:
        from linearmodels.datasets import french
    except ImportError as error:
        raise MissingCapabilityError(
            "the French sample ships in linearmodels, which is not installed: "
            "pip install 'latentfactors[pricing]'"
        ) from error
    return french.load()


def _excess_returns(raw: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Month ends (T,), portfolio names (N,) and returns less the risk-free rate (T, N)."""
    portfolios = [name for name in raw.columns if name not in (_DATE, _RISK_FREE, *_FACTORS)]
    dates = period_end(raw[_DATE].to_numpy().astype("datetime64[D]"), "M")
    returns = raw[portfolios].to_numpy(dtype=np.float64)
    return dates, np.array(portfolios), returns - raw[_RISK_FREE].to_numpy(dtype=np.float64)[:, None]
