"""Instrumented factorisation: formulas, limits, recovery, causality, hostile panels."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latentfactors import (
    BetaLambdaMapper,
    ExpandingMeanFactorForecaster,
    IPCAConfig,
    IPCAModel,
    LatentFactorForecastPipeline,
    NativeFactorForecaster,
    NativeMapper,
    NeurIFConfig,
    NeurIFModel,
    Panel,
    TrainingConfig,
    watch,
)
from latentfactors.errors import (
    ConfigurationError,
    GapError,
    HorizonError,
    InsufficientDataError,
    LatentFactorsError,
    MissingCapabilityError,
    PanelMismatchError,
    TrainingError,
)
from latentfactors.evaluate import ablate, ablations, audit, published_periods
from latentfactors.kernels.scores import r_squared
from latentfactors.neural import attention
from latentfactors.neural.factorisation import _mean_squared_correlation, _projected, _whitened
from latentfactors.neural.histories import mean_portfolios, past_windows
from latentfactors.neural.instrumented import (
    amortized_premia,
    channel_gate,
    fresh_loadings,
    fresh_premia,
    linear_loadings,
    network_loadings,
)
from latentfactors.registry import MODELS
from latentfactors.settings import make, selected
from latentfactors.simulate import instrumented_panel

TINY = {"n_factors": 2, "width": 8, "n_heads": 2, "temporal_layers": 1, "induced_points": 4, "window": 6}
# one program for most tests: the same sizes and members everywhere
QUICK = {"epochs": 2, "batch": 8, "n_ensemble": 2}
PARTS = {
    "default": {},
    "embedding": {"factor_mode": "embedding"},
    "realized": {"factor_mode": "realized", "instrument_penalty": "factors"},
    "full": {"channel": "se", "spatial": "full", "firm_encoding": "listing_age"},
}


def fitted(panel, **options):
    training = TrainingConfig(**(QUICK | options.pop("training", {})))
    model = NeurIFModel(NeurIFConfig(**(TINY | options), training=training))
    model.fit(panel)
    return model


def pipeline(**options):
    training = TrainingConfig(**(QUICK | options.pop("training", {})))
    return LatentFactorForecastPipeline(
        model=NeurIFModel(NeurIFConfig(**(TINY | options), training=training)),
        forecaster=NativeFactorForecaster(),
        mapper=BetaLambdaMapper(),
    )


@pytest.fixture(scope="module")
def truth():
    return instrumented_panel("nonlinear", 48, 24, 5, live=1, seed=3)


@pytest.fixture(scope="module")
def panel(truth):
    return truth.panel


@pytest.fixture(scope="module")
def model(panel):
    return fitted(panel.between(0, 40))


def test_a_collapsed_member_counts_for_nothing(panel, monkeypatch):
    options = {"training": {"learning_rate": 1e-12}}  # what is planted stays
    living = fitted(panel.between(0, 40), training={"n_ensemble": 1, "learning_rate": 1e-12})
    start = NeurIFModel._start

    def with_dead(model, linear, months):
        found = start(model, linear, months)
        gamma = found.parameters["gamma"]
        gamma[0, :, 1] = gamma[0, :, 0]
        return found

    monkeypatch.setattr(NeurIFModel, "_start", with_dead)
    model = fitted(panel.between(0, 40), **options)
    assert model.summary.warnings == (
        "1 of 2 members of the ensemble left out, their loadings have a rank below 2: member 1 of seed 0",
    )
    with_dead, without = model.extract(panel), living.extract(panel)
    a, b = with_dead.measurement.loadings.rows(), without.measurement.loadings.rows()
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    premia, expected = with_dead.native.factors(1)[0], without.native.factors(1)[0]
    np.testing.assert_allclose(premia, expected, rtol=1e-3, atol=1e-4 * np.nanstd(expected))
    gates = model.estimates.members.gates(panel.characteristics[:20])
    np.testing.assert_array_equal(gates, model.estimates.members.only(1).gates(panel.characteristics[:20]))


# ------------------------------------------------------------------------ formulas against slow twins


def weights_of(rng, **options):
    sizes = {"width": 8, "heads": 2, "channel": "conv", "spatial": "induced", "points": 3, "blocks": 2}
    found = fresh_loadings(rng, rng.normal(size=(6, 2)), **(sizes | options))
    found["loading"] = rng.normal(size=(8, 2))
    return {name: np.asarray(array, dtype=np.float64) for name, array in found.items()}


def test_few_points_are_attention_like_any_other():
    rng = np.random.default_rng(0)
    weights = {k: v.astype(float) for k, v in attention.fresh_attention(rng, "a", 8, 2).items()}
    points, rows = rng.normal(size=(3, 8)), rng.normal(size=(2, 5, 8))
    mask = np.ones((2, 5))
    mask[0, 3:] = 0
    spread = np.broadcast_to(points, (2, 3, 8))
    expected = attention.attend(spread, rows, mask, weights, "a")
    np.testing.assert_allclose(attention.read_rows(points, rows, mask, weights, "a"), expected, rtol=1e-12)
    # a masked key weighs nothing, whatever stands there
    rows[0, 3:] = 1e3
    np.testing.assert_allclose(attention.attend(spread, rows, mask, weights, "a"), expected, rtol=1e-12)
    each = rng.normal(size=(2, 3, 8))
    np.testing.assert_allclose(
        attention.tell_rows(rows, each, weights, "a"),
        attention.attend(rows, each, np.ones((2, 3)), weights, "a"),
        rtol=1e-10,
    )


def test_attention_by_hand():
    """One query after another, one head after another."""
    rng = np.random.default_rng(1)
    weights = {k: v.astype(float) for k, v in attention.fresh_attention(rng, "a", 6, 3).items()}
    x, context = rng.normal(size=(4, 6)), rng.normal(size=(5, 6))
    by_hand = np.zeros((4, 6))
    for i in range(4):
        for h in range(3):
            query = x[i] @ weights["a_query"][h]
            scores = np.array([query @ (c @ weights["a_key"][h]) for c in context]) / np.sqrt(2)
            share = np.exp(scores) / np.exp(scores).sum()
            by_hand[i] += (share @ (context @ weights["a_value"][h])) @ weights["a_out"][h]
    np.testing.assert_allclose(attention.attend(x, context, np.ones(5), weights, "a"), by_hand, rtol=1e-10)


def test_the_gate_is_two_convolutions():
    rng = np.random.default_rng(2)
    weights = weights_of(rng)
    z = rng.normal(size=5)
    hidden = []
    for c in range(weights["gate_in"].shape[1]):
        # np.convolve turns its kernel around
        u = np.convolve(z, weights["gate_in"][::-1, c], mode="same") + weights["gate_in_bias"][c]
        hidden.append(0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3))))
    out = sum(np.convolve(h, weights["gate_out"][c, ::-1], mode="same") for c, h in enumerate(hidden))
    expected = 1 / (1 + np.exp(-(out + weights["gate_out_bias"])))
    found = channel_gate(z[None, :], weights)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.all((found > 0) & (found < 1))


@pytest.mark.parametrize("spatial", ["induced", "full", None])
def test_rows_may_stand_in_any_order_and_padding_says_nothing(spatial):
    rng = np.random.default_rng(3)
    weights, z = weights_of(rng, spatial=spatial), rng.normal(size=(7, 5))
    base = network_loadings(z, np.ones(7), None, weights)
    order = rng.permutation(7)
    np.testing.assert_allclose(
        network_loadings(z[order], np.ones(7), None, weights), base[order], rtol=1e-10, atol=1e-12
    )
    padded = np.concatenate([z, np.full((3, 5), 50.0)])
    mask = np.array([1.0] * 7 + [0.0] * 3)
    np.testing.assert_allclose(
        network_loadings(padded, mask, None, weights)[:7], base, rtol=1e-10, atol=1e-12
    )
    # and the device reads the same formulas
    single = {name: jnp.asarray(array, dtype=jnp.float32) for name, array in weights.items()}
    on_device = network_loadings(jnp.asarray(z, dtype=jnp.float32), jnp.ones(7), None, single)
    np.testing.assert_allclose(on_device, base, rtol=2e-4, atol=2e-4)


def test_without_the_network_loadings_are_linear_and_premia_a_var():
    rng = np.random.default_rng(4)
    weights = weights_of(rng)
    weights["loading"] = np.zeros((8, 2))
    z = rng.normal(size=(4, 5))
    assert not network_loadings(z, np.ones(4), None, weights).any()
    np.testing.assert_allclose(
        linear_loadings(z, weights), np.column_stack([z, np.ones(4)]) @ weights["gamma"]
    )
    portfolio, carry = rng.normal(size=(6, 2)), rng.normal(size=(2, 2))
    time = fresh_premia(rng, portfolio, np.array([0.3, 0.1]), carry, width=8, heads=2, layers=2)
    history = rng.normal(size=(6, 6))
    premia, part = amortized_premia(history, np.ones(6), time)
    np.testing.assert_allclose(premia, [0.3, 0.1] + history[-1] @ portfolio @ carry, rtol=1e-5)
    assert not part.any()


def test_windows_hold_the_past_only():
    x = np.random.default_rng(5).normal(size=(10, 3))
    windows, known = past_windows(x, 4)
    for t in range(10):
        for lag in range(1, 5):
            expected = x[t - lag] if t >= lag else np.zeros(3)
            assert np.array_equal(windows[t, 4 - lag], expected)
            assert known[t, 4 - lag] == (t >= lag)


def test_mean_portfolios_by_hand(panel):
    found = mean_portfolios(panel)
    p = 7
    rows = panel.index.rows(p)
    seen = panel.observed[rows]
    z = np.column_stack([panel.characteristics[rows][seen], np.ones(seen.sum())])
    np.testing.assert_allclose(found[p], z.T @ panel.values[rows][seen] / seen.sum(), rtol=1e-10)
    assert np.isnan(found[-1]).all()


def test_penalties_by_hand():
    rng = np.random.default_rng(6)
    factors = rng.normal(size=(9, 3))
    there = np.array([1.0] * 7 + [0.0] * 2)
    correlation = np.corrcoef(factors[:7].T)
    expected = np.mean(correlation[~np.eye(3, dtype=bool)] ** 2)
    found = _mean_squared_correlation(jnp.asarray(factors), jnp.asarray(there))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    rows, rest = rng.normal(size=(40, 3)), rng.normal(size=(40, 3))
    expected = np.trace(np.linalg.solve(rows.T @ rows, rest.T @ rest)) / 3
    np.testing.assert_allclose(_whitened(jnp.asarray(rows), jnp.asarray(rest)), expected, rtol=1e-4)
    # unwhitened it would be void: another scale of all loadings changes nothing
    np.testing.assert_allclose(_whitened(jnp.asarray(9 * rows), jnp.asarray(9 * rest)), expected, rtol=1e-4)
    loadings, r = rng.normal(size=(2, 8, 3)), rng.normal(size=(2, 8))
    seen = np.ones((2, 8))
    seen[0, 5:] = 0
    f = _projected(jnp.asarray(loadings), jnp.asarray(r), jnp.asarray(seen), 0.0)
    np.testing.assert_allclose(f[0], np.linalg.lstsq(loadings[0, :5], r[0, :5])[0], rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------------ what it finds


def test_a_large_instrument_penalty_is_ipca_with_a_constant(panel):
    training = panel.between(0, 40)
    limit = fitted(
        training, realised_weight=1.0, ridge=0.0, orthogonality=0.0, instruments=1e3, training={"epochs": 3}
    )
    ipca = IPCAModel(IPCAConfig(n_factors=2, intercept=True))
    ipca.fit(training)
    found, expected = limit.extract(panel).reconstruction(), ipca.extract(panel).reconstruction()
    assert r_squared(expected[: panel.offsets[48]], found[: panel.offsets[48]]) > 0.999


def test_a_nonlinear_process_is_found_where_ipca_fails():
    truth = instrumented_panel("nonlinear", 120, 100, 5, seed=2)
    training = truth.panel.between(0, 90)
    found = fitted(
        training,
        n_factors=3,
        width=16,
        training={
            "epochs": 16,
            "batch": 6,
            "learning_rate": 8e-3,
            "schedule": "cosine",
            "optimiser": "adamw",
        },
    )
    ipca = IPCAModel(IPCAConfig(n_factors=3))
    ipca.fit(training)
    oracle = truth.oracle_total_r2(90)
    linear = truth.r2(ipca.extract(truth.panel).reconstruction(), 90)
    bent = truth.r2(found.extract(truth.panel).reconstruction(), 90)
    assert bent > linear + 0.3 * (oracle - linear)


@pytest.mark.slow
def test_identified_in_every_mode(panel):
    for name, parts in PARTS.items():
        found = fitted(panel.between(0, 40), **parts)
        state = found.extract(panel.between(0, 40))
        seen = panel.between(0, 40).observed
        b, f = state.measurement.loadings.rows()[seen], state.factor_returns
        np.testing.assert_allclose(b.T @ b / len(b), np.eye(2), atol=1e-9, err_msg=name)
        moments = f.T @ f / len(f)
        assert abs(moments[0, 1]) < 1e-9 * moments[0, 0], name
        assert moments[0, 0] >= moments[1, 1], name
        assert (f.mean(axis=0) >= 0).all(), name


def test_where_premia_come_from(panel, model):
    state = model.extract(panel)
    premia, covariance = state.native.factors(1)
    assert premia.shape == (49, 2)
    assert covariance.shape == (49, 2, 2)
    assert np.isfinite(premia).all()
    assert np.ptp(premia[:, 0]) > 0
    mean, variance = state.native.values(1)
    period = panel.index.period_codes
    expected = (state.measurement.loadings.rows() * premia[period]).sum(axis=1)
    np.testing.assert_allclose(mean, expected, rtol=1e-12, atol=1e-15)
    assert (variance > 0).all()
    with pytest.raises(HorizonError, match="next period only, got horizon=2"):
        state.native.factors(2)

    embedded = fitted(panel.between(0, 40), factor_mode="embedding")
    premia = embedded.extract(panel).native.factors(1)[0]
    assert np.isnan(premia[:40]).all()
    assert np.ptp(premia[40:], axis=0).max() == 0.0
    assert np.isfinite(premia[40:]).all()
    assert "mean of the trained months' premia" in embedded.summary.warnings[0]

    realized = fitted(panel.between(0, 40), **PARTS["realized"])
    assert realized.extract(panel).native is None
    flow = LatentFactorForecastPipeline(
        model=NeurIFModel(realized.config), forecaster=NativeFactorForecaster(), mapper=NativeMapper()
    )
    with pytest.raises(MissingCapabilityError, match="no dynamics of its own"):
        flow.fit(panel.between(0, 40)) and flow.predict(panel)
    # any forecaster serves any mode
    forecaster = ExpandingMeanFactorForecaster()
    forecaster.fit(realized.extract(panel.between(0, 40)))
    assert np.isfinite(forecaster.predict(realized.extract(panel)).premia[1:]).all()


def test_a_continuing_panel_is_read_like_the_whole(panel, model):
    whole, later = model.extract(panel), model.extract(panel.between(40, 49))
    np.testing.assert_allclose(later.native.factors(1)[0], whole.native.factors(1)[0][40:], rtol=1e-12)
    rows = int(panel.offsets[40])
    assert np.array_equal(later.measurement.loadings.rows(), whole.measurement.loadings.rows()[rows:])
    with pytest.raises(GapError):
        model.extract(panel.between(44, 49))
    aged = fitted(panel.between(0, 40), **PARTS["full"])
    np.testing.assert_array_equal(  # ages go on counting
        aged.extract(panel.between(40, 49)).measurement.loadings.rows(),
        aged.extract(panel).measurement.loadings.rows()[rows:],
    )


def test_factor_portfolios_earn_the_factors(panel):
    complete = panel.with_values(np.where(panel.observed, panel.values, 0.01)).between(0, 40)
    found = fitted(complete)
    weights, state = found.factor_weights(complete), found.extract(complete)
    rows = complete.index.rows(20)
    np.testing.assert_allclose(
        weights.weights[rows].T @ complete.values[rows], state.factor_returns[20], rtol=1e-8
    )


# ------------------------------------------------------------------------ no look-ahead, no identity


def forecasts(flow, panel):
    return flow.predict(panel).asset_forecast.expected_values


def test_masked_cells_and_the_future_change_nothing(truth, panel):
    """Masked cells set to 1e6 before masking; future returns shuffled."""
    flow = pipeline()
    flow.fit(panel.between(0, 40))
    base = forecasts(flow, panel)
    hidden = ~panel.observed
    loud = panel.with_values(np.where(hidden, 1e6, panel.values)).mask(hidden)
    again = pipeline()
    again.fit(loud.between(0, 40))
    assert forecasts(again, loud).tobytes() == base.tobytes()
    s = 43
    late = panel.index.period_codes >= s
    values = np.array(panel.values)
    values[late] = np.random.default_rng(0).permutation(values[late])
    rows = int(panel.offsets[s + 1])
    shuffled = forecasts(flow, panel.with_values(values))
    assert shuffled[:rows].tobytes() == base[:rows].tobytes()
    assert not np.array_equal(shuffled[rows:], base[rows:])


def test_permuting_firms_permutes_the_answer(panel):
    flow, other = pipeline(), pipeline()
    flow.fit(panel.between(0, 40))
    order = np.random.default_rng(1).permutation(panel.n_assets)
    moved = panel.select(panel.assets[order])
    other.fit(moved.between(0, 40))
    np.testing.assert_allclose(
        moved.index.dense(forecasts(other, moved)),
        panel.index.dense(forecasts(flow, panel))[:, order],
        rtol=1e-8,
        atol=1e-12,
    )


def test_other_names_change_nothing_unless_they_are_read(panel):
    renamed = replace(panel, assets=np.arange(10_000, 10_000 + panel.n_assets))
    found = {}
    for encoding in ("none", "permno_sinusoid"):
        flow = pipeline(firm_encoding=encoding)
        flow.fit(renamed.between(0, 40))
        other = replace(renamed, assets=renamed.assets + 777)
        found[encoding] = np.abs(forecasts(flow, other) - forecasts(flow, renamed)).max()
    assert found["none"] == 0.0
    assert found["permno_sinusoid"] > 0.0


def test_an_audit_finds_nothing(panel):
    certificate = audit(pipeline(), panel, start=panel.times[40], n_cuts=2)
    assert certificate.passed


# ------------------------------------------------------------------------ training


def test_a_resumed_fit_equals_an_uninterrupted_one(panel, tmp_path):
    options = {"training": {"epochs": 4, "validation": 8, "checkpoint_epochs": (2,)}}
    whole = fitted(panel.between(0, 40), **options)
    with watch(lambda report: report.epoch == 2):
        stopped = fitted(panel.between(0, 40), **options)
    stopped.save(tmp_path)
    resumed = NeurIFModel.load(tmp_path)
    resumed.resume(panel.between(0, 40))
    assert resumed.available_checkpoints == whole.available_checkpoints == ("best", 2, 4)
    for label in whole.available_checkpoints:
        ours, theirs = (each.estimates_at(label)[1].members.parameters for each in (resumed, whole))
        assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)
    with pytest.raises(PanelMismatchError, match="data of the fit that was stopped"):
        NeurIFModel.load(tmp_path).resume(panel.between(0, 38))


def test_validation_may_be_given(panel):
    training, later = panel.between(0, 32), panel.between(32, 40)
    config = NeurIFConfig(**TINY, training=TrainingConfig(**QUICK, default_checkpoint="best"))
    given = NeurIFModel(config)
    given.fit_validated(training, later)
    inside = NeurIFModel(replace(config, training=replace(config.training, validation=8)))
    inside.fit(panel.between(0, 40))
    ours, theirs = given.estimates.members.parameters, inside.estimates.members.parameters
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)
    with pytest.raises(PanelMismatchError, match="expected a period after the training end"):
        given.fit_validated(training, panel.between(30, 40))


def test_a_window_of_another_length_does_not_compile_again(panel):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: (
            compiled.append(name) if name.endswith("backend_compile_duration") else None
        )
    )
    options = {"induced_points": 5, "training": {"validation": 6}}
    fitted(panel.between(0, 36), **options)  # sizes that no other test has
    assert len(compiled) > 0
    before = len(compiled)
    fitted(panel.between(0, 40), **options)
    fitted(panel.between(3, 41), **options)
    assert len(compiled) == before


def test_a_short_panel_has_short_windows(panel):
    short = fitted(panel.between(0, 12), window=36)
    assert (
        "attention window of 36 months is never full: the panel has 12 periods" in short.summary.warnings[0]
    )
    assert np.isfinite(short.extract(panel.between(0, 12)).native.factors(1)[0]).all()


def test_built_from_a_table():
    table = {"type": "neurif", "n_factors": 3, "channel": "se", "training": {"epochs": 2}}
    built, options, where = selected(MODELS, table, "type", "model")
    assert built is NeurIFModel
    expected = NeurIFConfig(n_factors=3, channel="se", training=TrainingConfig(epochs=2))
    assert make(NeurIFConfig, options, where) == expected


# ------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_factors": 0}, "n_factors must be a whole number"),
        ({"factor_mode": "both"}, "factor_mode must be one of"),
        ({"channel": "dense"}, "channel must be one of"),
        ({"spatial": "some"}, "spatial must be one of"),
        ({"firm_encoding": "ticker"}, "firm_encoding must be one of .*'listing_age'.*got 'ticker'"),
        ({"width": 10, "n_heads": 4}, "width must be an even multiple of n_heads=4, got 10"),
        ({"dropout": 1.0}, "dropout must be below 1"),
        ({"realised_weight": 1.5}, "realised_weight at most 1"),
        ({"window": 0}, "window must be a whole number, at least 1"),
        ({"min_observed": 1}, "min_observed=1 cannot identify 2 factors"),
        ({"training": TrainingConfig(batch_unit="rows")}, "batch_unit='periods'"),
        ({"instruments": -1.0}, "instruments"),
        (
            {"firm_encoding": "listing_age", "spatial": None, "residual_blocks": 0},
            "without attention and without a residual stack",
        ),
    ],
)
def test_bad_configurations_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        NeurIFConfig(**({"n_factors": 2} | options))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_factors": 7}, ConfigurationError, "n_factors=7 exceeds the rank 6 of 5 characteristics"),
        ({"training": {"validation": 40}}, InsufficientDataError, "nothing is left to train on"),
        ({"training": {"patience": 2}}, ConfigurationError, "patience=2 needs validation periods"),
        ({"firm_encoding": "permno_sinusoid"}, PanelMismatchError, "whole numbers as asset labels"),
    ],
)
def test_what_cannot_work_is_refused(panel, options, error, message):
    with pytest.raises(error, match=message):
        fitted(panel.between(0, 40), **options)


def test_hostile_panels(panel):
    with pytest.raises(PanelMismatchError, match="needs characteristics"):
        fitted(Panel.from_wide(panel.wide()[:40], universe="all"))
    with pytest.raises(InsufficientDataError, match="all observed values are 0"):
        fitted(panel.with_values(np.zeros(panel.n_rows)))
    with pytest.raises(InsufficientDataError, match="training needs 2 periods"):
        fitted(panel.between(0, 1))
    for bad in (np.inf, np.nan):
        characteristics = np.array(panel.characteristics)
        characteristics[5, 1] = bad
        with pytest.raises(LatentFactorsError, match="'z2'"):
            fitted(replace(panel, characteristics=characteristics))
    first = np.isin(np.arange(panel.n_rows), panel.offsets)
    empty = panel.mask((panel.index.period_codes >= 30) & ~first)
    with pytest.raises(InsufficientDataError, match="no period of 10 has 4 observed assets"):
        fitted(empty.between(0, 40), training={"validation": 10})
    constant = np.column_stack([panel.characteristics, np.full(panel.n_rows, 3.0)])
    more = replace(panel, characteristics=constant, characteristic_names=(*panel.characteristic_names, "c"))
    assert np.isfinite(fitted(more.between(0, 40)).extract(more).measurement.loadings.rows()).all()


def test_a_diverging_learning_rate_never_ends_in_nan(panel):
    failed = None
    try:
        found = fitted(panel.between(0, 40), training={"learning_rate": 1e30})
    except TrainingError as error:
        failed = str(error)
    assert "learning" in failed if failed else np.isfinite(found.extract(panel).reconstruction()[:100]).all()


# ------------------------------------------------------------------------ ablations


@pytest.mark.slow
def test_ablations_name_what_is_gone(panel):
    config = NeurIFConfig(**TINY, training=TrainingConfig(**QUICK))
    variants = ablations(config, layers=(0, 1, 2))
    assert list(variants) == [
        "all parts",
        "without temporal attention",
        "without channel gate",
        "without spatial attention",
        "without residual stack",
        "with 0 temporal layers",
        "with 2 temporal layers",
    ]
    small = replace(config, channel=None, residual_blocks=0, spatial=None)
    table = ablate(small, panel, n_test=8, layers=(0,))
    assert table["name"].to_list() == ["all parts", "without temporal attention", "with 0 temporal layers"]
    assert table["total_r2"].is_between(0.0, 1.0).all()
    # the same fit by hand
    start = 40
    flow = LatentFactorForecastPipeline(
        model=NeurIFModel(small), forecaster=NativeFactorForecaster(), mapper=BetaLambdaMapper()
    )
    flow.fit(panel.between(0, start))
    rows = slice(int(panel.offsets[start]), int(panel.offsets[48]))
    expected = r_squared(panel.values[rows], forecasts(flow, panel)[rows])
    assert table["predictive_r2"][0] == pytest.approx(expected, rel=1e-10)
    with pytest.raises(ConfigurationError, match="n_test must leave periods on both sides of 48"):
        ablate(small, panel, n_test=48)


def test_published_periods(panel):
    long = instrumented_panel(n_periods=500, n_assets=6, n_characteristics=5, missing=0.0).panel
    training, validation, test = published_periods(long)
    assert [str(each.times[0])[:4] for each in (training, validation, test)] == ["1980", "2000", "2005"]
    assert str(test.times[-1])[:7] == "2020-12"
    assert str(published_periods(long, literal=True)[0].times[-1])[:7] == "1990-12"
    with pytest.raises(InsufficientDataError, match="no month of 2000-2004"):
        published_periods(panel)
