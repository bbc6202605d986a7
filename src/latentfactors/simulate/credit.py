"""A panel of corporate bonds whose spread changes follow named category factors with unequal loadings.

Model            r_it = sum over factors j that bond i is linked to of b_ij f_jt + e_it     basis points a day
Links            the market, and one category each of sector, rating, country, debt type, tenor, amount, drawn
                 independently with the counts of a published universe: 2,625 bonds, 46 factors
Loadings         b_ij = 1 + h z_ij, z ~ N(0, 1): h = 0 is the world of cross-sectional regressions on dummies
Factors          independent normal, standard deviations below, all times 1.5 on a random quarter of the days
Noise            Student t with 4 degrees of freedom, scaled to its standard deviation
Lives            a share of the bonds enters or matures inside the sample; cells are hidden at random
References       Ghiye, Barreau, Carlier & Vazirgiannis (2025), Journal of Financial Data Science 7(3): the
                 universe's categories and counts

Loadings, factors, noise, lives, hidden cells and categories each have a random stream of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.estimator import at_least, check_number
from latentfactors.panel import Panel
from latentfactors.rows import Attribute, read_only
from latentfactors.simulate.parts import check_share, lives, rows_of, streams

__all__ = ["CREDIT_CATEGORIES", "CreditTruth", "credit_panel"]

FloatArray = npt.NDArray[np.float64]

# category -> bonds; the counts of every attribute sum to 2,625
CREDIT_CATEGORIES: dict[str, dict[str, int]] = {
    "sector": {
        "Financial": 962,
        "Consumer Non-cyclical": 506,
        "Industrial": 256,
        "Consumer Cyclical": 247,
        "Utilities": 234,
        "Communications": 177,
        "Basic Materials": 97,
        "Energy": 86,
        "Technology": 59,
        "Diversified": 1,
    },
    "rating": {
        "AA": 191, "A+": 197, "A": 277, "A-": 440, "BBB+": 539, "BBB": 425, "BBB-": 214, "NR": 342,
    },
    "country": {
        "FR": 503, "US": 449, "DE": 348, "UK": 211, "NL": 208, "ES": 165, "IT": 147, "Other": 103, "CH": 98,
        "SE": 81, "DK": 53, "IE": 53, "AU": 46, "JP": 45, "BE": 40, "FI": 38, "LU": 37,
    },
    "debt type": {"Senior": 2397, "Senior Non Preferred": 228},
    "tenor": {"10Y": 1058, "7Y": 695, "5Y": 503, "3Y": 198, "15Y": 171},
    "amount": {"500M": 1662, "1,000M": 798, "1,500M": 165},
}  # fmt: skip

# basis points a day
_FACTOR_SD = {
    "market": 2.0, "sector": 0.8, "rating": 0.6, "country": 0.5, "tenor": 0.4, "amount": 0.3,
    "debt type": 0.3,
}  # fmt: skip
_TURBULENT_SHARE, _TURBULENCE = 0.25, 1.5
_DEGREES_OF_FREEDOM = 4


@dataclass(frozen=True, eq=False, kw_only=True)
class CreditTruth:
    """A credit panel and the truth behind it.

    Attributes
    ----------
    panel
        Spread changes in basis points on business days, attributes by asset.
    factor_names
        K names, "market" first, then "sector=Financial" and so on.
    factors : (T, K)
        Realised factors, live days included, basis points.
    loadings : (N, K)
        0 where a bond is not linked.
    expected : (R,)
        Noise-free values of all rows, hidden and live ones included.
    complete : (R,)
        Values with noise before any was hidden.
    turbulent : (T,)
        Days with the higher volatility.
    noise : float
        Standard deviation of the noise, basis points.
    """

    panel: Panel
    factor_names: tuple[str, ...]
    factors: FloatArray
    loadings: FloatArray
    expected: FloatArray
    complete: FloatArray
    turbulent: npt.NDArray[np.bool_]
    noise: float

    def __post_init__(self) -> None:
        for name in ("factors", "loadings", "expected", "complete", "turbulent"):
            object.__setattr__(self, name, read_only(getattr(self, name)))


def credit_panel(
    n_assets: int = 2625,
    n_periods: int = 435,
    *,
    heterogeneity: float = 0.5,
    noise: float = 1.2,
    missing: float = 0.15,
    partial: float = 0.3,
    live: int = 0,
    seed: int = 0,
) -> CreditTruth:
    """Daily spread changes of bonds with sector, rating, country, debt type, tenor and amount.

    Parameters
    ----------
    n_assets
        Bonds; categories keep their shares of the universe of 2,625 (largest remainders).
    n_periods
        Business days with values, from 2020-01-01.
    heterogeneity
        Standard deviation h of the loadings around 1, >= 0.
    noise
        Standard deviation of the idiosyncratic part, basis points, >= 0.
    missing
        Share of cells hidden at random, in [0, 1).
    partial
        Share of bonds with a partial life, in [0, 1): it begins on a uniformly drawn day and ends on one
        drawn uniformly from the rest.
    live
        Days appended with rows and no values.
    seed
        Of the NumPy generators, >= 0.

    Returns
    -------
    CreditTruth

    Raises
    ------
    ConfigurationError
        A parameter outside its range.

    Notes
    -----
    Factor standard deviations in basis points: market 2.0, sector 0.8, rating 0.6, country 0.5, tenor 0.4,
    amount 0.3, debt type 0.3, all 1.5 times as large on a quarter of the days. These, and the defaults above,
    are fixed: no test tunes them.

    Examples
    --------
    >>> truth = credit_panel(n_assets=200, n_periods=40, live=1)
    >>> truth.panel.n_periods, truth.loadings.shape, len(truth.factor_names)
    (41, (200, 46), 46)
    """
    _check(n_assets, n_periods, heterogeneity, noise, missing, partial, live, seed)
    rng = streams(seed, ("categories", "loadings", "factors", "noise", "lives", "hidden"))
    factor = rng["factors"]
    n_all = n_periods + live
    codes = {
        name: rng["categories"].permutation(np.repeat(np.arange(len(counts)), shares(counts, n_assets)))
        for name, counts in CREDIT_CATEGORIES.items()
    }
    names = ("market", *(f"{a}={c}" for a, counts in CREDIT_CATEGORIES.items() for c in counts))
    sd = np.array([_FACTOR_SD[name.split("=")[0]] for name in names])
    turbulent = np.zeros(n_all, dtype=bool)
    turbulent[factor.permutation(n_all)[: round(_TURBULENT_SHARE * n_all)]] = True
    factors = sd * factor.normal(size=(n_all, sd.size))
    factors *= np.where(turbulent, _TURBULENCE, 1.0)[:, None]

    links = np.zeros((n_assets, sd.size))
    links[:, 0], first = 1.0, 1
    for name, counts in CREDIT_CATEGORIES.items():
        links[np.arange(n_assets), first + codes[name]] = 1.0
        first += len(counts)
    loadings = links * (1.0 + heterogeneity * rng["loadings"].normal(size=links.shape))

    alive = lives(rng["lives"], n_periods, live, n_assets, int(partial * n_assets))
    days = np.busday_offset("2020-01-01", np.arange(n_all), roll="forward")
    index = rows_of(alive, days, "B", "B")
    expected = index.gather(factors @ loadings.T)
    t_sd = np.sqrt(_DEGREES_OF_FREEDOM / (_DEGREES_OF_FREEDOM - 2))
    errors = noise / t_sd * rng["noise"].standard_t(_DEGREES_OF_FREEDOM, size=alive.shape)
    complete = expected + index.gather(errors)
    gone = index.gather(rng["hidden"].random(size=alive.shape) < missing) | (index.period_codes >= n_periods)
    panel = Panel(
        times=index.times,
        assets=index.assets,
        offsets=index.offsets,
        asset_codes=index.asset_codes,
        values=np.where(gone, np.nan, complete),
        value_kind="spread_change",
        frequency="B",
        attributes={
            name: Attribute(codes[name].astype(np.int32), tuple(counts), by="asset")
            for name, counts in CREDIT_CATEGORIES.items()
        },
    )
    return CreditTruth(
        panel=panel,
        factor_names=names,
        factors=factors,
        loadings=loadings,
        expected=expected,
        complete=complete,
        turbulent=turbulent,
        noise=float(noise),
    )


def shares(counts: dict[str, int], n_assets: int) -> npt.NDArray[np.int64]:
    """`counts` scaled to sum to `n_assets`: rounded down, the rest to the largest remainders."""
    exact = n_assets * np.array(list(counts.values())) / sum(counts.values())
    found = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - found), kind="stable")
    found[order[: n_assets - int(found.sum())]] += 1
    return found


def _check(
    n_assets: int, n_periods: int, heterogeneity: float, noise: float, missing: float, partial: float,
    live: int, seed: int,
) -> None:  # fmt: skip
    for name, whole, lowest in (
        ("n_assets", n_assets, 1), ("n_periods", n_periods, 1), ("live", live, 0), ("seed", seed, 0),
    ):  # fmt: skip
        at_least(name, whole, lowest)
    check_number("heterogeneity", heterogeneity)
    check_number("noise", noise)
    check_share(missing=missing, partial=partial)
