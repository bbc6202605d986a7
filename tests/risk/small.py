"""A small world with named factors whose rows, units and gaps are all irregular, and its dense truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from latentfactors import Attribute, Panel
from latentfactors.state import (
    ConditionalLoadings,
    Factors,
    FitSpan,
    LatentFactorState,
    Measurement,
    StaticLoadings,
)
from tests.house.small import month_ends

NAMES = ("market", "country=FR", "country=IT", "country=ES", "rating=A", "rating=B")


def world(
    n_periods=60,
    n_assets=12,
    *,
    conditional=False,
    units=False,
    alpha=False,
    missing=0.1,
    ragged=True,
    live=0,
    posterior=False,
    seed=0,
    value_kind="excess_return",
):
    """(state, panel): market, country and rating factors; issuers of two assets each; ratings migrate."""
    rng = np.random.default_rng(seed)
    t, n = n_periods + live, n_assets
    country = rng.integers(0, 3, n)
    rating = np.where(rng.random((t, n)) < 0.5, 0, 1)
    factors = rng.normal(0.002, [0.04, 0.02, 0.03, 0.01, 0.02, 0.01], (t, 6))
    factors[:, 1] += 0.3 * factors[:, 0]
    pattern = np.zeros((t, n, 6))
    pattern[:, :, 0] = 1.0
    pattern[:, np.arange(n), 1 + country] = 1.0
    if conditional:
        np.put_along_axis(pattern, 4 + rating[:, :, None], 1.0, axis=2)
        loadings = pattern * rng.normal(1.0, 0.3, (t, n, 6))
    else:
        pattern[:, np.arange(n), 4 + rating[0]] = 1.0
        loadings = np.broadcast_to((pattern * rng.normal(1.0, 0.3, (1, n, 6)))[0], pattern.shape)
    scale = rng.uniform(0.5, 3.0, n) if units else np.ones(n)
    location = rng.normal(size=n) if units else np.zeros(n)
    sd = rng.uniform(0.01, 0.04, n)
    a = rng.normal(0.0, 0.001, (t, n)) if alpha else np.zeros((t, n))
    noise = sd * rng.normal(size=(t, n))
    values = location + scale * (a + np.einsum("tnk,tk->tn", loadings, factors) + noise)
    universe = rng.random((t, n)) < 0.9 if ragged else np.ones((t, n), bool)
    universe[:, 0] = True
    values[rng.random((t, n)) < missing] = np.nan
    values[n_periods:] = np.nan
    values[0, 0] = values[n_periods - 1, 0] = location[0]
    values[~universe] = np.nan
    panel = Panel.from_wide(
        values, universe=universe, times=month_ends(t), assets=[f"A{i:02d}" for i in range(n)],
        frequency="M", value_kind=value_kind,
    )  # fmt: skip
    index = panel.index
    attributes = {
        "country": Attribute(country, ("FR", "IT", "ES")),
        "rating": Attribute(index.gather(rating), ("A", "B"), by="row"),
        "issuer": Attribute(np.arange(n) // 2, tuple(f"I{i}" for i in range((n + 1) // 2))),
    }
    panel = replace(panel, attributes=attributes)
    rows = index.gather(loadings)
    found = factors.copy()
    found[n_periods:] = np.nan
    covariance = None
    if posterior:
        root = rng.normal(size=(t, 6, 6)) * 0.003
        covariance = root @ root.transpose(0, 2, 1)
    state = LatentFactorState(
        index=index,
        factors=Factors(values=found, names=NAMES, covariance=covariance),
        measurement=Measurement(
            loadings=ConditionalLoadings(rows, index) if conditional else StaticLoadings(loadings[0], index),
            location=location,
            scale=scale,
            residual_variance=(sd**2)[panel.asset_codes],
            alpha=index.gather(a) if alpha else None,
        ),
        n_realised=panel.n_realised,
        fit_span=FitSpan(panel.times[0], panel.times[n_periods // 2]),
    )
    return state, panel


def dense_parts(state, panel):
    """Dense (T, N) values, residuals in model units, and (T, N, K) input-unit loadings, cell by cell."""
    index, m = state.index, state.measurement
    t, n, k = index.n_periods, index.n_assets, len(state.factors.names)
    loadings, residuals = np.full((t, n, k), np.nan), np.full((t, n), np.nan)
    for p in range(t):
        rows = range(index.offsets[p], index.offsets[p + 1])
        for j, r in enumerate(rows):
            i = index.asset_codes[r]
            b = m.loadings.at(p)[j]
            loadings[p, i] = m.scale[i] * b
            alpha = 0.0 if m.alpha is None else m.alpha[r]
            residuals[p, i] = (
                (panel.values[r] - m.location[i]) / m.scale[i] - alpha - b @ state.factors.values[p]
            )
    return panel.wide(), residuals, loadings


def random_operator(n=9, k=4, *, issuers=False, seed=0, rank=None):
    """A covariance and its dense twin, made without any of its code."""
    from latentfactors.risk import CovarianceOperator

    rng = np.random.default_rng(seed)
    b = rng.normal(size=(n, k))
    root = rng.normal(size=(k, rank or k))
    s = root @ root.T
    d = rng.uniform(0.5, 2.0, n)
    codes, rho = None, 0.0
    dense = b @ s @ b.T
    if issuers:
        codes, rho = rng.integers(-1, 3, n), 0.4
        for i in range(n):
            for j in range(n):
                same = i == j or (codes[i] >= 0 and codes[i] == codes[j])
                dense[i, j] += (1.0 if i == j else rho) * np.sqrt(d[i] * d[j]) if same else 0.0
    else:
        dense = dense + np.diag(d)
    names = ("market", "country=FR", "country=IT", "size")[:k]
    operator = CovarianceOperator(
        assets=np.array([f"A{i}" for i in range(n)]), loadings=b, factor_covariance=s, specific_variance=d,
        factor_names=names, issuers=codes, issuer_correlation=rho,
    )  # fmt: skip
    return operator, dense
