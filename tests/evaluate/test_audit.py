"""The audit finds every planted leak in the channel it leaks through, and nothing in honest predictors."""

import json

import numpy as np
import pytest

from latentfactors import (
    AR1FactorForecaster,
    BetaLambdaMapper,
    CrossSectionalOLSPredictor,
    CrossSectionalRidgePredictor,
    EWMAFactorForecaster,
    ExpandingMeanFactorForecaster,
    HistoricalMeanPredictor,
    LatentFactorForecastPipeline,
    Panel,
    PCAConfig,
    PCAModel,
    RollingMeanFactorForecaster,
    VARFactorForecaster,
    ZeroPredictor,
)
from latentfactors.characteristics import characteristics_from_returns
from latentfactors.errors import ConfigurationError, InsufficientDataError
from latentfactors.evaluate import RawColumns, audit
from latentfactors.prepare import fill_missing, rank_standardise, zscore
from tests.evaluate.planted import (
    COLUMNS,
    LEAKS,
    MEAN,
    RIDGE,
    ContextOfTomorrow,
    FactorOfTheSamePeriod,
    Foreign,
    ShiftedForecast,
    build_lagged,
    build_unlagged,
    full_panel,
    full_sample_ranking,
    raw_frame,
)

PANEL = full_panel()


def pipeline(forecaster, n_factors=2):
    model = PCAModel(PCAConfig(n_factors=n_factors))
    return LatentFactorForecastPipeline(model=model, forecaster=forecaster, mapper=BetaLambdaMapper())


def audited(leak, **options):
    if leak.build is None:
        return audit(leak.predictor, PANEL, preparation=leak.preparation, **options)
    return audit(leak.predictor, raw_frame(), build=leak.build, columns=COLUMNS, **options)


# ------------------------------------------------------------------------- planted leaks


@pytest.mark.parametrize("name", LEAKS)
def test_a_planted_leak_is_found_in_the_channel_it_leaks_through(name):
    certificate = audited(LEAKS[name], n_cuts=2)
    assert certificate.verdict == "failed", name
    assert LEAKS[name].channel in certificate.channels, repr(certificate)
    assert "failed" not in {trial.outcome for trial in certificate.trials}
    assert LEAKS[name].channel in repr(certificate)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_leaks_are_found_whatever_the_seed(seed):
    for name, leak in LEAKS.items():
        assert leak.channel in audited(leak, n_cuts=1, seed=seed).channels, name


def test_a_channel_that_does_not_leak_stays_clean():
    assert audited(LEAKS["observed factors of the same period"]).channels == (
        "observed factors",
        "everything",
        "end of the data",
    )
    weights = audited(LEAKS["next-period weights"]).channels
    assert not {"values", "characteristics", "observed factors", "context"} & set(weights)


def test_a_leak_in_the_preparation_is_invisible_without_it():
    prepared = full_sample_ranking(PANEL)
    assert audit(RIDGE, prepared).passed
    assert not audit(RIDGE, PANEL, preparation=full_sample_ranking).passed


def test_a_neighbour_leaks_near_the_cut_and_a_full_sample_statistic_everywhere():
    near = audited(LEAKS["forecast shifted by one period"]).findings
    assert all(finding.first_moved == finding.cut for finding in near)
    far = [each for each in audited(LEAKS["mean over the whole panel"]).findings if each.channel == "values"]
    assert all(finding.first_moved == str(PANEL.times[0]) for finding in far)


# ------------------------------------------------------------------------- no false alarm

CLEAN = {
    "PCA, expanding mean": pipeline(ExpandingMeanFactorForecaster()),
    "PCA, EWMA": pipeline(EWMAFactorForecaster(half_life=6.0)),
    "PCA, rolling mean": pipeline(RollingMeanFactorForecaster(window=12)),
    "PCA, AR(1)": pipeline(AR1FactorForecaster()),
    "PCA, VAR(1)": pipeline(VARFactorForecaster(lags=1)),
    "historical mean": MEAN,
    "least squares": CrossSectionalOLSPredictor(),
    "ridge": RIDGE,
    "zero": ZeroPredictor(),
    "foreign object": Foreign(),
}


@pytest.mark.parametrize("name", CLEAN)
def test_an_honest_predictor_passes(name):
    certificate = audit(CLEAN[name], PANEL, n_cuts=2)
    assert certificate.passed, repr(certificate)
    assert {
        "values",
        "observed factors",
        "characteristics",
        "weights",
        "context",
        "attributes",
        "row sets",
    } <= {trial.channel for trial in certificate.trials}


@pytest.mark.parametrize("preparation", [rank_standardise, zscore], ids=lambda f: f.__name__)
def test_a_preparation_period_by_period_passes(preparation):
    certificate = audit(RIDGE, PANEL, preparation=preparation, n_cuts=2)
    assert certificate.findings == (), repr(certificate)
    assert {trial.estimates for trial in certificate.trials} == {"fixed", "refitted"}


def test_characteristics_from_past_returns_pass():
    def prepare(panel):
        return rank_standardise(characteristics_from_returns(panel, ["mom1m", "retvol"]))

    assert audit(RIDGE, PANEL, preparation=prepare, n_cuts=2).passed


@pytest.mark.parametrize("horizon", [2, 3])
def test_longer_horizons_pass(horizon):
    ridge = CrossSectionalRidgePredictor(horizon=horizon)
    assert audit(ridge, PANEL, n_cuts=1, horizon=horizon).passed
    assert audit(CLEAN["PCA, AR(1)"], PANEL, n_cuts=1, horizon=horizon).passed


def test_a_clean_fill_is_tried_with_characteristics_missing():
    certificate = audit(RIDGE, PANEL, preparation=fill_missing, n_cuts=1)
    assert certificate.passed
    assert any("characteristics missing before the cut" in trial.action for trial in certificate.trials)


def test_scikit_learn_estimators_pass_through_the_adapter():
    ensemble = pytest.importorskip("sklearn.ensemble")
    forest = ensemble.RandomForestRegressor(n_estimators=5, max_depth=3, random_state=0)
    assert audit(forest, PANEL, n_cuts=1).passed
    leaky = audit(forest, PANEL, n_cuts=1, preparation=full_sample_ranking)
    assert leaky.channels, repr(leaky)


def test_an_unseeded_learner_cannot_be_certified():
    ensemble = pytest.importorskip("sklearn.ensemble")
    forest = ensemble.RandomForestRegressor(n_estimators=3, max_depth=3)
    assert "repetition" in audit(forest, PANEL, n_cuts=1).channels


class PeerIPCA:
    """The `ipca` package behind fit(panel) and predict(panel): Gamma times the mean of past factors."""

    def fit(self, panel):
        from ipca import InstrumentedPCA

        seen = panel.observed
        codes, period = panel.asset_codes[seen].astype(int), panel.index.period_codes[seen]
        self.model = InstrumentedPCA(n_factors=2, intercept=False, max_iter=5)
        self.model.fit(
            panel.characteristics[seen].astype(float),
            panel.values[seen],
            indices=np.column_stack([codes, period]),
            quiet=True,
        )
        gamma, factors = self.model.get_factors(label_ind=False)
        self.slopes = gamma @ factors.mean(axis=1)

    def predict(self, panel):
        return (panel.characteristics * self.slopes).sum(axis=1)


class OwnIPCA:
    """Alternating least squares in ten lines, for where the peer is not installed."""

    def fit(self, panel):
        z = [panel.characteristics[panel.index.rows(p)] for p in range(panel.n_periods)]
        r = [np.nan_to_num(panel.values[panel.index.rows(p)]) for p in range(panel.n_periods)]
        managed = np.array([block.T @ value / len(value) for block, value in zip(z, r, strict=True)])
        gamma = np.linalg.svd(managed, full_matrices=False)[2][:2].T
        for _ in range(20):
            factors = [np.linalg.lstsq(b @ gamma, v, rcond=None)[0] for b, v in zip(z, r, strict=True)]
            design = np.vstack([np.kron(b, f) for b, f in zip(z, factors, strict=True)])
            gamma = np.linalg.lstsq(design, np.concatenate(r), rcond=None)[0].reshape(gamma.shape)
        self.slopes = gamma @ np.mean(factors, axis=0)

    def predict(self, panel):
        return (panel.characteristics * self.slopes).sum(axis=1)


def test_the_ipca_package_passes():
    pytest.importorskip("ipca")
    assert audit(PeerIPCA(), PANEL, n_cuts=1).passed


def test_an_instrumented_model_written_here_passes():
    assert audit(OwnIPCA(), PANEL, n_cuts=1).passed


# ------------------------------------------------------------------------- raw frames


@pytest.mark.parametrize("backend", ["polars", "pandas"])
def test_a_panel_built_with_the_right_lag_passes(backend):
    frame = raw_frame()
    if backend == "pandas":
        pytest.importorskip("pandas")
        frame = frame.to_pandas()
    certificate = audit(RIDGE, frame, build=build_lagged, columns=COLUMNS, n_cuts=2)
    assert certificate.passed, repr(certificate)
    assert {"column ret", "column signal", "lines", "end of the data"} <= {
        trial.channel for trial in certificate.trials
    }


def test_the_lag_of_the_columns_decides_what_is_a_leak():
    known_before = RawColumns(time="month", asset="firm", value="ret", lag=0)
    options = {"build": build_unlagged, "n_cuts": 2}
    assert audit(RIDGE, raw_frame(), columns=known_before, **options).passed
    assert "column signal" in audit(RIDGE, raw_frame(), columns=COLUMNS, **options).channels


def test_columns_constant_within_a_date_stay_constant():
    frame = raw_frame()
    month = frame["month"].rank("dense").to_numpy().astype(int)
    draws = np.random.default_rng(0).normal(size=(2, month.max() + 1))
    frame = frame.with_columns(mkt=draws[0][month], term=draws[1][month])

    def build(frame):
        return Panel.from_frame(
            frame, time="month", asset="firm", value="ret", lag=1, frequency="M",
            characteristics=["signal"], context=["term"], observed_factors=["mkt"],
        )  # fmt: skip

    columns = RawColumns(
        time="month", asset="firm", value="ret", lag=1, by_date=("term",), observed_factors=("mkt",)
    )
    options = {"build": build, "columns": columns, "n_cuts": 2}
    assert audit(Foreign(), frame, **options).passed
    assert "column mkt" in audit(FactorOfTheSamePeriod(), frame, **options).channels
    assert "column term" in audit(ContextOfTomorrow(), frame, **options).channels


# ------------------------------------------------------------------------- the certificate


def test_the_certificate_is_plain_data():
    certificate = audited(LEAKS["target in features"], n_cuts=2, start=24)
    text = json.dumps(certificate.to_dict())
    assert json.loads(text)["verdict"] == "failed"
    frame = certificate.frame()
    assert frame.height == len(certificate.trials)
    assert (frame["outcome"] == "moved").sum() == len(certificate.findings)
    assert certificate.cuts == (str(PANEL.times[24]), str(PANEL.times[38]))
    assert certificate.findings[0].n_moved > 0
    assert 0 < certificate.findings[0].largest < np.inf


def test_the_same_seed_gives_the_same_certificate():
    leak = LEAKS["centred smoothing"]
    assert audited(leak, seed=4) == audited(leak, seed=4)
    assert audited(leak, seed=4).findings != audited(leak, seed=5).findings


def test_neither_predictor_nor_panel_is_touched():
    predictor, before = Foreign(), PANEL.digests()
    audit(predictor, PANEL, n_cuts=1)
    assert not hasattr(predictor, "mean")
    assert PANEL.digests() == before


class Fails(Foreign):
    def predict(self, panel):
        if not np.isfinite(panel.values[-1]):
            raise ValueError("no live period, please")
        return self.past_means(panel)


class Silent(Foreign):
    def predict(self, panel):
        return np.full(panel.n_rows, np.nan)


def test_what_could_not_be_tried_is_no_pass():
    panel = PANEL.with_values(np.nan_to_num(PANEL.values))
    certificate = audit(Fails(), panel, n_cuts=1)
    assert (certificate.verdict, certificate.findings) == ("incomplete", ())
    assert "no live period, please" in repr(certificate)
    assert audit(Silent(), PANEL, n_cuts=1).verdict == "incomplete"


class Remembers(Foreign):
    """Hides its leak from a second call on the same object."""

    def __init__(self):
        self.cache = None

    def predict(self, panel):
        if self.cache is None or self.cache.size != panel.n_rows:
            self.cache = ShiftedForecast.predict(self, panel)
        return self.cache


def test_a_predictor_with_a_memory_is_seen_through():
    assert "values" in audit(Remembers(), PANEL, n_cuts=1).channels


class AnswersOnce(Foreign):
    def predict(self, panel):
        if hasattr(self, "answered"):
            raise RuntimeError("asked twice")
        self.answered = True
        return self.past_means(panel)


def test_no_call_reaches_what_another_left_behind():
    assert audit(AnswersOnce(), PANEL, n_cuts=1).passed


def test_a_tuning_function_is_found_through_the_refit_only():
    plain = [
        each for each in audited(LEAKS["chosen with all data"], n_cuts=1).trials if each.action == "upper"
    ]
    moved = {each.estimates for each in plain if each.outcome == "moved"}
    assert moved == {"refitted"}


class HoldsBack(Foreign):
    """Fails to answer for an asset that will leave: only the row set tells."""

    def predict(self, panel):
        stays = np.isin(panel.asset_codes, panel.asset_codes[panel.index.rows(panel.n_periods - 1)])
        return np.where(stays, self.past_means(panel), np.nan)


def test_a_forecast_that_vanishes_has_moved():
    found = [each for each in audit(HoldsBack(), PANEL, n_cuts=1).findings if each.channel == "row sets"]
    assert found
    assert found[0].largest == np.inf


def test_bad_requests_are_refused():
    with pytest.raises(ConfigurationError, match="put models into a LatentFactorForecastPipeline"):
        audit(HistoricalMeanPredictor, PANEL)
    with pytest.raises(ConfigurationError, match="raw frame with build and columns"):
        audit(MEAN, raw_frame())
    with pytest.raises(ConfigurationError, match="raw frame with build and columns"):
        audit(MEAN, raw_frame(), build=build_lagged)
    with pytest.raises(ConfigurationError, match="no cut leaves a realised period behind it"):
        audit(MEAN, PANEL, start=39)
    with pytest.raises(ConfigurationError, match="predict must answer"):
        audit(type("Odd", (Foreign,), {"predict": lambda self, panel: np.zeros(3)})(), PANEL)
    unseen = PANEL.mask(PANEL.index.period_codes < 5)
    with pytest.raises(InsufficientDataError):
        audit(RIDGE, unseen, start=3)
    with pytest.raises(ConfigurationError, match="lag must be 0 or 1"):
        RawColumns(time="month", asset="firm", value="ret", lag=2)
