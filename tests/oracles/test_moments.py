"""Running moments against NumPy's two-pass answers on each window."""

import numpy as np
import pytest

from latentfactors.kernels.moments import (
    expanding_moments,
    exponential_moments,
    rolling_moments,
    unit_columns,
)

MOMENTS = {
    "expanding": expanding_moments,
    "rolling": lambda x, min_periods=1: rolling_moments(x, 12, min_periods),
    "exponential": lambda x, min_periods=1: exponential_moments(x, 7.0, min_periods),
}


def series(seed=0, T=80, K=3, missing=0.15, level=0.3):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(K, K))
    x = rng.normal(size=(T, K)) @ mix + level
    x[rng.random(x.shape) < missing] = np.nan
    return x


def twin(x, min_periods, window=None, half_life=None):
    """np.average and np.cov on the rows before each origin."""
    T, K = x.shape
    mean, covariance = np.full((T + 1, K), np.nan), np.full((T + 1, K, K), np.nan)
    for p in range(T + 1):
        past = x[max(0, p - window) if window else 0 : p]
        age = np.arange(len(past))[::-1]
        w = 0.5 ** (age / half_life) if half_life else np.ones(len(past))
        for k in range(K):
            seen = np.isfinite(past[:, k])
            if seen.sum() >= min_periods:
                mean[p, k] = np.average(past[seen, k], weights=w[seen])
        rows = np.isfinite(past).all(axis=1)
        if rows.sum() >= 2 and np.isfinite(mean[p]).all():
            v = w[rows] / w[rows].sum()
            covariance[p] = np.cov(past[rows].T, aweights=v) * (1 + np.square(v).sum())
    return mean, covariance


@pytest.mark.parametrize("min_periods", [1, 5])
@pytest.mark.parametrize("missing", [0.0, 0.15, 0.5])
def test_moments_equal_the_two_pass_answer(missing, min_periods):
    x = series(missing=missing)
    pairs = [
        (expanding_moments(x, min_periods), twin(x, min_periods)),
        (rolling_moments(x, 12, min_periods), twin(x, min_periods, window=12)),
        (exponential_moments(x, 7.0, min_periods), twin(x, min_periods, half_life=7.0)),
    ]
    for answer, expected in pairs:
        for a, e in zip(answer, expected, strict=True):
            assert np.isfinite(e).any()
            np.testing.assert_allclose(a, e, rtol=1e-11, atol=1e-13)


def test_unweighted_predictive_covariance_is_s_times_one_plus_one_over_n():
    x = series(missing=0.0)
    n = len(x)
    for covariance in (expanding_moments(x)[1], rolling_moments(x, n)[1], exponential_moments(x, np.inf)[1]):
        np.testing.assert_allclose(covariance[-1], np.cov(x.T) * (1 + 1 / n), rtol=1e-12)


def test_predictive_covariance_is_that_of_the_forecast_error():
    rng = np.random.default_rng(1)
    root = np.array([[1.0, 0.0], [0.8, 0.5]])
    draws = rng.normal(size=(20_000, 6, 2)) @ root.T
    for moments in (lambda x: expanding_moments(x), lambda x: exponential_moments(x, 1.5)):
        answers = [moments(x[:5]) for x in draws[:4000]]
        error = np.array([x[5] - a[0][5] for x, a in zip(draws, answers, strict=False)])
        average = np.mean([a[1][5] for a in answers], axis=0)
        np.testing.assert_allclose(average, np.cov(error.T), rtol=0.12)


@pytest.mark.parametrize("name", MOMENTS)
def test_row_p_keeps_its_bits_whatever_follows(name):
    x = series(T=60)
    full = MOMENTS[name](x)
    rng = np.random.default_rng(2)
    for p in (1, 2, 13, 30, 59):
        other = x.copy()
        other[p:] = rng.normal(size=other[p:].shape) * 50
        for changed in (MOMENTS[name](x[:p]), MOMENTS[name](other), MOMENTS[name](np.asfortranarray(x))):
            for a, b in zip(full, changed, strict=True):
                assert np.array_equal(a[: p + 1], b[: p + 1], equal_nan=True)


@pytest.mark.parametrize("name", MOMENTS)
def test_powers_of_two_are_exact_and_other_units_scale(name):
    x = series()
    mean, covariance = MOMENTS[name](x)
    for scale in (2.0**20, 2.0**-13):
        m, c = MOMENTS[name](x * scale)
        assert np.array_equal(m, mean * scale, equal_nan=True)
        assert np.array_equal(c, covariance * scale**2, equal_nan=True)
    for scale in (1e-4, 1e6):
        m, c = MOMENTS[name](x * scale)
        np.testing.assert_allclose(m, mean * scale, rtol=1e-11, atol=1e-14 * scale)
        np.testing.assert_allclose(c, covariance * scale**2, rtol=1e-9, atol=1e-13 * scale**2)


@pytest.mark.parametrize("name", MOMENTS)
def test_level_far_above_dispersion_costs_no_digits(name):
    # Integers over 8: the level is added without rounding, so any loss is the recursion's own. The mean is
    # known to 1e-8; the textbook difference of sums of squares would miss the covariance by its own size.
    rng = np.random.default_rng(3)
    x = rng.integers(-40, 40, size=(300, 2)) / 8.0
    options = {"expanding": {}, "rolling": {"window": 12}, "exponential": {"half_life": 7}}
    mean, covariance = twin(x, 1, **options[name])
    m, c = MOMENTS[name](x + 1e8)
    np.testing.assert_allclose(m - 1e8, mean, rtol=0, atol=1e-7)
    np.testing.assert_allclose(c, covariance, rtol=1e-7, atol=1e-7)


def test_a_missing_row_ages_the_exponential_weights():
    x = np.array([[1.0, 2.0], [4.0, -1.0], [np.nan, np.nan], [np.nan, np.nan], [2.0, 2.0]])
    mean, _ = exponential_moments(x, 2.0)
    w = 0.5 ** (np.array([4, 3, 0]) / 2)
    np.testing.assert_allclose(mean[5], w @ x[[0, 1, 4]] / w.sum(), rtol=1e-14)
    assert np.array_equal(mean[3], mean[2])
    assert np.array_equal(mean[4], mean[2])


def test_extreme_decay_and_gaps_stay_finite():
    x = np.full((2600, 2), np.nan)
    x[[0, 1, 2, 2500, 2501]] = np.array([[1.0, 2.0], [2.0, 0.0], [0.0, 1.0], [5.0, 4.0], [6.0, 2.0]])
    for half_life in (1.0, 1e-4):
        mean, covariance = exponential_moments(x, half_life)
        assert np.isfinite(mean[1:]).all()
        assert np.isfinite(covariance[2:]).all()
    np.testing.assert_allclose(exponential_moments(x, 1e-4)[0][-1], [6.0, 2.0])


def test_means_exist_where_their_own_series_is_observed():
    x = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, 5.0], [np.nan, 7.0]])
    mean, covariance = expanding_moments(x)
    np.testing.assert_array_equal(mean, [[np.nan, np.nan], [1, np.nan], [1.5, np.nan], [2, 5], [2, 6]])
    assert np.isnan(covariance).all()  # one complete row
    rolled, _ = rolling_moments(np.vstack([x, [[np.nan, 1.0]]]), 2)
    np.testing.assert_array_equal(rolled[-1], [np.nan, 4.0])


def test_input_is_left_alone_and_arguments_are_checked():
    x = series()
    before = x.copy()
    for moments in MOMENTS.values():
        moments(x)
    assert np.array_equal(x, before, equal_nan=True)
    with pytest.raises(ValueError, match="half_life=0"):
        exponential_moments(x, 0)
    with pytest.raises(ValueError, match="half_life=nan"):
        exponential_moments(x, np.nan)
    with pytest.raises(ValueError, match="min_periods=5, window=3"):
        rolling_moments(x, 3, 5)
    with pytest.raises(ValueError, match="min_periods=0"):
        expanding_moments(x, 0)
    with pytest.raises(ValueError, match=r"got shape \(80,\)"):
        expanding_moments(x[:, 0])
    for moments in MOMENTS.values():
        mean, covariance = moments(x[:0])
        assert mean.shape == (1, 3)
        assert covariance.shape == (1, 3, 3)


def test_unit_columns_drop_rounding_noise():
    rng = np.random.default_rng(4)
    x = np.column_stack([rng.normal(size=50) * 1e-9, np.full(50, 0.1), rng.normal(size=50) + 1e6])
    unit, norms = unit_columns(x)
    np.testing.assert_allclose(np.square(unit).sum(axis=0), [1, 0, 1], atol=1e-12)
    np.testing.assert_allclose(unit.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(unit[:, 0] * norms[0], x[:, 0] - x[:, 0].mean(), atol=1e-22)
    raw, lengths = unit_columns(x, centred=False)
    np.testing.assert_allclose(raw * lengths, x, rtol=1e-14)
