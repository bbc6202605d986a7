"""Simulated panels: the truth that comes with them is the truth."""

import numpy as np
import pytest

from latentfactors.errors import ConfigurationError
from latentfactors.prepare import rank_standardise
from latentfactors.simulate import characteristic_panel, null_panel, static_panel

KINDS = {
    "static": lambda **more: static_panel(n_periods=60, n_assets=15, n_factors=3, **more),
    "characteristic": lambda **more: characteristic_panel(n_periods=60, n_assets=40, **more),
    "null": lambda **more: null_panel(n_periods=60, n_assets=40, **more),
}
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_values_are_loadings_times_factors_plus_noise(kind):
    truth = KINDS[kind](missing=0.3, live=2)
    panel, period = truth.panel, truth.panel.index.period_codes
    common = (truth.row_loadings() * truth.factors[period]).sum(axis=1)
    np.testing.assert_allclose(truth.expected, common, atol=1e-15)
    error = truth.complete - truth.expected
    assert abs(error.std() / truth.noise - 1) < 0.08
    assert abs(np.corrcoef(error[:-1], error[1:])[0, 1]) < 0.1
    np.testing.assert_array_equal(panel.values[panel.observed], truth.complete[panel.observed])


@kinds
def test_dates_live_months_and_hidden_cells(kind):
    truth = KINDS[kind](missing=0.3, live=2)
    panel = truth.panel
    assert str(panel.times[0]) == "1990-01-31"
    assert panel.frequency == "M"
    assert panel.value_kind == "excess_return"
    assert (panel.n_periods, panel.n_realised, len(truth.factors)) == (62, 60, 62)
    assert panel.index.rows(61).stop > panel.index.rows(61).start
    past = panel.index.period_codes < 60
    assert abs(1 - panel.observed[past].mean() - 0.3) < 0.05
    assert not panel.observed[~past].any()


@kinds
def test_a_seed_is_a_panel_and_the_global_state_stays(kind):
    state = np.random.get_state()[1].tobytes()  # noqa: NPY002
    first, again, other = KINDS[kind](seed=1), KINDS[kind](seed=1), KINDS[kind](seed=2)
    assert first.panel.values.tobytes() == again.panel.values.tobytes()
    assert first.panel.values.tobytes() != other.panel.values.tobytes()
    assert np.random.get_state()[1].tobytes() == state  # noqa: NPY002


@kinds
def test_hiding_cells_and_live_months_keep_the_rest(kind):
    full, holes = KINDS[kind](), KINDS[kind](missing=0.3, live=3)
    rows = full.panel.n_rows
    np.testing.assert_array_equal(holes.complete[:rows], full.complete)
    np.testing.assert_array_equal(holes.factors[:60], full.factors)
    np.testing.assert_array_equal(holes.panel.asset_codes[:rows], full.panel.asset_codes)
    more = KINDS[kind](missing=0.5)
    assert np.all(more.panel.observed <= holes.panel.observed[:rows])


@kinds
def test_the_truth_is_read_only(kind):
    truth = KINDS[kind]()
    for array in (truth.expected, truth.complete, truth.factors):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


def test_static_truth_is_recovered_by_principal_components():
    truth = static_panel(n_periods=400, n_assets=50, n_factors=3, noise=0.01)
    assert truth.loadings.shape == (50, 3)
    assert truth.gamma is None
    _, singular, right = np.linalg.svd(truth.panel.wide(), full_matrices=False)
    angles = np.linalg.svd(right[:3] @ np.linalg.qr(truth.loadings)[0], compute_uv=False)
    assert angles.min() > 0.995
    assert singular[2] > 5 * singular[3]


def test_gamma_is_recovered_by_regression_on_the_true_factors():
    truth = characteristic_panel(n_periods=200, n_assets=100, n_factors=2)
    panel = truth.panel
    assert truth.loadings is None
    np.testing.assert_allclose(truth.gamma.T @ truth.gamma, np.eye(2), atol=1e-14)
    products = panel.characteristics[:, :, None] * truth.factors[panel.index.period_codes][:, None, :]
    got = np.linalg.lstsq(products.reshape(panel.n_rows, -1), panel.values, rcond=None)[0].reshape(6, 2)
    np.testing.assert_allclose(got, truth.gamma, atol=0.05)


def test_factors_have_the_moments_that_were_asked_for():
    truth = static_panel(n_periods=20000, n_assets=1, n_factors=2, premia=(0.02, -0.01), persistence=0.6)
    np.testing.assert_allclose(truth.premia, (0.02, -0.01))
    np.testing.assert_allclose(truth.factors.mean(axis=0), truth.premia, atol=0.003)
    np.testing.assert_allclose(truth.factors.std(axis=0), (0.05, 0.035), rtol=0.05)
    centred = truth.factors - truth.factors.mean(axis=0)
    products = (centred[1:] * centred[:-1]).mean(axis=0)
    np.testing.assert_allclose(products / centred.var(axis=0), 0.6, atol=0.03)


def test_characteristics_are_persistent_ranks_on_a_ragged_panel():
    truth = characteristic_panel(n_periods=120, n_assets=60, partial=0.5, live=1)
    panel = truth.panel
    np.testing.assert_array_equal(rank_standardise(panel).characteristics, panel.characteristics)
    assert panel.characteristics.min() == -0.5
    assert panel.characteristics.max() == 0.5
    counts = np.diff(panel.offsets)
    assert counts.min() >= 30
    assert counts.min() < counts.max() < 60
    assert np.all(panel.active_assets)
    alive = panel.index.dense(np.ones(panel.n_rows), fill=0.0)
    assert np.all(np.abs(np.diff(alive, axis=0)).sum(axis=0) <= 2)  # one life each
    np.testing.assert_array_equal(alive[-1], alive[-2])  # who is alive at the end is live
    wide = panel.index.dense(panel.characteristics)[..., 0]
    now, then = wide[1:].ravel(), wide[:-1].ravel()
    both = np.isfinite(now) & np.isfinite(then)
    assert 0.88 < np.corrcoef(now[both], then[both])[0, 1] < 0.98


def test_the_null_has_no_signal():
    truth = null_panel(n_periods=200, n_assets=100)
    panel = truth.panel
    assert truth.gamma.shape == (6, 0)
    assert np.all(truth.expected == 0)
    correlations = np.corrcoef(np.column_stack([panel.values, panel.characteristics]).T)[0, 1:]
    assert np.abs(correlations).max() < 4 / np.sqrt(panel.n_rows)


REFUSED = {
    "periods": (lambda: static_panel(0), "n_periods must be a whole number >= 1, got 0"),
    "assets": (lambda: static_panel(10, 2.5), "n_assets"),
    "factors": (lambda: static_panel(10, 5, -1), "n_factors"),
    "live": (lambda: static_panel(live=-1), "live"),
    "noise": (lambda: static_panel(noise=-1.0), "noise"),
    "noise NaN": (lambda: static_panel(noise=np.nan), "noise"),
    "missing": (lambda: static_panel(missing=1.0), r"missing must be a share in \[0, 1\), got 1.0"),
    "premia": (lambda: static_panel(premia=(0.1,)), "premia must be 3 finite numbers"),
    "factor_sd": (lambda: static_panel(factor_sd=0), "factor_sd"),
    "persistence": (lambda: static_panel(persistence=1), "persistence"),
    "seed": (lambda: static_panel(seed=-1), "seed"),
    "few characteristics": (
        lambda: characteristic_panel(n_factors=3, n_characteristics=2),
        "n_characteristics",
    ),
    "partial": (lambda: null_panel(partial=1), "partial"),
    "characteristic": (
        lambda: characteristic_panel(characteristic_persistence=1.5),
        "characteristic_persistence",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_parameters_outside_their_range(case):
    call, message = REFUSED[case]
    with pytest.raises(ConfigurationError, match=message):
        call()
