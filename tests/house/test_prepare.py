"""Preparation against obvious slow twins: scipy and pandas one period, one column, one asset at a time."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from latentfactors.characteristics import (
    RETURN_CHARACTERISTICS,
    ReturnWindows,
    characteristics_from_returns,
)
from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.panel import Panel
from latentfactors.prepare import (
    add_constant,
    fill_missing,
    neutralise,
    rank_standardise,
    winsorise,
    zscore,
)
from latentfactors.rows import Attribute


def ragged_panel(seed=0, T=12, N=17, L=4, dtype=np.float64, missing=0.2):
    """Ties, holes, a period without rows, one with one row, an all-missing and a constant column."""
    rng = np.random.default_rng(seed)
    alive = rng.random((T, N)) < 0.7
    alive[3], alive[5] = False, False
    alive[5, 2] = True
    cube = rng.normal(size=(T, N, L)) * 10.0 ** np.arange(L)
    cube[..., 1] = np.round(cube[..., 1] / 8)  # ties
    cube[rng.random(cube.shape) < missing] = np.nan
    cube[7, :, 2] = np.nan
    cube[8, :, 3] = 0.1  # constant
    values = rng.normal(size=(T, N)) * 0.1
    values[rng.random((T, N)) < missing] = np.nan
    panel = Panel.from_wide(values, universe=alive, assets=[f"A{i:02d}" for i in range(N)])
    by_row = Attribute(rng.integers(-1, 2, size=panel.n_rows), ("low", "high"), by="row")
    sector = Attribute(rng.integers(-1, 3, size=N), ("energy", "health", "money"))
    return replace(
        panel,
        characteristics=panel.index.gather(cube).astype(dtype),
        characteristic_names=tuple(f"c{j}" for j in range(L)),
        weights=rng.random(panel.n_rows),
        attributes={"sector": sector, "rating": by_row},
    )


def twin(panel, function):
    """Apply `function` to the non-missing values of every column of every period; missing stays."""
    out = np.full(panel.characteristics.shape, np.nan)
    for p in range(panel.n_periods):
        rows = panel.index.rows(p)
        for j in range(out.shape[1]):
            column = panel.characteristics[rows, j].astype(np.float64)
            seen = np.isfinite(column)
            column[seen] = function(column[seen]) if seen.any() else column[seen]
            out[rows, j] = column
    return out


def centred_ranks(x):
    return (rankdata(x) - 1) / (x.size - 1) - 0.5 if x.size > 1 else np.zeros(1)


def standardised(x):
    return (x - x.mean()) / x.std() if np.unique(x).size > 1 else np.zeros(x.size)


STEPS = {
    "rank_standardise": rank_standardise,
    "zscore": zscore,
    "winsorise": winsorise,
    "fill_missing": fill_missing,
    "add_constant": add_constant,
    "neutralise": lambda panel: neutralise(panel, ["sector", "rating"]),
    "characteristics_from_returns": lambda panel: characteristics_from_returns(
        panel, windows=ReturnWindows(mom12m=(4, 2), mom6m=(3, 2), mom36m=(6, 5), retvol=4, maxret=3, beta=5)
    ),
}
NEEDS_CHARACTERISTICS = set(STEPS) - {"add_constant", "characteristics_from_returns"}


# ---------------------------------------------------------------- each step against its twin


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("seed", range(3))
def test_ranks_are_scipys(seed, dtype):
    panel = ragged_panel(seed, dtype=dtype)
    got = rank_standardise(panel).characteristics
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, np.nan_to_num(twin(panel, centred_ranks)).astype(dtype))


def test_ranks_without_ties_or_holes_are_an_even_grid():
    panel = Panel.from_arrays(np.zeros((1, 5)), np.array([[[3.0], [-1.0], [10.0], [0.0], [99.0]]]))
    np.testing.assert_array_equal(
        rank_standardise(panel).characteristics[:, 0], [0.0, -0.5, 0.25, -0.25, 0.5]
    )


@pytest.mark.parametrize("scale", [1e-4, 1e6, 2.0**-13, 2.0**20])
def test_ranks_and_zscores_do_not_move_with_the_unit(scale):
    panel = ragged_panel()
    scaled = replace(panel, characteristics=panel.characteristics * scale)
    np.testing.assert_array_equal(
        rank_standardise(scaled).characteristics, rank_standardise(panel).characteristics
    )
    np.testing.assert_allclose(zscore(scaled).characteristics, zscore(panel).characteristics, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_zscores(seed):
    panel = ragged_panel(seed)
    got = zscore(panel).characteristics
    np.testing.assert_allclose(got, twin(panel, standardised), atol=1e-12)
    constant = got[panel.index.rows(8), 3]
    assert np.all(constant[np.isfinite(constant)] == 0)


def test_zscores_of_huge_and_tiny_numbers():
    cube = np.array([[[1e200, 1e-200], [2e200, 2e-200], [3e200, 3e-200]]])
    got = zscore(Panel.from_arrays(np.zeros((1, 3)), cube)).characteristics
    np.testing.assert_allclose(got, np.outer([-1, 0, 1], [1.5**0.5] * 2), atol=1e-12)


@pytest.mark.parametrize("limits", [(0.01, 0.99), (0.1, 0.8), (0.0, 1.0)])
def test_winsorising_at_the_periods_quantiles(limits):
    panel = ragged_panel()
    got = winsorise(panel, limits)
    np.testing.assert_allclose(
        got.characteristics, twin(panel, lambda x: np.clip(x, *np.quantile(x, limits))), rtol=1e-13
    )
    if limits == (0.0, 1.0):
        np.testing.assert_array_equal(got.characteristics, panel.characteristics)


def test_winsorising_values_and_fixed_bounds():
    panel = ragged_panel()
    frame = pd.DataFrame(panel.wide())
    low, high = frame.quantile(0.1, axis=1), frame.quantile(0.9, axis=1)
    got = winsorise(panel, (0.1, 0.9), of="values")
    np.testing.assert_allclose(got.wide(), frame.clip(low, high, axis=0), rtol=1e-13)
    np.testing.assert_array_equal(got.characteristics, panel.characteristics)
    assert got.transforms == ("winsorise(limits=(0.1, 0.9), of='values')",)
    one_sided = winsorise(panel, bounds=(-np.inf, 2.0))
    np.testing.assert_array_equal(one_sided.characteristics, np.minimum(panel.characteristics, 2.0))
    assert one_sided.transforms == ("winsorise(bounds=(-inf, 2))",)


def test_filling_with_the_median_leaves_what_has_none():
    panel = ragged_panel()
    got = fill_missing(panel, "median")
    for p in range(panel.n_periods):
        before, after = (
            each.characteristics[each.index.rows(p)] for each in (panel, got)
        )  # labels and rows are the same
        if before.size:
            expected = pd.DataFrame(before)
            np.testing.assert_allclose(after, expected.fillna(expected.median()), rtol=1e-15)
    left = int(np.isnan(got.characteristics).sum())
    assert left > 0
    assert any(f"left {left} cells missing" in note for note in got.notes)


def test_filling_with_zero():
    panel = ragged_panel(dtype=np.float32)
    got = fill_missing(panel, "zero")
    assert got.characteristics.dtype == np.float32
    np.testing.assert_array_equal(got.characteristics, np.nan_to_num(panel.characteristics))
    assert got.transforms == ("fill_missing('zero')",)


def test_dropping_incomplete_rows_keeps_every_other_row_whole():
    panel = ragged_panel()
    got = fill_missing(panel, "drop")
    kept = np.isfinite(panel.characteristics).all(axis=1)
    np.testing.assert_array_equal(got.characteristics, panel.characteristics[kept])
    np.testing.assert_array_equal(got.values, panel.values[kept])
    np.testing.assert_array_equal(got.weights, panel.weights[kept])
    np.testing.assert_array_equal(got.asset_codes, panel.asset_codes[kept])
    np.testing.assert_array_equal(got.attributes["rating"].codes, panel.attributes["rating"].codes[kept])
    np.testing.assert_array_equal(got.index.period_codes, panel.index.period_codes[kept])
    lost = int((panel.observed & ~kept).sum())
    assert got.notes[-1] == f"fill_missing('drop') left out {(~kept).sum()} rows with {lost} observed values"


def test_neutralising_is_a_demeaning_within_groups():
    panel = ragged_panel()
    sector = panel.attributes["sector"].codes[panel.asset_codes]
    for groups, keys in (
        ("sector", [sector]),
        (("sector", "rating"), [sector, panel.attributes["rating"].codes]),
    ):
        got = neutralise(panel, groups)
        frame = pd.DataFrame(panel.characteristics)
        means = frame.groupby([panel.index.period_codes, *keys]).transform("mean")
        np.testing.assert_allclose(got.characteristics, frame - means, atol=1e-11)
        alone = pd.DataFrame(np.isfinite(panel.characteristics)).groupby([panel.index.period_codes, *keys])
        np.testing.assert_array_equal(got.characteristics[(alone.transform("sum") == 1) & frame.notna()], 0)
    assert got.transforms == ("neutralise(sector, rating)",)


def test_a_characteristic_constant_in_its_group_leaves_no_rounding():
    values = np.zeros((1, 7))
    panel = Panel.from_arrays(values, np.full((1, 7, 1), 0.1))
    panel = replace(panel, attributes={"sector": Attribute(np.zeros(7, dtype=int), ("all",))})
    assert np.all(neutralise(panel, "sector").characteristics == 0)


def test_the_constant_comes_last_and_once():
    panel = ragged_panel(dtype=np.float32)
    got = add_constant(panel)
    assert got.characteristic_names == ("c0", "c1", "c2", "c3", "constant")
    assert got.characteristics.dtype == np.float32
    np.testing.assert_array_equal(got.characteristics[:, :4], panel.characteristics)
    assert np.all(got.characteristics[:, 4] == 1)
    with pytest.raises(PanelError, match="already, 'constant'"):
        add_constant(got)
    hidden = replace(panel, characteristics=np.where(np.arange(4) == 2, 7.0, panel.characteristics))
    with pytest.raises(PanelError, match="already, 'c2'"):
        add_constant(hidden)


# ---------------------------------------------------------------- characteristics from returns


def rolling_twin(wide, windows, compound, market):
    """pandas, with everything moved one period forward at the end."""
    frame = pd.DataFrame(wide)

    def cumulative(far, near):
        rolling = (1 + frame if compound else frame).rolling(far - near + 1)
        return (rolling.apply(np.prod, raw=True) - 1 if compound else rolling.sum()).shift(near)

    def need(window, least):
        return max(int(np.ceil(window * windows.min_share - 1e-9)), least)

    out = {name: cumulative(*getattr(windows, name)) for name in RETURN_CHARACTERISTICS[:4]}
    out["retvol"] = frame.rolling(windows.retvol, min_periods=need(windows.retvol, 2)).std().shift(1)
    out["maxret"] = frame.rolling(windows.maxret, min_periods=need(windows.maxret, 1)).max().shift(1)
    slope, spread = np.full(wide.shape, np.nan), np.full(wide.shape, np.nan)
    for p in range(len(wide)):
        past = slice(max(0, p - windows.beta), p)
        for i in range(wide.shape[1]):
            seen = np.isfinite(wide[past, i]) & np.isfinite(market[past])
            if seen.sum() >= need(windows.beta, 3):
                r, m = wide[past, i][seen], market[past][seen]
                coefficients = np.polyfit(m, r, 1)
                residual = r - np.polyval(coefficients, m)
                slope[p, i], spread[p, i] = coefficients[0], np.sqrt(residual @ residual / (seen.sum() - 2))
    out["beta"], out["idiovol"] = pd.DataFrame(slope), pd.DataFrame(spread)
    return np.stack([out[name].to_numpy() for name in RETURN_CHARACTERISTICS], axis=-1)


def return_panel(seed=0, T=70, N=9, missing=0.1, kind="excess_return"):
    rng = np.random.default_rng(seed)
    values = 0.05 * rng.normal(size=(T, N)) + 0.04 * rng.normal(size=(T, 1))
    values[rng.random((T, N)) < missing] = np.nan
    values[T // 2] = np.nan  # a period without any value
    values[-1] = np.nan  # live
    alive = np.ones((T, N), dtype=bool)
    alive[:20, 0] = alive[50:, 1] = alive[30:40, 2] = False
    panel = Panel.from_wide(values, universe=alive, value_kind=kind)
    factors = rng.normal(size=(T, 2)) * 0.04
    factors[T // 2, 1] = np.nan
    return replace(panel, observed_factors=factors, observed_factor_names=("SMB", "MktRF"))


SHORT = ReturnWindows(mom12m=(5, 1), mom36m=(9, 9), retvol=3, maxret=2, beta=7, min_share=0.5)


@pytest.mark.parametrize("kind", ["excess_return", "spread_change"])
@pytest.mark.parametrize("market", [None, "MktRF"])
@pytest.mark.parametrize("windows", [None, SHORT])
def test_characteristics_are_those_of_pandas(kind, market, windows):
    panel = return_panel(T=110, missing=0.02, kind=kind)
    wide = panel.wide()
    mean = pd.DataFrame(wide).mean(axis=1).to_numpy()
    benchmark = mean if market is None else panel.observed_factors[:, 1]
    expected = rolling_twin(wide, windows or ReturnWindows(), kind == "excess_return", benchmark)
    got = characteristics_from_returns(panel, windows=windows, market=market).characteristics
    assert np.all(np.isfinite(got).mean(axis=0) > 0.1)  # no column is compared on NaN alone
    np.testing.assert_allclose(got, panel.index.gather(expected), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("market", [None, "MktRF"])
@pytest.mark.parametrize("s", [5, 36, 37, 50, 69])
def test_characteristics_never_look_ahead(s, market):
    panel = return_panel()
    before = characteristics_from_returns(panel, market=market).characteristics
    rng = np.random.default_rng(1)
    values, factors = panel.values.copy(), panel.observed_factors.copy()
    later = panel.index.period_codes >= s
    values[later] = np.where(rng.random(later.sum()) < 0.3, np.nan, rng.normal(size=later.sum()))
    factors[s:] = rng.normal(size=factors[s:].shape)
    changed = replace(panel, values=values, observed_factors=factors)
    after = characteristics_from_returns(changed, market=market).characteristics
    known = panel.index.period_codes <= s
    assert before[known].tobytes() == after[known].tobytes()
    if s < 69:
        assert before[~known].tobytes() != after[~known].tobytes()
    cut = characteristics_from_returns(panel.between(0, s + 1), market=market).characteristics
    assert before[known].tobytes() == cut.tobytes()


def test_characteristics_of_an_asset_do_not_know_the_others_or_its_own_column():
    panel = return_panel()
    order = np.random.default_rng(0).permutation(panel.n_assets)
    straight = characteristics_from_returns(panel, market="MktRF")
    permuted = characteristics_from_returns(panel.select(panel.assets[order]), market="MktRF")
    np.testing.assert_array_equal(
        permuted.index.dense(permuted.characteristics),
        straight.index.dense(straight.characteristics)[:, order],
    )


def test_nan_equals_never_supplied():
    panel = return_panel()
    with_rows = characteristics_from_returns(panel)
    without = characteristics_from_returns(Panel.from_arrays(panel.wide()))  # only observed cells are rows
    seen = np.isfinite(panel.wide()[:69])
    np.testing.assert_array_equal(
        with_rows.index.dense(with_rows.characteristics)[:69][seen],
        without.index.dense(without.characteristics)[:69][seen],
    )


def test_characteristics_join_those_that_are_there_in_their_precision():
    panel = ragged_panel(dtype=np.float32)
    got = characteristics_from_returns(panel, ("mom1m", "maxret"), windows=ReturnWindows(maxret=2))
    assert got.characteristic_names == ("c0", "c1", "c2", "c3", "mom1m", "maxret")
    assert got.characteristics.dtype == np.float32
    np.testing.assert_array_equal(got.characteristics[:, :4], panel.characteristics)
    last = np.full((panel.n_periods, panel.n_assets), np.nan)
    last[1:] = panel.wide()[:-1]
    np.testing.assert_array_equal(got.characteristics[:, 4], panel.index.gather(last).astype(np.float32))
    assert got.transforms[-1].startswith("characteristics_from_returns(mom1m, maxret; ReturnWindows(")


def test_a_flat_market_has_no_slope():
    panel = return_panel()
    flat = replace(panel, observed_factors=np.full((70, 1), 0.1), observed_factor_names=("flat",))
    got = characteristics_from_returns(flat, ["beta", "idiovol"], market="flat")
    assert np.isnan(got.characteristics).all()


def test_idiosyncratic_volatility_alone_needs_no_beta():
    panel = return_panel()
    both = characteristics_from_returns(panel, ["beta", "idiovol"]).characteristics
    alone = characteristics_from_returns(panel, "idiovol").characteristics
    np.testing.assert_array_equal(alone[:, 0], both[:, 1])


# ---------------------------------------------------------------- what holds for every step


@pytest.mark.parametrize("name", STEPS)
def test_the_input_is_not_touched(name):
    panel = ragged_panel()
    own = panel.characteristics.copy()  # writeable, as a caller's array is; the panel holds a read-only view
    panel = replace(panel, characteristics=own)
    before, values = own.tobytes(), panel.values.tobytes()
    state = np.random.get_state()[1].tobytes()  # noqa: NPY002
    got = STEPS[name](panel)
    assert own.flags.writeable
    assert own.tobytes() == before
    assert panel.values.tobytes() == values
    assert panel.transforms == ()
    assert len(got.transforms) == 1
    assert got.transforms[0].startswith(name)
    assert not got.characteristics.flags.writeable
    assert np.random.get_state()[1].tobytes() == state  # noqa: NPY002


@pytest.mark.parametrize("name", STEPS)
def test_steps_are_the_same_on_a_panel_that_ends_earlier(name):
    panel = ragged_panel()
    whole, cut = STEPS[name](panel), STEPS[name](panel.between(0, 9))
    same = whole.index.period_codes < 9
    assert whole.characteristics[same].tobytes() == cut.characteristics.tobytes()


@pytest.mark.parametrize("name", STEPS)
def test_steps_on_permuted_assets(name):
    panel = ragged_panel()
    order = np.random.default_rng(0).permutation(panel.n_assets)
    whole, permuted = STEPS[name](panel), STEPS[name](panel.select(panel.assets[order]))
    np.testing.assert_allclose(
        permuted.index.dense(permuted.characteristics),
        whole.index.dense(whole.characteristics)[:, order],
        rtol=1e-10,
        atol=1e-10,
    )


@pytest.mark.parametrize("name", sorted(NEEDS_CHARACTERISTICS))
def test_a_panel_without_characteristics_is_refused(name):
    bare = replace(ragged_panel(), characteristics=None, characteristic_names=())
    with pytest.raises(PanelError, match=f"^{name} needs characteristics, this panel has none"):
        STEPS[name](bare)


def test_steps_chain():
    panel = return_panel()
    ready = add_constant(rank_standardise(characteristics_from_returns(panel)))
    assert [step.split("(")[0] for step in ready.transforms] == [
        "characteristics_from_returns",
        "rank_standardise",
        "add_constant",
    ]
    assert np.isfinite(ready.characteristics).all()


REFUSED = {
    "limits fall": (lambda p: winsorise(p, (0.9, 0.1)), ConfigurationError, "lower < upper"),
    "limits above 1": (lambda p: winsorise(p, (1, 99)), ConfigurationError, "<= 1"),
    "limits NaN": (lambda p: winsorise(p, (np.nan, 0.9)), ConfigurationError, "limits"),
    "limits no pair": (lambda p: winsorise(p, 0.01), ConfigurationError, "pair of numbers"),
    "limits text": (lambda p: winsorise(p, ("a", "b")), ConfigurationError, "pair of numbers"),
    "bounds fall": (lambda p: winsorise(p, bounds=(1, -1)), ConfigurationError, "bounds"),
    "of what": (lambda p: winsorise(p, of="weights"), ConfigurationError, "got 'weights'"),
    "how": (lambda p: fill_missing(p, "mean"), ConfigurationError, "got 'mean'"),
    "drop all": (
        lambda p: fill_missing(replace(p, characteristics=np.full_like(p.characteristics, np.nan)), "drop"),
        PanelError,
        "100% missing",
    ),
    "unknown group": (lambda p: neutralise(p, "country"), PanelError, "'country'.*sector, rating"),
    "no group": (lambda p: neutralise(p, []), ConfigurationError, "at least one attribute"),
    "unknown name": (lambda p: characteristics_from_returns(p, ["mom"]), ConfigurationError, "got mom$"),
    "no name": (lambda p: characteristics_from_returns(p, []), ConfigurationError, "got none$"),
    "name twice": (lambda p: characteristics_from_returns(p, ["beta"] * 2), ConfigurationError, "each once"),
    "collision": (
        lambda p: characteristics_from_returns(characteristics_from_returns(p, ["beta"])),
        PanelError,
        "has beta already",
    ),
    "market": (lambda p: characteristics_from_returns(p, market="MktRF"), PanelError, "no observed factor"),
    "window falls": (lambda p: ReturnWindows(mom12m=(2, 12)), ConfigurationError, r"got \(2, 12\)"),
    "window today": (lambda p: ReturnWindows(mom1m=(1, 0)), ConfigurationError, "nearest >= 1"),
    "window no pair": (lambda p: ReturnWindows(mom6m=6), ConfigurationError, "pair"),
    "short": (lambda p: ReturnWindows(beta=2), ConfigurationError, "at least 3"),
    "half": (lambda p: ReturnWindows(retvol=2.5), ConfigurationError, "whole number"),
    "share": (lambda p: ReturnWindows(min_share=0), ConfigurationError, "min_share"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_mistakes_have_one_clear_error(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=message) as raised:
        call(ragged_panel())
    assert "\n" not in str(raised.value)


def test_monthly_windows_are_refused_for_weekly_panels():
    weeks = np.datetime64("2020-01-05") + 7 * np.arange(4)
    panel = Panel.from_wide(np.ones((4, 2)), universe="all", times=weeks, frequency="W")
    with pytest.raises(ConfigurationError, match="count months, this panel has frequency 'W'"):
        characteristics_from_returns(panel)
    got = characteristics_from_returns(panel, ["mom1m"], windows=ReturnWindows(mom1m=(2, 1)))
    np.testing.assert_array_equal(got.characteristics[:, 0], [np.nan] * 4 + [3.0] * 4)
