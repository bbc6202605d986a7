"""Look-ahead that people really commit, one small class or function each, and a panel that carries it all.

`LEAKS` names for each what is handed to `audit` and the channel in which it must show.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from latentfactors import Attribute, HistoricalMeanPredictor, Panel
from latentfactors.evaluate import RawColumns
from latentfactors.kernels.cross_section import period_ranks
from latentfactors.kernels.scores import expanding_asset_mean
from latentfactors.models.direct import CrossSectionalRidgePredictor, ridge_regression
from latentfactors.simulate import characteristic_panel

COLUMNS = RawColumns(time="month", asset="firm", value="ret", lag=1)


def full_panel(n_periods=40, n_assets=16, seed=3) -> Panel:
    """Ragged, with gaps, characteristics, weights, context, observed factors and migrating ratings."""
    panel = characteristic_panel(
        n_periods=n_periods, n_assets=n_assets, n_characteristics=4, n_factors=2, noise=0.05, seed=seed
    ).panel
    rng = np.random.default_rng(seed)
    return replace(
        panel.mask(rng.random(panel.n_rows) < 0.05),
        weights=np.exp(rng.normal(size=panel.n_rows)),
        context=rng.normal(size=(panel.n_periods, 1)),
        context_names=("term",),
        observed_factors=rng.normal(scale=0.04, size=(panel.n_periods, 2)),
        observed_factor_names=("market", "size"),
        attributes={"rating": Attribute(rng.integers(0, 3, panel.n_rows), ("A", "B", "C"), by="row")},
    )


def raw_frame(n_periods=40, n_firms=14, seed=5) -> pl.DataFrame:
    """A line per month and firm; `signal` became known at its month's end. Firms come and go."""
    rng = np.random.default_rng(seed)
    months = np.datetime64("2010-01") + np.arange(n_periods + 1).astype("timedelta64[M]")
    ends = (months[1:].astype("datetime64[D]") - np.timedelta64(1, "D")).astype(object)
    lines = []
    for firm in range(n_firms):
        first = 0 if firm % 3 else int(rng.integers(0, n_periods // 2))
        last = n_periods if firm % 4 else int(rng.integers(n_periods * 3 // 4, n_periods - 2))
        lines += [(ends[p], f"F{firm:02d}", *(rng.normal(size=2) * [0.05, 1.0])) for p in range(first, last)]
    return pl.DataFrame(lines, schema=["month", "firm", "ret", "signal"], orient="row")


# ------------------------------------------------------------------------- in the preparation


def full_sample_ranking(panel):
    """Ranks over all periods at once."""
    return replace(panel, characteristics=period_ranks(panel.characteristics))


def full_sample_standardisation(panel):
    """Mean and standard deviation of all periods."""
    z = panel.characteristics
    return replace(panel, characteristics=(z - z.mean(axis=0)) / z.std(axis=0))


def centred_smoothing(panel):
    """A moving average of neighbours on both sides."""
    wide = panel.wide()
    both = np.stack([wide[:-2], wide[1:-1], wide[2:]])
    seen = np.isfinite(both)
    mean = np.where(seen, both, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    wide[1:-1] = np.where(np.isfinite(wide[1:-1]), mean, np.nan)
    return panel.with_values(panel.index.gather(wide))


def two_sided_interpolation(panel):
    """Missing values on the line between the last and the *next* observed one."""
    wide = panel.wide()
    at = np.arange(panel.n_periods)
    for column in wide.T:
        seen = np.isfinite(column)
        if seen.sum() > 1:
            column[:] = np.interp(at, at[seen], column[seen])
    return panel.with_values(panel.index.gather(wide))


def same_period_volatility(panel):
    """A characteristic of the row that is computed from its own value."""
    z = np.column_stack([panel.characteristics, np.abs(np.nan_to_num(panel.values))])
    return replace(panel, characteristics=z, characteristic_names=(*panel.characteristic_names, "vol"))


def survivors_only(panel):
    """Assets that still exist in the last period."""
    return panel.select(panel.period(-1).assets)


def backward_fill(panel):
    """Missing characteristics take the asset's next known ones."""
    cube = panel.index.dense(panel.characteristics)
    for p in range(panel.n_periods - 2, -1, -1):
        cube[p] = np.where(np.isnan(cube[p]), cube[p + 1], cube[p])
    return replace(panel, characteristics=np.nan_to_num(panel.index.gather(cube)))


# ------------------------------------------------------------------------- in building the panel


def build_lagged(frame):
    """Right: what became known at the end of a month explains the next one."""
    return Panel.from_frame(
        frame, time="month", asset="firm", value="ret", characteristics=["signal"], lag=1, frequency="M"
    )


def build_unlagged(frame):
    """Wrong: end-of-month characteristics beside the return of the same month."""
    return Panel.from_frame(
        frame, time="month", asset="firm", value="ret", characteristics=["signal"], lag=0, frequency="M"
    )


def build_survivors(frame):
    """Wrong: the firms of today's index, all the way back."""
    today = frame.filter(pl.col("month") == frame["month"].max())["firm"]
    return build_lagged(frame.filter(pl.col("firm").is_in(today.to_list())))


# ------------------------------------------------------------------------- in the predictor


class Foreign:
    """Any object with fit(panel) and predict(panel) -> (R,): no base class, no clone, no identity."""

    def fit(self, panel):
        self.mean = float(np.nanmean(panel.values))
        return self

    def past_means(self, panel):
        means = expanding_asset_mean(panel.values, panel.offsets, panel.asset_codes, panel.n_assets)
        return np.where(np.isnan(means), self.mean, means)

    def predict(self, panel):
        return self.past_means(panel)

    def __repr__(self):
        return type(self).__name__


class TargetInFeatures(Foreign):
    """The regressors contain the value to be forecast."""

    def features(self, panel):
        return np.column_stack([panel.characteristics, np.nan_to_num(panel.values)])

    def fit(self, panel):
        seen = panel.observed
        self.beta = ridge_regression(self.features(panel)[seen], panel.values[seen], 0.1)

    def predict(self, panel):
        return self.beta[0] + self.features(panel) @ self.beta[1:]


class MeanOverWholePanel(Foreign):
    """Demeans with everything it is handed at predict time."""

    def predict(self, panel):
        return self.past_means(panel) - np.nanmean(panel.values)


class SignFixedWithFullSample(Foreign):
    """A sign like that of a principal component, decided by the whole sample."""

    def predict(self, panel):
        wide = np.nan_to_num(panel.wide())
        direction = np.linalg.svd(wide, full_matrices=False)[2][0]
        return np.sign((wide @ direction).sum()) * self.past_means(panel) * np.sign(direction[0])


class TunedOnTestPeriod(Foreign):
    """Picks the shrinkage that forecasts the periods after training best, then refits on training."""

    def fit(self, panel):
        self.training = panel

    def predict(self, panel):
        first = int(panel.offsets[self.training.n_periods])
        z, best = panel.characteristics.astype(float), (np.inf, None)
        seen = self.training.observed
        for penalty in np.logspace(-3, 3, 25):
            z_train = self.training.characteristics[seen].astype(float)
            beta = ridge_regression(z_train, self.training.values[seen], penalty)
            forecast = beta[0] + z @ beta[1:]
            loss = np.nansum((panel.values[first:] - forecast[first:]) ** 2)
            best = min(best, (loss, penalty, forecast), key=lambda each: each[0])
        return best[2]


class FactorOfTheSamePeriod(Foreign):
    """Forecasts row p with the market return of p."""

    def predict(self, panel):
        market = np.nan_to_num(panel.observed_factors[:, 0])
        return self.past_means(panel) + market[panel.index.period_codes]


class ShiftedForecast(Foreign):
    """Off by one: the forecast of row p is the mean up to and including p."""

    def predict(self, panel):
        wide = panel.wide()
        seen = np.isfinite(wide)
        total = np.cumsum(np.where(seen, wide, 0.0), axis=0)
        return np.nan_to_num(total / np.maximum(np.cumsum(seen, axis=0), 1))  # (T, N)


class NextPeriodWeights(Foreign):
    """Tilts by the size an asset will have next period."""

    def predict(self, panel):
        size = panel.index.dense(panel.weights)
        size[:-1] = np.where(np.isfinite(size[1:]), size[1:], size[:-1])
        return self.past_means(panel) * panel.index.gather(size)


class NextPeriodRating(Foreign):
    """Knows the migration of ratings before it happens."""

    def predict(self, panel):
        rating = panel.index.dense(panel.attributes["rating"].codes.astype(float))
        rating[:-1] = np.where(np.isfinite(rating[1:]), rating[1:], rating[:-1])
        return self.past_means(panel) * (1.0 + panel.index.gather(rating))


class ContextOfTomorrow(Foreign):
    """Uses next period's context."""

    def predict(self, panel):
        term = np.append(panel.context[1:, 0], panel.context[-1, 0])
        return self.past_means(panel) + term[panel.index.period_codes]


class CountsFutureRows(Foreign):
    """An asset that will live long must be a good one."""

    def predict(self, panel):
        lives = np.bincount(panel.asset_codes, minlength=panel.n_assets)
        return self.past_means(panel) + 1e-3 * lives[panel.asset_codes]


def chosen_with_all_data(panel):
    """A tuning function: the penalty that fits the whole panel best, test period included."""
    z, seen = panel.characteristics.astype(float), panel.observed
    share = np.var(ridge_regression(z[seen], panel.values[seen], 0.1)[1:]) / np.nanvar(panel.values)
    return CrossSectionalRidgePredictor(penalty=float(1.0 / (1.0 + 100.0 * share)))


@dataclass(frozen=True)
class Leak:
    """What to hand to `audit`, and the channel that must show it."""

    predictor: Any
    channel: str
    preparation: Any = None
    build: Any = None


RIDGE = CrossSectionalRidgePredictor(penalty=0.1)
MEAN = HistoricalMeanPredictor()
LEAKS = {
    "full-sample ranking": Leak(RIDGE, "characteristics", full_sample_ranking),
    "full-sample standardisation": Leak(RIDGE, "characteristics", full_sample_standardisation),
    "centred smoothing": Leak(MEAN, "values", centred_smoothing),
    "interpolation from both sides": Leak(MEAN, "values", two_sided_interpolation),
    "same-period characteristic": Leak(RIDGE, "values", same_period_volatility),
    "future universe": Leak(MEAN, "row sets", survivors_only),
    "target in features": Leak(TargetInFeatures(), "values"),
    "mean over the whole panel": Leak(MeanOverWholePanel(), "values"),
    "sign fixed with the full sample": Leak(SignFixedWithFullSample(), "values"),
    "tuned on the test period": Leak(TunedOnTestPeriod(), "values"),
    "observed factors of the same period": Leak(FactorOfTheSamePeriod(), "observed factors"),
    "forecast shifted by one period": Leak(ShiftedForecast(), "values"),
    # beyond the twelve
    "next-period weights": Leak(NextPeriodWeights(), "weights"),
    "next-period rating": Leak(NextPeriodRating(), "attributes"),
    "context of tomorrow": Leak(ContextOfTomorrow(), "context"),
    "counts future rows": Leak(CountsFutureRows(), "row sets"),
    "backward fill": Leak(RIDGE, "characteristics", backward_fill),
    "chosen with all data": Leak(chosen_with_all_data, "values"),
    "built without lag": Leak(RIDGE, "column signal", build=build_unlagged),
    "built from survivors": Leak(MEAN, "lines", build=build_survivors),
}
