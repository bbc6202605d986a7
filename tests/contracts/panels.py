"""The panel that every predictor has to live with, and what the rules do to it.

It has everything a panel can have: missing values, assets that enter and leave, a live period,
characteristics, weights, static and migrating attributes, context, observed factors.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from latentfactors import Attribute, Panel

N_TRAIN = 40


def contract_panel(
    *, n_periods: int = 64, n_assets: int = 24, missing: float = 0.15, ragged: bool = True, seed: int = 0
) -> Panel:
    """r = b_i'f_t + z_(t,i)'h_t + e over `n_periods` months and one live month; f and h have means."""
    rng = np.random.default_rng(seed)
    T = n_periods + 1
    f = np.array([0.02, 0.01]) + rng.normal(size=(T, 2)) * [0.05, 0.03]
    h = np.array([0.01, -0.01, 0.0]) + rng.normal(size=(T, 3)) * 0.03
    b = rng.normal(size=(n_assets, 2))
    b[:, 0] += 1.0
    z = np.empty((T, n_assets, 3))
    z[0] = rng.uniform(-0.5, 0.5, size=z[0].shape)
    for t in range(1, T):
        z[t] = 0.9 * z[t - 1] + 0.1 * rng.uniform(-0.5, 0.5, size=z[t].shape)
    values = f @ b.T + np.einsum("til,tl->ti", z, h) + 0.02 * rng.normal(size=(T, n_assets))
    values[rng.uniform(size=values.shape) < missing] = np.nan
    values[-1] = np.nan
    if ragged:
        for i in range(0, n_assets, 4):
            start, stop = rng.integers(0, 20), rng.integers(N_TRAIN + 8, T)
            outside = np.r_[0:start, stop:T]
            z[outside, i], values[outside, i] = np.nan, np.nan
    following = np.datetime64("2000-02") + np.arange(T).astype("timedelta64[M]")
    panel = Panel.from_arrays(
        values,
        z,
        times=following.astype("datetime64[D]") - np.timedelta64(1, "D"),
        assets=np.array([f"A{i:02d}" for i in range(n_assets)]),
        characteristic_names=("size", "bm", "noise"),
        frequency="M",
    )
    sectors = Attribute(np.arange(n_assets) % 3, ("energy", "health", "tech"), by="asset")
    ratings = Attribute(rng.integers(0, 2, size=panel.n_rows), ("high", "low"), by="row")
    observed = f + 0.01 * rng.normal(size=f.shape)
    observed[-1] = np.nan
    return replace(
        panel,
        weights=rng.lognormal(size=panel.n_rows),
        attributes={"sector": sectors, "rating": ratings},
        context=rng.normal(size=(T, 2)),
        context_names=("vix", "term"),
        observed_factors=observed,
        observed_factor_names=("mkt", "smb"),
    )


def disturb_future(panel: Panel, s: int, seed: int = 1) -> Panel:
    """Other plausible numbers in what was not yet known for row s.

    Values and observed factors of periods >= s; row sets, characteristics, weights, attributes, context of
    periods > s. Row counts and labels stay.
    """
    rng = np.random.default_rng(seed)
    index = panel.index
    period = index.period_codes
    values = np.array(panel.values)
    unrealised = period >= s
    values[unrealised] = 0.1 * rng.normal(size=unrealised.sum())
    values[unrealised & (rng.uniform(size=values.size) < 0.2)] = np.nan
    observed = np.array(panel.observed_factors)
    observed[s:] = 0.1 * rng.normal(size=observed[s:].shape)
    unknown = period > s
    codes = np.array(panel.asset_codes)
    for p in range(s + 1, panel.n_periods):
        rows = index.rows(p)
        codes[rows] = np.sort(rng.choice(panel.n_assets, size=rows.stop - rows.start, replace=False))
    characteristics = np.array(panel.characteristics)
    characteristics[unknown] = rng.uniform(-0.5, 0.5, size=characteristics[unknown].shape)
    weights = np.array(panel.weights)
    weights[unknown] = rng.lognormal(size=unknown.sum())
    rating = panel.attributes["rating"]
    migrated = np.where(unknown, rng.integers(0, 2, size=panel.n_rows), rating.codes)
    context = np.array(panel.context)
    context[s + 1 :] = rng.normal(size=context[s + 1 :].shape)
    return replace(
        panel,
        values=values,
        observed_factors=observed,
        asset_codes=codes,
        characteristics=characteristics,
        weights=weights,
        attributes={**panel.attributes, "rating": replace(rating, codes=migrated)},
        context=context,
    )


def without_rows(panel: Panel, gone: np.ndarray) -> Panel:
    """The panel as if some rows had never been supplied."""
    kept = np.flatnonzero(~gone)
    counts = np.bincount(panel.index.period_codes[kept], minlength=panel.n_periods)
    attributes = {
        name: a if a.by == "asset" else replace(a, codes=a.codes[kept])
        for name, a in panel.attributes.items()
    }
    return replace(
        panel,
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        asset_codes=panel.asset_codes[kept],
        values=panel.values[kept],
        characteristics=panel.characteristics[kept],
        weights=panel.weights[kept],
        attributes=attributes,
    )
