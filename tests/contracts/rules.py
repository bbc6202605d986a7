"""The ten rules as functions of a case. Each raises AssertionError with the rule's own words."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from functools import partial

import joblib
import numpy as np
import pytest
import threadpoolctl

from latentfactors import ExpandingWindow, LatentFactorForecastPipeline, Panel, walk_forward
from latentfactors.errors import ConfigurationError, LatentFactorsError, PanelMismatchError, StoreError
from tests.contracts.panels import N_TRAIN, disturb_future, without_rows

SCALES = (1e-4, 1e6, 2.0**-13, 2.0**20)
CUTS = (N_TRAIN, 47, 52, 63, 64)  # 63 is the last realised period, 64 the live one


# ------------------------------------------------------------------------ helpers


def fitted(case, panel, n_train=N_TRAIN):
    predictor = case.make()
    predictor.fit(panel.between(0, n_train))
    return predictor


def ex_ante(prediction):
    """What a prediction says about rows before they are realised: name -> (array, "row" or "period")."""
    out = {}
    if prediction.asset_forecast is not None:
        out["forecast"] = (prediction.asset_forecast.expected_values, "row")
        if prediction.asset_forecast.variance is not None:
            out["variance"] = (prediction.asset_forecast.variance, "row")
    if prediction.asset_weights is not None:
        out["weights"] = (prediction.asset_weights.weights, "row")
    if prediction.factor_forecast is not None:
        out["premia"] = (prediction.factor_forecast.premia, "period")
        if prediction.factor_forecast.covariance is not None:
            out["premia covariance"] = (prediction.factor_forecast.covariance, "period")
    if prediction.state is not None:
        out["loadings"] = (prediction.state.measurement.loadings.rows(), "row")
    return out


def answer(prediction):
    """The main answer by row: forecasts, or weights."""
    found = ex_ante(prediction)
    return found["forecast"][0] if "forecast" in found else found["weights"][0]


def promised(case, panel, *, unless=True):
    """(R,) rows of the assets that a case forecasts; all, or `unless`, where it names no targets."""
    if case.targets is None:
        return np.full(panel.n_rows, unless)
    return np.isin(panel.assets, case.targets)[panel.asset_codes]


def upto(array, kind, index, s):
    return array[: index.offsets[s + 1]] if kind == "row" else array[: s + 1]


def same_bytes(a, b):
    return (
        a.shape == b.shape
        and np.array_equal(np.isnan(a), np.isnan(b))
        and np.array_equal(np.nan_to_num(a), np.nan_to_num(b))
    )


def close(a, b, tolerance):
    """Equal up to `tolerance` of the larger one's size, NaN in the same places."""
    if a.shape != b.shape or not np.array_equal(np.isnan(a), np.isnan(b)):
        return False
    size = np.nanmax(np.abs(b), initial=0.0)
    return bool(np.nanmax(np.abs(a - b), initial=0.0) <= tolerance * size)


# ------------------------------------------------------------------------ 1


def no_look_ahead(case):
    panel = case.panel()
    predictor = fitted(case, panel)
    same = same_bytes if case.bits is None else partial(close, tolerance=1e-10)
    for horizon in case.horizons:
        before = ex_ante(predictor.predict(panel, horizon=horizon))
        for s in CUTS:
            after = ex_ante(predictor.predict(disturb_future(panel, s), horizon=horizon))
            cut_panel = panel.between(0, s + 1)
            cut = ex_ante(predictor.predict(cut_panel, horizon=horizon))
            fewer = ex_ante(
                predictor.predict(cut_panel.select(panel.assets[cut_panel.active_assets]), horizon=horizon)
            )
            for name, (array, kind) in before.items():
                known = upto(array, kind, panel.index, s)
                assert same(known, upto(after[name][0], kind, panel.index, s)), (
                    f"{name} of rows <= {s} changed when later numbers did (horizon {horizon})"
                )
                assert close(cut[name][0], known, 1e-10), f"{name} changed when the panel was cut after {s}"
                assert close(fewer[name][0], known, 1e-10), f"{name} changed without the later assets' labels"
    horizon = case.horizons[-1]
    splits = ExpandingWindow(first=N_TRAIN, step=9)
    before = walk_forward(case.make(), panel, splits, horizon=horizon)
    # 49 and 58 are split starts, where one training period too many shows
    for s in (47, 49, 58, 63):
        after = walk_forward(case.make(), disturb_future(panel, s), splits, horizon=horizon)
        for split, old, new in zip(before.splits, before.blocks, after.blocks, strict=True):
            n = panel.offsets[min(max(s + 1, split.start), split.stop)] - panel.offsets[split.start]
            for name in ("expected_values", "variance", "weights"):
                a, b = getattr(old, name), getattr(new, name)
                assert a is None or same_bytes(a[:n], b[:n]), f"walk-forward {name} of rows <= {s} changed"


# ------------------------------------------------------------------------ 2


def missing_is_missing(case):
    panel = case.panel()
    hidden = panel.mask(np.random.default_rng(8).uniform(size=panel.n_rows) < 0.1)
    predictor = fitted(case, hidden)
    horizon = case.horizons[-1]
    base = answer(predictor.predict(hidden, horizon=horizon))
    rebuilt = _through_a_frame(hidden)
    again = fitted(case, rebuilt)
    assert close(answer(again.predict(rebuilt, horizon=horizon)), base, 1e-10), (
        "a NaN differs from a value never supplied"
    )
    if case.rows_matter is None:
        gone = ~hidden.observed & (hidden.index.period_codes < N_TRAIN)
        sparse = without_rows(hidden, gone)
        without = answer(fitted(case, sparse).predict(sparse, horizon=horizon))
        assert close(without, base[~gone], case.tolerance), "rows without a value moved other rows' forecasts"

    live = predictor.predict(panel, start=panel.times[-1], horizon=max(case.horizons[-1], 1))
    last = panel.index.rows(panel.n_periods - 1)
    seen = panel.between(0, N_TRAIN).active_assets[panel.asset_codes[last]] & promised(case, panel)[last]
    assert np.isfinite(answer(live)[seen]).all(), "a live period gets no forecasts"

    with_tail, without_tail = case.make(), case.make()
    with_tail.fit(panel)
    without_tail.fit(panel.between(0, panel.n_realised))
    a, b = (answer(each.predict(panel, horizon=case.horizons[-1])) for each in (with_tail, without_tail))
    assert same_bytes(a, b), "a live tail changed the fit"

    if case.exact is not None:
        reconstructs_hidden_cells(case)
    _survives_an_empty_period(case, panel)
    if _uses_characteristics(case):
        characteristics = np.array(panel.characteristics)
        characteristics[3, 1] = np.nan
        gappy, predictor = replace(panel, characteristics=characteristics), case.make()
        if getattr(predictor, "allows_missing_characteristics", False):  # a learner that reads gaps
            predictor.fit(gappy)
            assert np.isfinite(answer(predictor.predict(gappy, horizon=case.horizons[-1]))[3])
        else:
            with pytest.raises(PanelMismatchError, match=r"'bm'.*%"):
                predictor.fit(gappy)


def _through_a_frame(panel: Panel) -> Panel:
    """The same data as a user would supply them: a long frame in which hidden values are simply null."""
    import polars as pl

    index, factors = panel.index, panel.observed_factor_names
    frame = pl.DataFrame(
        {
            "time": panel.times[index.period_codes],
            "asset": panel.assets[panel.asset_codes],
            "value": panel.values,
            **{name: panel.characteristics[:, j] for j, name in enumerate(panel.characteristic_names)},
            "weight": panel.weights,
            **{name: panel.observed_factors[index.period_codes, j] for j, name in enumerate(factors)},
            **{name: _labels(panel, attribute) for name, attribute in panel.attributes.items()},
        }
    ).with_columns(pl.col("value").fill_nan(None))
    rebuilt = Panel.from_frame(
        frame.sample(fraction=1.0, shuffle=True, seed=1),
        time="time",
        asset="asset",
        value="value",
        characteristics=panel.characteristic_names,
        weights="weight",
        observed_factors=factors,
        attributes=tuple(panel.attributes),
        lag=0,
    )
    assert rebuilt.n_rows == panel.n_rows
    return rebuilt


def _labels(panel: Panel, attribute) -> np.ndarray:
    """(R,) category of every row."""
    codes = attribute.codes if attribute.by == "row" else attribute.codes[panel.asset_codes]
    return np.array(attribute.categories)[codes]


def reconstructs_hidden_cells(case):
    panel, truth = case.exact()
    predictor = case.make()
    predictor.fit(panel)
    prediction = predictor.predict(panel)
    got = prediction.reconstruction if case.exact_output == "reconstruction" else answer(prediction)
    # what is learned on the way needs a past: historical means, rolling betas
    needs_past = case.exact_output == "forecast" or case.new_assets == "own_history"
    rows = np.isfinite(got) | (~promised(case, panel, unless=False) & (not needs_past))
    assert rows.mean() > 0.8, "most of the exact panel has no answer"
    error = np.abs(got - truth)[rows].max() / np.sqrt(np.mean(truth**2))
    assert error <= case.exact_tolerance, f"noise-free values with 30% hidden are missed by {error:.1e}"


def _survives_an_empty_period(case, panel):
    """One asset observed in one period must not poison what follows."""
    p = N_TRAIN - 5
    rows = panel.index.rows(p)
    cells = np.zeros(panel.n_rows, dtype=bool)
    cells[rows.start + 1 : rows.stop] = True
    values = np.array(panel.values)
    values[rows.start] = 5.0
    sparse = panel.with_values(values).mask(cells)
    predictor = fitted(case, sparse)
    prediction = predictor.predict(sparse, horizon=case.horizons[-1])
    state = prediction.state
    extracted = state is not None and state.factors.information == "realised" and not case.factors_are_given
    if extracted and state.factors.covariance is None:
        assert np.isnan(state.factor_returns[p]).all(), "factors of a period with one observation are not NaN"
    usual = np.nanmax(np.abs(answer(fitted(case, panel).predict(panel, horizon=case.horizons[-1]))))
    other = (panel.asset_codes != panel.asset_codes[rows.start]) & promised(case, panel)
    got = np.abs(answer(prediction)[other])
    assert np.isfinite(got).mean() > 0.5
    assert np.nanmax(got) < 10 * usual + 0.02, "one lonely observation poisoned the forecasts"


def _uses_characteristics(case):
    predictor = case.make()
    part = predictor.model if isinstance(predictor, LatentFactorForecastPipeline) else predictor
    return part.uses_characteristics


# ------------------------------------------------------------------------ 3


def identification(case):
    panel = case.panel()
    model = fitted(case, panel).model
    training = panel.between(0, N_TRAIN)
    for name, violation in case.declared(model, training).items():
        assert violation <= 1e-8, f"declared but violated: {name} by {violation:.1e}"
    words = (type(model).__doc__ or "") + (__import__(type(model).__module__, fromlist=["_"]).__doc__ or "")
    assert type(model).__module__.startswith("tests.") or "dentif" in words, (
        "identification is not documented"
    )
    # The same data in another order must come out alike, unaligned; one more period must not reorder factors.
    state = model.extract(training)
    reordered = fitted(case, panel.select(panel.assets[::-1])).model.extract(training)
    assert close(reordered.measurement.loadings.rows(), state.measurement.loadings.rows(), case.tolerance), (
        "loadings depend on the order of assets"
    )
    longer = fitted(case, panel, N_TRAIN + 1).model.extract(training)
    ok = np.isfinite(state.factor_returns).all(axis=1)
    for k in range(state.factor_returns.shape[1]):
        correlation = np.corrcoef(state.factor_returns[ok, k], longer.factor_returns[ok, k])[0, 1]
        # The sign may turn where two loadings of opposite sign are almost equally large.
        assert abs(correlation) > 0.95, (
            f"factor {k + 1} is another one after one more period ({correlation:.2f})"
        )


# ------------------------------------------------------------------------ 4, 5, 6


def scale_free(case):
    panel = case.panel()
    horizon = case.horizons[-1]
    base = ex_ante(fitted(case, panel).predict(panel, horizon=horizon))
    for c in SCALES:
        scaled = panel.with_values(panel.values * c)
        got = ex_ante(fitted(case, scaled).predict(scaled, horizon=horizon))
        for name, power in (("forecast", 1), ("variance", 2), ("weights", 0)):
            if name in base:
                back = got[name][0] / c**power
                assert close(back, base[name][0], case.tolerance), f"{name} does not scale with {c:g}"


def order_free(case):
    panel = case.panel()
    horizon = case.horizons[-1]
    base = panel.index.dense(answer(fitted(case, panel).predict(panel, horizon=horizon)))
    order = np.random.default_rng(2).permutation(panel.n_assets)
    permuted = panel.select(panel.assets[order])
    got = permuted.index.dense(answer(fitted(case, permuted).predict(permuted, horizon=horizon)))
    assert close(got, base[:, order], case.tolerance), "permuting assets does not permute the answer"

    old = panel.select(panel.assets[:-3])
    predictor = fitted(case, old)
    prediction = predictor.predict(panel, horizon=horizon)
    # the very first period has no past, hence no premia
    fresh = (panel.asset_codes >= panel.n_assets - 3) & (panel.index.period_codes > 0)
    found = answer(prediction)
    if case.new_assets == "forecast":
        assert np.isfinite(found[fresh]).all(), "a new asset gets no forecast"
    elif case.new_assets == "nan":
        assert np.isnan(found[fresh]).all(), "a new asset gets a forecast out of nowhere"
        assert prediction.state.metadata["n_assets_without_loadings"] == 3, "new assets are not counted"
        alone = answer(predictor.predict(old, horizon=horizon))
        known = panel.asset_codes < panel.n_assets - 3
        assert close(found[known], alone, 1e-10), "new assets moved the known assets' forecasts"
    strangers = replace(panel, assets=np.array([f"X{i}" for i in range(panel.n_assets)]))
    if case.new_assets == "nan":
        with pytest.raises(LatentFactorsError, match="none of the panel's assets"):
            predictor.predict(strangers, horizon=horizon)
    else:
        assert np.isfinite(answer(predictor.predict(strangers, horizon=horizon))).any()


def original_units(case):
    panel = case.panel()
    predictor = fitted(case, panel)
    horizon = case.horizons[-1]
    prediction = predictor.predict(panel, horizon=horizon)
    forecast = prediction.asset_forecast
    if case.shifts:
        moved = panel.with_values(3.0 * panel.values + 5.0)
        got = answer(fitted(case, moved).predict(moved, horizon=horizon))
        assert close((got - 5.0) / 3.0, forecast.expected_values, 1e-6), "forecasts are not in input units"
    outside = panel.index.period_codes >= N_TRAIN
    realised = np.where(outside, panel.values, np.nan)
    error = realised - forecast.expected_values
    assert np.nanstd(error) < 1.5 * np.nanstd(realised), "forecasts are not of the values' size"
    if forecast.factor_forecast is not None:
        state, premia = forecast.state, forecast.factor_forecast
        m, index = state.measurement, panel.index
        for p in (N_TRAIN + 2, panel.n_periods - 1):
            rows = index.rows(p)
            codes, b = panel.asset_codes[rows], m.loadings.at(p)
            alpha = 0.0 if m.alpha is None else m.alpha[rows]
            mean = m.location[codes] + m.scale[codes] * (alpha + b @ premia.premia[p])
            spread = np.array([x @ premia.covariance[p] @ x for x in b])
            variance = m.scale[codes] ** 2 * (spread + m.residual_variance[rows])
            assert close(forecast.expected_values[rows], mean, 1e-12), (
                "forecast is not location + scale (b'premia)"
            )
            assert close(forecast.variance[rows], variance, 1e-12), (
                "variance is not scale^2 (b'Vb + residual)"
            )
    if forecast.variance is not None and 1 in case.horizons:
        _covers(predictor.predict(panel).asset_forecast, realised)


def _covers(forecast, realised):
    inside = np.abs(realised - forecast.expected_values) <= 1.645 * np.sqrt(forecast.variance)
    known = np.isfinite(realised) & np.isfinite(forecast.expected_values)
    share = inside[known].mean()
    assert 0.75 < share < 0.99, f"90% intervals cover {share:.2f}: variances are not in input units"


# ------------------------------------------------------------------------ 7


def determinism(case):
    panel = case.panel()
    horizon = case.horizons[-1]
    np.random.seed(1)
    first = ex_ante(fitted(case, panel).predict(panel, horizon=horizon))
    np.random.seed(2)
    second = ex_ante(fitted(case, panel).predict(panel, horizon=horizon))
    for name, (array, _) in first.items():
        assert array.tobytes() == second[name][0].tobytes(), f"{name} differs between two equal calls"
    splits = ExpandingWindow(first=N_TRAIN, step=12)
    alone = walk_forward(case.make(), panel, splits, horizon=horizon, n_jobs=1)
    with joblib.parallel_config(backend="threading", n_jobs=2):
        together = walk_forward(case.make(), panel, splits, horizon=horizon)
    for old, new in zip(alone.blocks, together.blocks, strict=True):
        for name in ("expected_values", "weights", "variance"):
            a, b = getattr(old, name), getattr(new, name)
            assert a is None or close(b, a, 1e-10), f"{name} depends on the number of jobs"


# ------------------------------------------------------------------------ 8


def explicit_checkpoints(case):
    panel = case.panel()
    predictor = fitted(case, panel)
    is_pipeline = isinstance(predictor, LatentFactorForecastPipeline)
    part = predictor.model if is_pipeline else predictor
    labels = part.available_checkpoints
    assert part.fitted.default in labels, "the default checkpoint is none of the available ones"
    assert part.summary.checkpoint == part.fitted.default, "the summary does not name the checkpoint"
    with pytest.raises(ConfigurationError, match="nonsense"):
        part.estimates_at("nonsense")
    if not is_pipeline:
        return
    horizon = case.horizons[-1]
    state = predictor.predict(panel, horizon=horizon).state
    assert state.checkpoint == part.fitted.default, "the state does not name the default checkpoint"
    training = panel.between(0, N_TRAIN)
    for label in labels:
        prediction = predictor.predict(panel, horizon=horizon, checkpoint=label)
        assert prediction.state.checkpoint == label, "the state does not name the checkpoint used"
        # the pair, put together by hand from the same checkpoint
        forecaster = predictor.forecaster.clone()
        forecaster.fit(part.extract(training, label))
        state = part.extract(panel, label)
        by_hand = predictor.mapper.predict(state, forecaster.predict(state, horizon))
        assert same_bytes(answer(prediction), by_hand.expected_values), (
            f"checkpoint {label} was paired with another checkpoint's forecaster"
        )
    if 1 in case.horizons:  # the table forecasts every row's own period
        assert len(predictor.checkpoint_table(panel)) == len(labels)


# ------------------------------------------------------------------------ 9


def exact_save_and_load(case, folder):
    panel = case.panel()
    horizon = case.horizons[-1]
    predictor = fitted(case, panel)
    before = ex_ante(predictor.predict(panel, horizon=horizon))
    predictor.save(folder)
    loaded = type(predictor).load(folder)
    after = ex_ante(loaded.predict(panel, horizon=horizon))
    for name, (array, _) in before.items():
        assert array.tobytes() == after[name][0].tobytes(), f"{name} is not exact after loading"
    assert loaded.identity == predictor.identity
    fresh = loaded.clone()
    fresh.fit(panel.between(0, N_TRAIN))
    assert same_bytes(answer(fresh.predict(panel, horizon=horizon)), before_answer(before))
    card = json.loads((folder / "manifest.json").read_text())["card"]
    assert {"config", "training_span", "value_kind", "transforms"} <= set(card), (
        "the manifest is no model card"
    )
    assert not any(path.suffix in (".pkl", ".pickle", ".joblib") for path in folder.iterdir())
    for path in list(folder.iterdir()):
        content = path.read_bytes()
        for at in (len(content) // 3, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            with pytest.raises(StoreError):  # whatever the byte says: the store compares all of them
                type(predictor).load(folder)
        path.write_bytes(content)
    type(predictor).load(folder)


def before_answer(found):
    return found["forecast"][0] if "forecast" in found else found["weights"][0]


# ------------------------------------------------------------------------ 10


def purity(case):
    panel = case.panel()
    arrays = {name: np.array(value) for name, value in vars(panel).items() if isinstance(value, np.ndarray)}
    np.random.seed(3)
    random_state = np.random.get_state()[1].copy()
    filters, errors = list(warnings.filters), np.geterr()
    threads = blas_threads()
    predictor = fitted(case, panel)
    predictor.predict(panel, horizon=case.horizons[-1])
    walk_forward(case.make(), panel, ExpandingWindow(first=N_TRAIN, step=20), horizon=case.horizons[-1])
    for name, before in arrays.items():
        after = getattr(panel, name)
        assert before.tobytes() == after.tobytes(), f"panel.{name} was written to"
    assert np.array_equal(np.random.get_state()[1], random_state), "the global random state was touched"
    assert list(warnings.filters) == filters, "the warnings filters were touched"
    assert np.geterr() == errors, "NumPy's error state was touched"
    with joblib.parallel_config(backend="threading", n_jobs=3):
        walk_forward(case.make(), panel, ExpandingWindow(first=N_TRAIN, step=4), horizon=case.horizons[-1])
    assert blas_threads() == threads, "the number of BLAS threads was left changed"


def blas_threads():
    """Threads of every BLAS library in the process."""
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
