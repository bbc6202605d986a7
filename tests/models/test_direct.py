"""Direct predictors against loops, linearmodels and scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from latentfactors import (
    CrossSectionalOLSPredictor,
    CrossSectionalRidgePredictor,
    HistoricalMeanPredictor,
    Panel,
    Predictor,
    RegressorPredictor,
    ZeroPredictor,
)
from latentfactors.errors import (
    ConfigurationError,
    HorizonError,
    InsufficientDataError,
    NotFittedError,
    PanelMismatchError,
    StoreError,
)
from latentfactors.models.direct import values_ahead
from latentfactors.simulate import characteristic_panel, static_panel

PANEL = characteristic_panel(
    n_periods=40, n_assets=50, n_factors=2, n_characteristics=3, missing=0.1, live=1, seed=1
).panel


def cells():
    """(period, label) -> value, the slow way to look one up."""
    index = PANEL.index
    keys = zip(index.period_codes.tolist(), PANEL.assets[PANEL.asset_codes].tolist(), strict=True)
    return dict(zip(keys, PANEL.values.tolist(), strict=True))


def slow_fama_macbeth(n_train, horizon, penalty):
    """One regression per period whose target still lies in training, then the average."""
    values, table = cells(), []
    for p in range(n_train):
        period = PANEL.period(p)
        z, y = [], []
        for i, label in enumerate(period.assets.tolist()):
            value = values.get((p + horizon - 1, label), np.nan) if p + horizon - 1 < n_train else np.nan
            if np.isfinite(value):
                z.append(period.characteristics[i])
                y.append(value)
        if len(y) < (2 if penalty else 5):
            continue
        z, y = np.array(z, dtype=float), np.array(y)
        centred = z - z.mean(axis=0)
        weight = penalty * np.trace(centred.T @ centred) / z.shape[1]
        design = np.column_stack([np.ones(len(y)), z])
        ridge = weight * np.diag([0.0, 1.0, 1.0, 1.0])
        # the intercept is free: penalised least squares on demeaned regressors
        slopes = np.linalg.solve(centred.T @ centred + weight * np.eye(3), centred.T @ (y - y.mean()))
        if not penalty:
            np.testing.assert_allclose(np.linalg.solve(design.T @ design + ridge, design.T @ y)[1:], slopes)
        table.append([y.mean() - z.mean(axis=0) @ slopes, *slopes])
    return np.array(table)


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_cross_sectional_regressions_equal_their_loop(horizon, penalty):
    predictor = (
        CrossSectionalRidgePredictor(penalty=penalty, horizon=horizon)
        if penalty
        else CrossSectionalOLSPredictor(horizon=horizon)
    )
    summary = predictor.fit(PANEL.between(0, 30))
    table = slow_fama_macbeth(30, horizon, penalty)
    found = predictor.estimates
    np.testing.assert_allclose([found.intercept, *found.slopes], table.mean(axis=0), rtol=1e-9)
    t = table.mean(axis=0) / (table.std(axis=0, ddof=1) / np.sqrt(len(table)))
    np.testing.assert_allclose(found.t_statistics, t, rtol=1e-9)
    assert found.n_periods == len(table) == 30 - horizon + 1
    assert summary.reason == f"average of {len(table)} cross-sectional regressions"
    forecast = predictor.predict(PANEL, start=PANEL.times[30], horizon=horizon).asset_forecast
    rows = PANEL.between(30, 41)
    np.testing.assert_allclose(
        forecast.expected_values, found.intercept + rows.characteristics @ found.slopes, rtol=1e-12
    )
    assert np.isfinite(forecast.wide()[-1]).any()  # the live period
    with pytest.raises(HorizonError, match=f"built for horizon={horizon}, asked for 2"):
        predictor.predict(PANEL, horizon=2)


def test_ols_equals_linearmodels():
    pandas = pytest.importorskip("pandas")
    linearmodels = pytest.importorskip("linearmodels")
    training = PANEL.between(0, 40)
    frame = pandas.DataFrame(training.characteristics, columns=list(training.characteristic_names)).assign(
        value=training.values,
        asset=training.assets[training.asset_codes],
        time=training.times[training.index.period_codes].astype("datetime64[s]"),
        constant=1.0,
    )
    frame = frame.dropna().set_index(["asset", "time"])
    names = ["constant", *training.characteristic_names]
    result = linearmodels.FamaMacBeth(frame["value"], frame[names]).fit(cov_type="unadjusted", debiased=True)
    predictor = CrossSectionalOLSPredictor()
    predictor.fit(training)
    found = predictor.estimates
    np.testing.assert_allclose([found.intercept, *found.slopes], result.params[names], rtol=1e-8)


def test_thin_periods_are_left_out_and_counted():
    values = PANEL.values.copy()
    rows = PANEL.index.rows(5)
    values[rows.start + 4 : rows.stop] = np.nan  # four rows for an intercept and three slopes
    predictor = CrossSectionalOLSPredictor()
    summary = predictor.fit(PANEL.with_values(values))
    assert summary.warnings == ("1 period with fewer than 5 observed rows left out",)
    assert predictor.estimates.n_periods == 39
    assert CrossSectionalRidgePredictor().fit(PANEL.with_values(values)).warnings == ()
    few = PANEL.with_values(np.where(PANEL.index.period_codes < 1, PANEL.values, np.nan))
    with pytest.raises(InsufficientDataError, match="no training period has 500 rows"):
        CrossSectionalOLSPredictor(min_assets=500).fit(few)


@pytest.mark.parametrize("factor", [2.0**20, 1e-4])
def test_ridge_does_not_depend_on_units(factor):
    scaled = replace(PANEL, values=PANEL.values * factor, characteristics=PANEL.characteristics * 8.0)
    one, two = CrossSectionalRidgePredictor(penalty=0.5), CrossSectionalRidgePredictor(penalty=0.5)
    one.fit(PANEL)
    two.fit(scaled)
    np.testing.assert_allclose(
        two.predict(scaled).asset_forecast.expected_values,
        one.predict(PANEL).asset_forecast.expected_values * factor,
        rtol=1e-9,
    )


def test_more_penalty_more_shrinkage_and_none_is_least_squares():
    norms = []
    for penalty in (0.0, 0.1, 1.0, 1e6):
        predictor = CrossSectionalRidgePredictor(penalty=penalty)
        predictor.fit(PANEL)
        norms.append(np.linalg.norm(predictor.estimates.slopes))
    assert np.all(np.diff(norms) < 0)
    assert norms[-1] < 1e-4 * norms[0]
    ols = CrossSectionalOLSPredictor()
    ols.fit(PANEL)
    assert np.linalg.norm(ols.estimates.slopes) == pytest.approx(norms[0], rel=1e-12)


def test_collinear_characteristics_share_the_slope():
    twice = np.column_stack([PANEL.characteristics, PANEL.characteristics[:, :1]])
    panel = replace(PANEL, characteristics=twice, characteristic_names=("a", "b", "c", "a again"))
    predictor, plain = CrossSectionalOLSPredictor(min_assets=5), CrossSectionalOLSPredictor(min_assets=5)
    predictor.fit(panel)
    plain.fit(PANEL)
    slopes = predictor.estimates.slopes
    assert slopes[0] == pytest.approx(slopes[3], rel=1e-6)
    assert slopes[0] * 2 == pytest.approx(plain.estimates.slopes[0], rel=1e-6)


def test_values_ahead():
    np.testing.assert_array_equal(values_ahead(PANEL, 1), PANEL.values)
    values, ahead, index = cells(), values_ahead(PANEL, 4), PANEL.index
    for row in range(0, PANEL.n_rows, 37):
        p, label = int(index.period_codes[row]), PANEL.assets[PANEL.asset_codes[row]]
        np.testing.assert_equal(ahead[row], values.get((p + 3, label), np.nan))
    assert np.isnan(values_ahead(PANEL.between(0, 2), 4)).all()  # the panel is shorter than the horizon
    with pytest.raises(InsufficientDataError, match="a value 4 ahead"):
        CrossSectionalOLSPredictor(horizon=4).fit(PANEL.between(0, 2))


# ---------------------------------------------------------------------------------- zero and historical mean


def test_zero():
    predictor = ZeroPredictor()
    predictor.fit(PANEL.between(0, 30))
    for horizon in (1, 3):
        forecast = predictor.predict(PANEL, horizon=horizon, start=PANEL.times[35]).asset_forecast
        np.testing.assert_array_equal(forecast.expected_values, np.zeros(PANEL.between(35, 41).n_rows))
        np.testing.assert_array_equal(forecast.in_sample, False)


@pytest.mark.parametrize("min_periods", [1, 4])
def test_historical_mean_equals_its_loop(min_periods):
    predictor = HistoricalMeanPredictor(min_periods=min_periods)
    predictor.fit(PANEL.between(0, 25))
    forecast = predictor.predict(PANEL, horizon=2).asset_forecast.wide()
    wide = PANEL.wide()
    rows = ~np.isnan(PANEL.index.dense(np.ones(PANEL.n_rows)))
    for p in range(41):
        for i in np.flatnonzero(rows[p]):
            past = wide[:p, i][np.isfinite(wide[:p, i])]
            expected = past.mean() if past.size >= min_periods else np.nan
            np.testing.assert_allclose(forecast[p, i], expected, rtol=1e-12)
    assert np.isnan(forecast[~rows]).all()


# ------------------------------------------------------------------------------------ rules for all

ALL = [
    ZeroPredictor(),
    HistoricalMeanPredictor(),
    CrossSectionalOLSPredictor(),
    CrossSectionalRidgePredictor(penalty=0.2),
]


@pytest.mark.parametrize("predictor", ALL, ids=lambda p: type(p).__name__)
def test_every_direct_predictor(predictor, tmp_path):
    predictor = predictor.clone()
    assert isinstance(predictor, Predictor)
    with pytest.raises(NotFittedError, match="is not fitted"):
        predictor.predict(PANEL)
    predictor.fit(PANEL.between(0, 30))
    whole = predictor.predict(PANEL).asset_forecast.expected_values
    first = PANEL.between(0, 35).n_rows
    np.testing.assert_array_equal(
        predictor.predict(PANEL, start=PANEL.times[35]).asset_forecast.expected_values, whole[first:]
    )
    # the future changes nothing before it
    moved = PANEL.with_values(np.where(PANEL.index.period_codes >= 35, 9.0, PANEL.values))
    early = PANEL.between(0, 36).n_rows
    np.testing.assert_array_equal(
        predictor.predict(moved).asset_forecast.expected_values[:early], whole[:early]
    )
    # a fit does not see the live tail
    other = predictor.clone()
    other.fit(PANEL.with_values(np.where(PANEL.index.period_codes >= 30, np.nan, PANEL.values)))
    np.testing.assert_array_equal(other.predict(PANEL).asset_forecast.expected_values, whole)
    predictor.save(tmp_path)
    loaded = type(predictor).load(tmp_path)
    np.testing.assert_array_equal(loaded.predict(PANEL).asset_forecast.expected_values, whole)
    assert loaded.identity == predictor.identity == predictor.clone().identity
    for horizon in (0, 1.0):
        with pytest.raises(HorizonError):
            predictor.predict(PANEL, horizon=horizon)
    prediction = predictor.predict(PANEL)
    assert prediction.state is None
    assert prediction.asset_weights is None


def test_identities_differ():
    others = [CrossSectionalRidgePredictor(penalty=0.3), CrossSectionalRidgePredictor(penalty=0.2, horizon=2)]
    identities = [predictor.identity for predictor in [*ALL, *others, HistoricalMeanPredictor(min_periods=2)]]
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize("predictor", ALL[2:], ids=lambda p: type(p).__name__)
def test_characteristics_are_checked(predictor):
    predictor = predictor.clone()
    with pytest.raises(PanelMismatchError, match="needs characteristics, the panel has none"):
        predictor.fit(static_panel(n_periods=20, n_assets=5).panel)
    holed = PANEL.characteristics.copy()
    holed[::4, 1] = np.nan
    bad = replace(PANEL, characteristics=holed)
    with pytest.raises(PanelMismatchError, match=r"missing are 'c1' 25\.\d%: call latentfactors\.prepare"):
        predictor.fit(bad)
    predictor.fit(PANEL)
    with pytest.raises(PanelMismatchError, match="'c1'"):
        predictor.predict(bad)
    with pytest.raises(PanelMismatchError, match="characteristics"):
        predictor.predict(replace(PANEL, characteristic_names=("c1", "c0", "c2")))


@pytest.mark.parametrize(
    "build",
    [
        lambda: CrossSectionalOLSPredictor(horizon=0),
        lambda: CrossSectionalOLSPredictor(horizon=1.5),
        lambda: CrossSectionalRidgePredictor(penalty=-1.0),
        lambda: CrossSectionalRidgePredictor(penalty=np.nan),
        lambda: HistoricalMeanPredictor(min_periods=0),
    ],
)
def test_bad_options_are_refused(build):
    with pytest.raises(ConfigurationError):
        build()


# ------------------------------------------------------------------------------------ foreign regressors


def test_a_scikit_learn_regressor(tmp_path):
    linear = pytest.importorskip("sklearn.linear_model")
    for horizon in (1, 2):
        foreign = linear.Ridge(alpha=0.7)
        predictor = RegressorPredictor(foreign, horizon=horizon)
        predictor.fit(PANEL.between(0, 30))
        assert not hasattr(foreign, "coef_")  # a copy was fitted
        training = PANEL.between(0, 30)
        ahead = values_ahead(training, horizon)
        seen = np.isfinite(ahead)
        twin = linear.Ridge(alpha=0.7).fit(training.characteristics[seen], ahead[seen])
        forecast = predictor.predict(PANEL, start=PANEL.times[30], horizon=horizon).asset_forecast
        np.testing.assert_allclose(
            forecast.expected_values, twin.predict(PANEL.between(30, 41).characteristics), rtol=1e-9
        )
    before = forecast.expected_values
    foreign.set_params(alpha=50.0)  # what is done to the original afterwards changes nothing
    twin = predictor.clone()
    twin.fit(PANEL.between(0, 30))
    predictor.clone().fit(PANEL.between(0, 10))  # nor does what a clone learns
    for each in (predictor, twin):
        again = each.predict(PANEL, start=PANEL.times[30], horizon=2).asset_forecast
        np.testing.assert_array_equal(again.expected_values, before)
    with pytest.raises(StoreError, match="without pickle"):
        predictor.save(tmp_path / "foreign")
    assert not (tmp_path / "foreign").exists()
    clone = predictor.clone()
    with pytest.raises(NotFittedError):
        clone.predict(PANEL, horizon=2)
    clone.fit(PANEL.between(0, 30))
    np.testing.assert_array_equal(
        clone.predict(PANEL, horizon=2).asset_forecast.expected_values,
        predictor.predict(PANEL, horizon=2).asset_forecast.expected_values,
    )


def test_identity_of_a_foreign_regressor_is_class_and_parameters():
    linear = pytest.importorskip("sklearn.linear_model")
    base = RegressorPredictor(linear.Ridge(alpha=0.7))
    assert base.identity == RegressorPredictor(linear.Ridge(alpha=0.7)).identity
    others = [
        RegressorPredictor(linear.Ridge(alpha=0.8)),
        RegressorPredictor(linear.Ridge(alpha=0.7), horizon=2),
        RegressorPredictor(linear.Lasso(alpha=0.7)),
    ]
    assert len({base.identity, *(other.identity for other in others)}) == 4
    # long arrays are not cut short
    long, other = np.ones(5000), np.ones(5000)
    other[2500] = 2.0
    identities = {RegressorPredictor(linear.Ridge(alpha=alpha)).identity for alpha in (long, other)}
    assert len(identities) == 2


def test_foreign_regressors_are_checked():
    linear = pytest.importorskip("sklearn.linear_model")
    with pytest.raises(ConfigurationError, match="regressor must have fit, predict and get_params, lacks"):
        RegressorPredictor(object())
    with pytest.raises(HorizonError):
        RegressorPredictor(linear.Ridge(), horizon=0)
    with pytest.raises(InsufficientDataError, match="nothing to learn from"):
        RegressorPredictor(linear.Ridge(), horizon=9).fit(PANEL.between(0, 3))


def test_characteristics_in_natural_units_keep_their_digits():
    """A market capitalisation beside a ratio: the ratio's slope must not drown in cross products."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(40, 60, 2))
    values = 0.01 * z.sum(axis=2) + 0.001 * rng.normal(size=(40, 60))
    plain = CrossSectionalOLSPredictor()
    plain.fit(Panel.from_arrays(values, z))
    for scale in (1e-10, 1e7, 1e12):
        scaled = CrossSectionalOLSPredictor()
        scaled.fit(Panel.from_arrays(values, z * [scale, 1.0]))
        np.testing.assert_allclose(scaled.estimates.slopes * [scale, 1.0], plain.estimates.slopes, rtol=1e-8)


@pytest.mark.parametrize("min_assets", [0, -1, 1.5, True, "3"])
def test_min_assets_is_a_positive_whole_number(min_assets):
    with pytest.raises(ConfigurationError, match="min_assets"):
        CrossSectionalRidgePredictor(min_assets=min_assets)
