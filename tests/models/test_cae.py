"""The conditional autoencoder: recovery, ensembles, checkpoints, resume, hostile panels."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import jax
import numpy as np
import pytest

from latentfactors import (
    BetaLambdaMapper,
    CAEConfig,
    CAEModel,
    ExpandingMeanFactorForecaster,
    ExpandingWindow,
    IPCAConfig,
    IPCAModel,
    LatentFactorForecastPipeline,
    Panel,
    TrainingConfig,
    walk_forward,
    watch,
)
from latentfactors.errors import (
    ConfigurationError,
    InsufficientDataError,
    LatentFactorsError,
    MissingCapabilityError,
    NotFittedError,
    PanelMismatchError,
    TrainingError,
)
from latentfactors.kernels.scores import r_squared
from latentfactors.kernels.sufficient import conditional_factors
from latentfactors.registry import MODELS
from latentfactors.settings import make, selected
from latentfactors.simulate import characteristic_panel, conditional_panel

CUT = 90


def trained(panel, **options):
    training = options.pop("training", {})
    config = {"n_factors": 2, "architecture": "CA0"} | options
    model = CAEModel(CAEConfig(**config, training=TrainingConfig(**({"epochs": 4} | training))))
    model.fit(panel)
    return model


def pipeline(**options):
    training = options.pop("training", {})
    config = CAEConfig(n_factors=2, **options, training=TrainingConfig(**({"epochs": 4} | training)))
    return LatentFactorForecastPipeline(
        model=CAEModel(config), forecaster=ExpandingMeanFactorForecaster(), mapper=BetaLambdaMapper()
    )


def same(a, b):
    """Two estimates, byte for byte."""
    pairs = [(a.members.maps, b.members.maps), (a.factors, b.factors)]
    pairs += [(a.members.parameters[name], b.members.parameters[name]) for name in a.members.parameters]
    pairs += [(a.members.layers[name], b.members.layers[name]) for name in a.members.layers]
    return all(x.tobytes() == y.tobytes() for x, y in pairs)


@pytest.fixture(scope="module")
def small():
    return characteristic_panel(40, 30, 2, 4, seed=1).panel


@pytest.fixture(scope="module")
def truth():
    return conditional_panel("nonlinear", 120, 150, 6, missing=0.1, seed=2)


@pytest.fixture(scope="module")
def nonlinear(truth):
    """Ten members with early stopping on the nonlinear process."""
    return trained(
        truth.panel.between(0, CUT),
        n_factors=3,
        architecture=(16, 8),
        l1_penalty=1e-3,
        training={
            "epochs": 60,
            "learning_rate": 4e-3,
            "validation": 15,
            "patience": 6,
            "checkpoint_interval": 20,
            "default_checkpoint": "best",
            "n_ensemble": 10,
        },
    )


def outside(truth, fitted):
    rows = slice(int(truth.panel.offsets[CUT]), None)
    return r_squared(truth.panel.values[rows], fitted[rows])


# ------------------------------------------------------------------------ what it finds


def test_a_nonlinear_process_is_found_where_ipca_fails(truth, nonlinear):
    ipca = IPCAModel(IPCAConfig(n_factors=3))
    ipca.fit(truth.panel.between(0, CUT))
    oracle = truth.oracle_r2(CUT)
    linear = outside(truth, ipca.extract(truth.panel).reconstruction())
    found = outside(truth, nonlinear.extract(truth.panel).reconstruction())
    assert linear < 0.5 * oracle
    assert found > 0.8 * oracle


def test_without_hidden_layers_it_agrees_with_ipca():
    truth = conditional_panel("linear", 120, 100, 5, seed=4)
    model = trained(truth.panel.between(0, CUT), n_factors=3, training={"epochs": 30, "learning_rate": 0.01})
    ipca = IPCAModel(IPCAConfig(n_factors=3))
    ipca.fit(truth.panel.between(0, CUT))
    found = outside(truth, model.extract(truth.panel).reconstruction())
    assert abs(found - outside(truth, ipca.extract(truth.panel).reconstruction())) < 0.01
    loadings = model.extract(truth.panel).measurement.loadings.rows()
    projected = loadings @ np.linalg.lstsq(loadings, truth.loadings)[0]
    assert r_squared(truth.loadings.ravel(), projected.ravel()) > 0.95


@pytest.mark.parametrize("size", [5, 10])
def test_an_ensemble_is_at_least_as_good_as_its_mean_member(truth, nonlinear, size):
    """On the averaged loadings and factors themselves, both ways of realised factors."""
    panel, estimates = truth.panel, nonlinear.estimates
    if size == 5:
        first = replace(nonlinear.config, training=replace(nonlinear.config.training, n_ensemble=5))
        model = CAEModel(first)
        model.fit(panel.between(0, CUT))
        estimates = model.estimates
    inputs = nonlinear.factor_inputs(panel)

    def scores(members):
        loadings = members.loadings(panel.characteristics, panel.offsets)
        projected = conditional_factors(
            loadings, panel.values, panel.offsets, min_observed=estimates.min_observed
        )
        ways = (projected, members.network_factors(inputs))
        period = panel.index.period_codes
        return [outside(truth, np.einsum("rk,rk->r", loadings, f[period])) for f in ways]

    together = np.array(scores(estimates.members))
    alone = np.array([scores(estimates.members.only(m)) for m in range(size)])
    assert estimates.members.n_members == size
    assert np.all(together >= alone.mean(axis=0))


def test_unaligned_members_would_not_average(truth, nonlinear):
    """The test above can fail: raw loadings averaged as they are lose most of the fit."""
    panel, members = truth.panel, nonlinear.estimates.members
    raw = replace(members, maps=np.stack([np.eye(3)] * members.n_members))
    loadings = raw.loadings(panel.characteristics, panel.offsets)
    factors = conditional_factors(loadings, panel.values, panel.offsets, min_observed=6)
    fitted = np.einsum("rk,rk->r", loadings, factors[panel.index.period_codes])
    assert outside(truth, fitted) < outside(truth, nonlinear.extract(panel).reconstruction()) - 0.02


@pytest.mark.parametrize("factors", ["projection", "network"])
def test_given_portfolios(factors):
    truth = conditional_panel("linear", 120, 80, 4, seed=5)
    panel = truth.panel
    options = {"epochs": 30, "learning_rate": 0.01}
    names = panel.observed_factor_names
    model = trained(panel.between(0, CUT), n_factors=3, inputs=names, factors=factors, training=options)
    assert outside(truth, model.extract(panel).reconstruction()) > 0.9 * truth.oracle_r2(CUT)
    assert np.array_equal(model.factor_inputs(panel), panel.observed_factors)
    x = np.array(panel.observed_factors)
    x[100] = np.nan
    state = model.extract(replace(panel, observed_factors=x))
    assert np.isnan(state.factor_returns[100]).any() == (factors == "network")
    x[50] = np.nan
    with pytest.raises(PanelMismatchError, match="'x1' is missing in 1 training period"):
        trained(replace(panel, observed_factors=x).between(0, CUT), n_factors=3, inputs=names)


def test_network_factors_are_linear_in_managed_portfolios(small):
    model = trained(small, architecture=(6,), factors="network", training={"n_ensemble": 3})
    state = model.extract(small)
    x, f = model.factor_inputs(small), state.factor_returns
    p = 7
    z = np.column_stack(
        [small.period(p).characteristics, np.ones(small.index.rows(p).stop - small.index.rows(p).start)]
    )
    np.testing.assert_allclose(x[p], np.linalg.lstsq(z, small.period(p).values)[0], rtol=1e-8)
    np.testing.assert_allclose(f, x @ np.linalg.lstsq(x, f)[0], atol=1e-10)
    # maps of loadings and of factors cancel in the product
    members = model.estimates.members
    inverse = np.linalg.inv(members.maps).transpose(0, 2, 1)
    assert members.loadings(small.characteristics, small.offsets).shape == (small.n_rows, 2)
    np.testing.assert_allclose(
        members.maps @ inverse.transpose(0, 2, 1), np.stack([np.eye(2)] * 3), atol=1e-9
    )
    with pytest.raises(MissingCapabilityError, match="projection"):
        model.factor_weights(small)


def test_factor_portfolios_earn_the_factors(small):
    model = trained(small)
    weights, state = model.factor_weights(small), model.extract(small)
    p = 20
    rows = small.index.rows(p)
    np.testing.assert_allclose(
        weights.weights[rows].T @ small.values[rows], state.factor_returns[p], rtol=1e-8
    )


# ------------------------------------------------------------------------ members that die

MORTAL = {"architecture": (6,), "batch_norm": False, "factors": "network"}


@pytest.fixture
def planted(monkeypatch):
    """Members whose hidden units never fire: no gradient reaches them and loadings are one constant row."""

    def plant(*dead):
        start = CAEModel._start

        def with_dead(model, data):
            found = start(model, data)
            for m in dead:
                found.parameters["weight_0"][m] = 0.0
                found.parameters["bias_0"][m] = -1.0
            return found

        monkeypatch.setattr(CAEModel, "_start", with_dead)

    return plant


def test_a_dead_member_counts_for_nothing(small, planted, tmp_path):
    living = trained(small, **MORTAL, training={"n_ensemble": 2, "validation": 8})
    planted(2)
    options = MORTAL | {"training": {"n_ensemble": 3, "validation": 8}}
    model = trained(small, **options)
    assert living.summary.warnings == ()
    assert model.summary.warnings == (
        "1 of 3 members of the ensemble left out, their loadings have a rank below 2: member 3 of seed 0",
    )
    assert model.estimates.members.living.tolist() == [True, True, False]
    # members do not depend on each other: without the dead one it is the ensemble of two
    with_dead, without = model.extract(small), living.extract(small)
    for state in (with_dead, without):
        assert np.isfinite(state.reconstruction()).all()
    a, b = with_dead.measurement.loadings.rows(), without.measurement.loadings.rows()
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    a, b = with_dead.factor_returns, without.factor_returns
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * b.std())
    key = "best_validation_r2"
    assert model.summary.metrics[key] == pytest.approx(living.summary.metrics[key], abs=1e-5)
    with pytest.raises(TrainingError, match=r"member 3 of 3 collapsed .* the living ones, 1, 2"):
        model.estimates.members.only(2)
    # saved, loaded, trained on
    assert same(trained(small, **options).estimates, model.estimates)
    with watch(lambda report: report.epoch == 2):
        stopped = trained(small, **options)
    stopped.save(tmp_path)
    resumed = CAEModel.load(tmp_path)
    assert (
        resumed.extract(small).reconstruction().tobytes() == stopped.extract(small).reconstruction().tobytes()
    )
    resumed.resume(small)
    assert same(resumed.estimates, model.estimates)
    assert resumed.summary.warnings == model.summary.warnings


def test_a_fit_without_a_living_member_fails(small, planted):
    planted(0, 1)
    with pytest.raises(TrainingError, match="member 1's loadings have rank 1 after training, expected 2"):
        trained(small, **MORTAL, training={"n_ensemble": 2})


# ------------------------------------------------------------------------ checkpoints


def test_what_is_reported_as_best_is_what_predict_uses(truth, nonlinear):
    training = truth.panel.between(0, CUT)
    fitted, state = nonlinear.fitted, nonlinear.estimates_at("last")[1].training
    assert fitted.default == "best"
    assert nonlinear.extract(truth.panel).checkpoint == "best"
    assert nonlinear.summary.metrics["best_validation_r2"] == pytest.approx(state.best_score.mean())
    # each member's best score, measured again on the held-out months from the stored parameters
    held_out, members = training.between(CUT - 15, CUT), nonlinear.estimates.members
    for m in range(10):
        loadings = members.only(m).loadings(held_out.characteristics, held_out.offsets)
        factors = conditional_factors(loadings, held_out.values, held_out.offsets, min_observed=6)
        fit = np.einsum("rk,rk->r", loadings, factors[held_out.index.period_codes])
        assert r_squared(held_out.values, fit) == pytest.approx(state.best_score[m], abs=1e-4)
    assert state.best_score.max() > np.nanmax(nonlinear.summary.history["validation_r2"]) - 0.05


def test_a_stopped_member_counts_with_its_own_last(small):
    """Labels are epochs; members stop at different ones and keep their parameters from then on."""
    options = {"epochs": 60, "validation": 10, "patience": 3, "learning_rate": 0.05, "n_ensemble": 4}
    model = trained(small, architecture=(6,), training=options | {"checkpoint_interval": 1})
    state, labels = model.estimates_at("last")[1].training, model.available_checkpoints
    n = model.summary.n_iterations
    assert n < 60
    assert labels == ("best", *range(1, 61))
    assert model.summary.converged
    assert "no better validation R2 for 3 epochs" in model.summary.reason
    stop = state.best_epoch + 3
    assert stop.max() == n
    assert stop.min() < stop.max()
    parameters = {label: model.estimates_at(label)[1].members.parameters for label in labels}
    for m in range(4):
        best = parameters[int(state.best_epoch[m])]["weight_0"][m]
        assert np.array_equal(parameters["best"]["weight_0"][m], best)
        for a, b in pairwise(labels[1:]):
            still = np.array_equal(parameters[a]["weight_0"][m], parameters[b]["weight_0"][m])
            assert still == (stop[m] <= a)


def test_an_epoch_after_all_members_stopped_is_their_last(small):
    options = {"epochs": 60, "validation": 10, "patience": 3, "learning_rate": 0.05, "default_checkpoint": 55}
    model = trained(small, architecture=(6,), training=options | {"checkpoint_epochs": (2, 55)})
    assert model.summary.n_iterations < 55
    assert model.available_checkpoints == ("best", 2, 55, 60)
    assert model.summary.checkpoint == model.extract(small).checkpoint == 55
    assert same(model.estimates, model.estimates_at("last")[1])


def test_a_checkpoint_pairs_loadings_and_premia(small):
    flow = pipeline(architecture="CA0", training={"checkpoint_epochs": (1, 2), "learning_rate": 0.05})
    flow.fit(small.between(0, 30))
    table = flow.checkpoint_table(small)
    assert table["checkpoint"].to_list() == ["1", "2", "4"]
    forecasts = {}
    for label in (1, 2, 4):
        prediction = flow.predict(small, checkpoint=label)
        premia, state = prediction.factor_forecast.premia, flow.model.extract(small, label)
        mean = state.factor_returns[:39].mean(axis=0)
        np.testing.assert_allclose(premia[39], mean, rtol=1e-10)
        loadings = state.measurement.loadings.at(39)
        forecasts[label] = prediction.asset_forecast.expected_returns[small.index.rows(39)]
        np.testing.assert_allclose(forecasts[label], loadings @ mean, rtol=1e-8)
    assert not np.allclose(forecasts[1], forecasts[4], rtol=1e-3)


RESUMED = {
    "plain": {"epochs": 6, "schedule": "cosine", "checkpoint_epochs": (2, 5), "n_ensemble": 2},
    "validated": {
        "epochs": 8,
        "validation": 10,
        "patience": 2,
        "learning_rate": 0.05,
        "n_ensemble": 2,
        "default_checkpoint": "best",
    },
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_fit_equals_an_uninterrupted_one(small, tmp_path, name):
    options = {"architecture": (6,), "training": RESUMED[name]}
    whole = trained(small, **options)
    with watch(lambda report: report.epoch == 3):
        stopped = trained(small, **options)
    assert stopped.summary.reason == f"stopped by the watcher at epoch 3 of {RESUMED[name]['epochs']}"
    assert not stopped.summary.converged
    stopped.save(tmp_path)
    resumed = CAEModel.load(tmp_path)
    resumed.resume(small)
    assert resumed.available_checkpoints == whole.available_checkpoints
    for label in whole.available_checkpoints:
        assert same(resumed.estimates_at(label)[1], whole.estimates_at(label)[1])
    assert replace(resumed.summary, seconds=0.0) == replace(whole.summary, seconds=0.0)
    with pytest.raises(PanelMismatchError, match="data of the fit that was stopped"):
        CAEModel.load(tmp_path).resume(small.between(0, 35))
    with pytest.raises(NotFittedError):
        CAEModel(whole.config).resume(small)


def test_the_watcher_sees_every_epoch(small):
    seen = []
    with watch(seen.append):
        model = trained(small, training={"validation": 8, "n_ensemble": 2})
    assert [report.epoch for report in seen] == [1, 2, 3, 4]
    assert seen[0].loss.shape == seen[0].validation.shape == (2,)
    assert model.summary.history["loss"] == tuple(float(report.loss.mean()) for report in seen)
    trained(small)
    assert len(seen) == 4  # the block has ended


def test_a_validation_panel_may_be_given(small):
    training, later = small.between(0, 30), small.between(30, 40)
    config = CAEConfig(
        n_factors=2, architecture="CA0", training=TrainingConfig(epochs=3, default_checkpoint="best")
    )
    model = CAEModel(config)
    model.fit_validated(training, later)
    inside = CAEModel(replace(config, training=replace(config.training, validation=10)))
    inside.fit(small)
    ours, theirs = model.estimates, inside.estimates
    for name, array in ours.members.parameters.items():
        assert array.tobytes() == theirs.members.parameters[name].tobytes()
    assert model.fitted.span.end == training.times[-1]
    with pytest.raises(PanelMismatchError, match="expected a period after the training end"):
        model.fit_validated(small, later)


# ------------------------------------------------------------------------ the same on every way


def test_axes_batches_and_seeds(small):
    base = trained(small, architecture=(6,), training={"n_ensemble": 3})

    def fitted(model):
        return model.extract(small).reconstruction()

    one_by_one = trained(small, architecture=(6,), training={"n_ensemble": 3, "ensemble_axis": "map"})
    np.testing.assert_allclose(fitted(one_by_one), fitted(base), rtol=1e-3, atol=1e-5)
    # member m depends on the seed and on m only
    fewer = trained(small, architecture=(6,), training={"n_ensemble": 2})
    for name, array in fewer.estimates.members.parameters.items():
        np.testing.assert_allclose(array, base.estimates.members.parameters[name][:2], rtol=1e-3, atol=1e-5)
    other = trained(small, architecture=(6,), training={"n_ensemble": 3, "seed": 1})
    assert not np.allclose(fitted(other), fitted(base), rtol=1e-3)
    by_row = trained(
        small,
        architecture=(6,),
        training={"batch_unit": "rows", "batch": 64, "epochs": 12, "learning_rate": 0.01},
    )
    losses = by_row.summary.history["loss"]
    assert losses[-1] < losses[0]
    clipped = trained(
        small,
        batch_norm=False,
        architecture=(6,),
        training={
            "batch": 4,
            "optimiser": "adamw",
            "weight_decay": 1e-3,
            "gradient_clip": 1.0,
            "validation": 0.2,
        },
    )
    assert np.isfinite(fitted(clipped)).all()


def test_jax_is_left_as_it_was_and_its_flags_change_nothing(small):
    before = dict(jax.config.values)
    base = trained(small, architecture=(6,))
    assert dict(jax.config.values) == before
    with jax.enable_x64(True):
        again = trained(small, architecture=(6,))
    np.testing.assert_allclose(
        again.extract(small).reconstruction(), base.extract(small).reconstruction(), rtol=1e-4, atol=1e-6
    )


def test_a_window_of_another_length_does_not_compile_again(small):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: (
            compiled.append(name) if name.endswith("backend_compile_duration") else None
        )
    )
    options = {"architecture": (7,), "training": {"validation": 6, "n_ensemble": 2}}
    trained(small, **options)  # sizes that no other test has
    assert len(compiled) > 0
    before = len(compiled)
    for a, b in ((0, 36), (0, 38), (2, 40)):
        trained(small.between(a, b), **options)
    assert len(compiled) == before


def test_a_saved_model_predicts_without_jax(small, tmp_path):
    model = trained(small, architecture=(6,), training={"n_ensemble": 2})
    model.save(tmp_path / "model")
    code = (
        "import sys\n"
        "for name in ('jax', 'equinox', 'optax'): sys.modules[name] = None\n"
        "from latentfactors import CAEModel\n"
        "from latentfactors.simulate import characteristic_panel\n"
        "p = characteristic_panel(40, 30, 2, 4, seed=1).panel\n"
        f"state = CAEModel.load({str(tmp_path / 'model')!r}).extract(p)\n"
        "import hashlib; print(hashlib.sha256(state.reconstruction().tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = hashlib.sha256(model.extract(small).reconstruction().tobytes()).hexdigest()
    assert done.stdout.strip() == expected


def test_yearly_refits_through_walk_forward(truth):
    flow = pipeline(
        architecture=(8,),
        training={"epochs": 5, "default_checkpoint": "best", "patience": 3, "n_ensemble": 2},
    )
    result = walk_forward(flow, truth.panel, ExpandingWindow(first=84, step=12, validation=12))
    assert len(result.blocks) == 3
    for block in result.blocks:
        assert np.isfinite(block.expected_values).all()
        assert np.isfinite(block.variance).all()


def test_a_job_can_name_it():
    built, options, where = selected(
        MODELS,
        {"type": "cae", "n_factors": 2, "architecture": [8], "training": {"epochs": 3, "validation": 0.2}},
        "type",
        "model",
    )
    assert built is CAEModel
    config = make(CAEConfig, options, where)
    assert config == CAEConfig(
        n_factors=2, architecture=(8,), training=TrainingConfig(epochs=3, validation=0.2)
    )


# ------------------------------------------------------------------------ bad input


def test_garbage_behind_the_mask_is_not_read(small):
    hidden = small.mask(np.random.default_rng(3).uniform(size=small.n_rows) < 0.3)
    characteristics = np.array(hidden.characteristics)
    characteristics[~hidden.observed] = 1e6
    garbage = replace(hidden, characteristics=characteristics)
    a, b = trained(hidden, architecture=(6,)), trained(garbage, architecture=(6,))
    assert same(a.estimates, b.estimates)


def test_characteristics_may_have_any_unit(small):
    units = np.array([1e-6, 1.0, 1e5, 1.0])
    moved = replace(small, characteristics=small.characteristics * units)
    a, b = trained(small, architecture=(6,)), trained(moved, architecture=(6,))
    np.testing.assert_allclose(
        b.extract(moved).reconstruction(), a.extract(small).reconstruction(), rtol=1e-2, atol=1e-4
    )


def test_a_constant_characteristic_and_a_repeated_one_do_no_harm(small):
    c = small.characteristics
    more = replace(
        small,
        characteristics=np.column_stack([c, np.full(len(c), 3.0), c[:, 0]]),
        characteristic_names=(*small.characteristic_names, "three", "again"),
    )
    model = trained(more, architecture=(6,))
    assert np.isfinite(model.extract(more).reconstruction()).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_factors": 6}, ConfigurationError, "n_factors=6 exceeds the 5 portfolios"),
        ({"n_factors": 5, "intercept": False}, ConfigurationError, "n_factors=5 exceeds the 4 portfolios"),
        ({"training": {"validation": 40}}, InsufficientDataError, "nothing is left to train on"),
        ({"training": {"patience": 2}}, ConfigurationError, "patience=2 needs validation periods"),
        ({"inputs": ("mkt",), "n_factors": 1}, PanelMismatchError, "'mkt'"),
    ],
)
def test_what_cannot_work_is_refused(small, options, error, message):
    with pytest.raises(error, match=message):
        trained(small, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "CA4"}, "architecture must be one of"),
        ({"architecture": (8, 0)}, "hidden layers need at least one unit"),
        ({"factors": "both"}, "factors must be"),
        ({"l1_penalty": -1.0}, "l1_penalty must be"),
        ({"inputs": "x1"}, "inputs must be different names in a tuple"),
        ({"min_observed": 1}, "min_observed=1 cannot identify 2 factors"),
        ({"n_factors": 0}, "n_factors must be a whole number"),
    ],
)
def test_bad_configurations_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        CAEConfig(**({"n_factors": 2} | options))


def test_empty_validation(small):
    """Ten held-out months with one observed asset each."""
    first = np.isin(np.arange(small.n_rows), small.offsets)
    empty = small.mask((small.index.period_codes >= 30) & ~first)
    with pytest.raises(InsufficientDataError, match="no period of 10 has 4 observed assets"):
        trained(empty, training={"validation": 10})


def test_one_period_is_too_few(small):
    with pytest.raises(
        InsufficientDataError, match="training needs 2 periods with 4 observed assets, got 1 of 1"
    ):
        trained(small.between(0, 1))


def test_panels_without_characteristics_or_with_infinite_ones(small):
    values = small.wide()
    with pytest.raises(PanelMismatchError, match="needs characteristics"):
        trained(Panel.from_wide(values, universe="all"))
    with pytest.raises(InsufficientDataError, match="all observed values are 0"):
        trained(small.with_values(np.zeros(small.n_rows)))
    for bad in (np.inf, np.nan):
        characteristics = np.array(small.characteristics)
        characteristics[5, 1] = bad
        with pytest.raises(LatentFactorsError, match="'c1'"):
            trained(replace(small, characteristics=characteristics))


@pytest.mark.parametrize("rate", [1e3, 1e30])
def test_a_diverging_learning_rate_never_ends_in_nan(small, rate):
    failed = None
    try:
        model = trained(small, architecture=(6,), training={"learning_rate": rate, "n_ensemble": 2})
    except TrainingError as error:
        failed = str(error)
    assert "learning" in failed if failed else np.isfinite(model.extract(small).reconstruction()).all()


def test_a_loss_that_is_not_finite_names_epoch_member_and_batch(small):
    options = {"learning_rate": 1e30, "n_ensemble": 2}
    with pytest.raises(TrainingError, match=r"not finite in epoch 1, member 1 of 2, batch \d+ of 40"):
        trained(small, architecture="CA0", batch_norm=False, training=options)


def test_no_such_device(small):
    if any(device.platform == "gpu" for device in jax.devices()):
        pytest.skip("there is a GPU here")
    with pytest.raises(ConfigurationError, match="device='gpu' is not there"):
        trained(small, training={"device": "gpu"})
    on_cpu = trained(small, training={"device": "cpu"})
    assert same(on_cpu.estimates, trained(small).estimates)
