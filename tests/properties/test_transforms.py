"""Transformations: official definitions by hand, gaps stay gaps, and the way back is exact."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.transforms import (
    OFFICIAL_CODES,
    annualised_rate,
    find_outliers,
    inverse_transform,
    past_levels_needed,
    transform_columns,
    transform_series,
    year_on_year,
)

NAMES = ("seasonal_change", "log_seasonal_change")
EVERY = (*OFFICIAL_CODES, *NAMES)
LEVELS = arrays(np.float64, st.integers(14, 40), elements=st.floats(0.5, 2.0))


def by_hand(x, code):
    """Each definition as it is printed, one period at a time."""
    log = np.log(x)
    formulas = {
        1: lambda t: x[t],
        2: lambda t: x[t] - x[t - 1],
        3: lambda t: x[t] - 2 * x[t - 1] + x[t - 2],
        4: lambda t: log[t],
        5: lambda t: log[t] - log[t - 1],
        6: lambda t: log[t] - 2 * log[t - 1] + log[t - 2],
        7: lambda t: (x[t] / x[t - 1] - 1) - (x[t - 1] / x[t - 2] - 1),
        "seasonal_change": lambda t: (x[t] - x[t - 12]) - (x[t - 1] - x[t - 13]),
        "log_seasonal_change": lambda t: (log[t] - log[t - 12]) - (log[t - 1] - log[t - 13]),
    }
    n = past_levels_needed(code)
    return np.array([np.nan if t < n else formulas[code](t) for t in range(len(x))])


@pytest.mark.parametrize("code", EVERY)
@settings(max_examples=25, deadline=None)
@given(levels=LEVELS)
def test_definitions_and_the_way_back(code, levels):
    changes = transform_series(levels, code)
    np.testing.assert_allclose(changes, by_hand(levels, code), rtol=1e-10, atol=1e-12)
    n = past_levels_needed(code)
    assert np.isnan(changes[:n]).all()
    assert np.isfinite(changes[n:]).all()
    back = inverse_transform(changes[n:], code, levels[:n])
    np.testing.assert_allclose(back, levels[n:], rtol=1e-8)
    # only the last levels before the changes are used
    again = inverse_transform(changes[n + 1 :], code, levels[: n + 1])
    np.testing.assert_allclose(again, levels[n + 1 :], rtol=1e-8)


@pytest.mark.parametrize("code", EVERY)
def test_a_gap_is_never_bridged(code):
    levels = 1.0 + np.random.default_rng(0).random(40)
    holed = levels.copy()
    holed[20] = np.nan
    full, gapped = transform_series(levels, code), transform_series(holed, code)
    n = past_levels_needed(code)
    weights = 12 if n == 13 else 0
    touched = {20, 21, 32, 33} if weights else set(range(20, 21 + n))
    for t in range(40):
        if t in touched or t < n:
            assert np.isnan(gapped[t])
        else:
            assert gapped[t] == full[t]


def test_codes_three_and_six_are_second_differences_and_the_other_reading_has_a_name():
    x = np.exp(np.random.default_rng(1).normal(size=30))
    np.testing.assert_allclose(transform_series(x, 3)[2:], np.diff(x, 2))
    np.testing.assert_allclose(transform_series(x, "6")[2:], np.diff(np.log(x), 2))
    assert transform_series(x, "seasonal_change")[13] == pytest.approx(x[13] - x[12] - x[1] + x[0])


def test_draws_come_back_as_draws_and_a_missing_change_ends_the_path():
    rng = np.random.default_rng(2)
    draws = 0.01 * rng.normal(size=(4, 50))
    levels = inverse_transform(draws, 5, [99.0, 100.0])
    np.testing.assert_allclose(levels, 100 * np.exp(np.cumsum(draws, axis=0)))
    broken = draws[:, 0].copy()
    broken[2] = np.nan
    back = inverse_transform(broken, 5, [100.0])
    assert np.isfinite(back[:2]).all()
    assert np.isnan(back[2:]).all()
    assert np.isnan(inverse_transform(broken, 4)).sum() == 1


def test_columns_take_their_own_codes_and_errors_name_the_series():
    table = np.exp(np.random.default_rng(3).normal(size=(20, 3)))
    out = transform_columns(table, [1, 5, 7], ["a", "b", "c"])
    for j, code in enumerate([1, 5, 7]):
        np.testing.assert_array_equal(out[:, j], transform_series(table[:, j], code))
    table[4, 1] = -1.0
    with pytest.raises(PanelError, match=r"series 'b': .*positive.*-1 in period 4"):
        transform_columns(table, [1, 5, 7], ["a", "b", "c"])
    with pytest.raises(ConfigurationError, match=r"\(20, 3\) and 2"):
        transform_columns(table, [1, 5])


def test_rates():
    months = 100 * 1.002 ** np.arange(30)
    np.testing.assert_allclose(year_on_year(months, 12)[12:], 1.002**12 - 1)
    np.testing.assert_allclose(annualised_rate(months, 12)[1:], 1.002**12 - 1)
    np.testing.assert_allclose(annualised_rate(months, 12, periods=3)[3:], 1.002**12 - 1)
    months[10] = np.nan
    assert np.flatnonzero(np.isnan(annualised_rate(months, 12))).tolist() == [0, 10, 11]
    with pytest.raises(PanelError, match="positive"):
        year_on_year([-1.0, 1.0], 1)


def test_outliers_follow_the_rule_and_spare_series_without_a_scale():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(200, 2))
    x[7, 0], x[9, 1], x[11, 1] = 60.0, np.nan, -60.0
    low, high = np.nanpercentile(x, [25, 75], axis=0)
    expected = np.abs(x - np.nanmedian(x, axis=0)) > 10 * (high - low)
    np.testing.assert_array_equal(find_outliers(x), expected)
    assert np.argwhere(expected).tolist() == [[7, 0], [11, 1]]
    still = np.zeros(50)
    still[3] = 1.0
    assert not find_outliers(still).any()
    assert find_outliers(np.full(5, np.nan)).sum() == 0


@pytest.mark.parametrize("code", [0, 8, 5.5, "8", "logs", True, None])
def test_unknown_codes_are_refused(code):
    with pytest.raises(ConfigurationError, match=r"code 1\.\.7"):
        transform_series([1.0, 2.0], code)


def test_bad_input_is_refused_in_words():
    with pytest.raises(ConfigurationError, match=r"2 past levels.*got 1"):
        inverse_transform([0.1], 6, [1.0])
    with pytest.raises(PanelError, match="observed, missing at position 1"):
        inverse_transform([0.1], 3, [1.0, np.nan])
    with pytest.raises(PanelError, match="infinity"):
        transform_series([1.0, np.inf], 2)
    with pytest.raises(PanelError, match="level of 0"):
        transform_series([0.0, 1.0, 2.0], 7)
    with pytest.raises(ConfigurationError, match="threshold"):
        find_outliers([1.0], threshold=0)
    with pytest.raises(ConfigurationError, match="do not fit"):
        inverse_transform(np.zeros((2, 3)), 2, np.ones((1, 4)))
