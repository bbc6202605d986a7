"""Metrics against loops, scipy.stats and numerical integration."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate, stats

from latentfactors.kernels import scores

SCALES = (1e-4, 1e6, 2.0**20)


def ragged(seed=0, T=25, N=12, missing=0.2):
    """A ragged panel: values, forecast, benchmark, offsets, codes; one period is empty, one all missing."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(4, N + 1, size=T)
    sizes[3] = 0
    codes = np.concatenate([np.sort(rng.choice(N, size, replace=False)) for size in sizes])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    f = rng.normal(size=len(codes))
    r = 0.6 * f + rng.normal(size=len(codes)) + 0.4
    b = rng.normal(size=len(codes)) * 0.3
    r[rng.random(len(r)) < missing] = np.nan
    f[rng.random(len(f)) < missing / 2] = np.nan
    b[rng.random(len(b)) < missing / 2] = np.nan
    r[offsets[7] : offsets[8]] = np.nan
    return r, f, b, offsets, codes.astype(np.int32)


def test_pooled_scores_equal_loops():
    r, f, b, _, _ = ragged()
    sse = sst = n = absolute = 0.0
    for x, y in zip(r, f, strict=True):
        if np.isfinite(x) and np.isfinite(y):
            sse, sst, n, absolute = sse + (x - y) ** 2, sst + x**2, n + 1, absolute + abs(x - y)
    assert scores.r_squared(r, f) == pytest.approx(1 - sse / sst, rel=1e-12)
    assert scores.rmse(r, f) == pytest.approx(np.sqrt(sse / n), rel=1e-12)
    assert scores.mae(r, f) == pytest.approx(absolute / n, rel=1e-12)
    sse = sst = 0.0
    for x, y, z in zip(r, f, b, strict=True):
        if np.isfinite([x, y, z]).all():
            sse, sst = sse + (x - y) ** 2, sst + (x - z) ** 2
    assert scores.mse_ratio(r, f, b) == pytest.approx(sse / sst, rel=1e-12)
    assert scores.r_squared(r, f, b) == pytest.approx(1 - sse / sst, rel=1e-12)


def test_grouped_scores_equal_loops():
    r, f, _, offsets, codes = ragged()

    def average(groups):
        answers = []
        for rows in groups:
            cells = [i for i in rows if np.isfinite(r[i]) and np.isfinite(f[i])]
            if cells:
                answers.append(1 - sum((r[i] - f[i]) ** 2 for i in cells) / sum(r[i] ** 2 for i in cells))
        return np.mean(answers)

    periods = [range(a, b) for a, b in pairwise(offsets)]
    assets = [np.flatnonzero(codes == i) for i in range(13)]  # one asset never appears
    assert scores.cross_sectional_r_squared(r, f, offsets) == pytest.approx(average(periods), rel=1e-12)
    assert scores.time_series_r_squared(r, f, codes, 13) == pytest.approx(average(assets), rel=1e-12)
    assert average(periods) != pytest.approx(average(assets), rel=1e-3)


def test_nothing_is_demeaned():
    r = np.array([2.0, 4.0])
    assert scores.r_squared(r, [3.0, 3.0]) == pytest.approx(0.9)
    assert scores.r_squared(r, [3.0, 3.0], [3.0, 3.0]) == 0.0


def test_no_cell_or_no_variation_answers_nan():
    nothing = np.full(4, np.nan)
    zero, one = np.zeros(4), np.ones(4)
    offsets, codes = np.array([0, 2, 2, 4]), np.array([0, 1, 0, 1])
    for r, f in ((nothing, one), (one, nothing), (zero, one)):
        assert np.isnan(scores.r_squared(r, f))
        assert np.isnan(scores.cross_sectional_r_squared(r, f, offsets))
        assert np.isnan(scores.time_series_r_squared(r, f, codes, 2))
        assert np.isnan(scores.rank_ic(r, f, offsets, 2).mean)
    assert np.isnan(scores.rmse(nothing, one))
    assert np.isnan(scores.mae(nothing, one))
    assert np.isnan(scores.mse_ratio(one, zero, one))
    assert np.isnan(scores.r_squared(one, zero, one))
    assert np.isnan(scores.relative_pricing_error(one, zero))
    assert np.isnan(scores.coverage(nothing, zero, one))
    assert np.isnan(scores.crps_gaussian(nothing, zero, one))
    assert np.isnan(scores.log_score_gaussian(nothing, zero, one))
    assert scores.r_squared([1.0, np.inf], [0.5, 0.0]) == 0.75  # an infinity is no observation


def test_relative_pricing_error():
    assert scores.relative_pricing_error([0.1, -0.2, np.nan], [0.5, 1.0, 9.0]) == pytest.approx(0.05 / 1.25)


@pytest.mark.parametrize("decimals", [None, 0])
def test_rank_ic_equals_scipy(decimals):
    r, f, _, offsets, _ = ragged()
    if decimals is not None:  # ties in most periods
        r, f = r.round(decimals), f.round(decimals)
    f[offsets[5] : offsets[6]] = 0.7
    expected = np.full(len(offsets) - 1, np.nan)
    for t, (a, b) in enumerate(pairwise(offsets)):
        cells = np.isfinite(r[a:b]) & np.isfinite(f[a:b])
        x, y = r[a:b][cells], f[a:b][cells]
        if len(x) >= 3 and np.ptp(x) > 0 and np.ptp(y) > 0:
            expected[t] = stats.spearmanr(x, y).statistic
    ic = scores.rank_ic(r, f, offsets)
    np.testing.assert_allclose(ic.by_period, expected, rtol=1e-12, atol=1e-14)
    assert np.isnan(ic.by_period[[3, 5, 7]]).all()
    found = expected[np.isfinite(expected)]
    assert ic.n_periods == len(found) > 10
    assert ic.mean == pytest.approx(found.mean())
    assert ic.t_statistic == pytest.approx(stats.ttest_1samp(found, 0).statistic)
    assert ic.icir == pytest.approx(found.mean() / found.std(ddof=1))
    sparse = scores.rank_ic(r, f, offsets, min_assets=8)
    sizes = [np.isfinite(r[a:b] + f[a:b]).sum() for a, b in pairwise(offsets)]
    assert np.array_equal(np.isfinite(sparse.by_period), np.isfinite(expected) & (np.array(sizes) >= 8))


def test_perfect_ranks_are_exactly_one_and_have_no_t_statistic():
    r = np.array([1.0, 2.0, 2.0, 5.0, -1.0, 0.0, 3.0])
    ic = scores.rank_ic(r, np.exp(r) * 0.1, [0, 4, 7])
    assert np.array_equal(ic.by_period, [1.0, 1.0])
    assert ic.mean == 1.0
    assert np.isnan([ic.t_statistic, ic.icir]).all()
    assert scores.rank_ic(r, -r, [0, 4, 7]).mean == -1.0


def test_expanding_asset_mean_equals_a_loop_and_sees_only_the_past():
    r, _, _, offsets, codes = ragged()
    answer = scores.expanding_asset_mean(r, offsets, codes, 13)
    for t, (a, b) in enumerate(pairwise(offsets)):
        for i in range(a, b):
            past = r[:a][(codes[:a] == codes[i]) & np.isfinite(r[:a])]
            np.testing.assert_allclose(answer[i], past.mean() if len(past) else np.nan, rtol=1e-13)
        changed = r.copy()
        changed[a:] = 77.0
        again = scores.expanding_asset_mean(changed, offsets, codes, 13)
        assert np.array_equal(again[:b], answer[:b], equal_nan=True)
        cut = scores.expanding_asset_mean(r[:b], offsets[: t + 2], codes[:b], 13)
        assert np.array_equal(cut, answer[:b], equal_nan=True)
    assert np.isnan(answer[: offsets[1]]).all()
    assert np.isfinite(answer).sum() > 100
    assert np.array_equal(
        scores.expanding_asset_mean(r * 2.0**20, offsets, codes, 13), answer * 2.0**20, equal_nan=True
    )


def test_coverage_counts_closed_and_one_sided_intervals():
    r = np.array([0.0, 1.0, 2.0, np.nan, 5.0, 1.0])
    low = np.array([0.0, 1.5, -np.inf, 0.0, 4.0, np.nan])
    high = np.array([1.0, 3.0, 2.0, 1.0, np.inf, 2.0])
    assert scores.coverage(r, low, high) == 0.75


def test_gaussian_scores_equal_their_integrals():
    rng = np.random.default_rng(5)
    r, m, v = rng.normal(size=6) * 2, rng.normal(size=6), rng.uniform(0.2, 3, size=6)
    crps = []
    for x, mean, variance in zip(r, m, v, strict=True):
        law = stats.norm(mean, np.sqrt(variance))
        left = integrate.quad(lambda u, law=law: law.cdf(u) ** 2, -30, x, epsabs=1e-12)[0]
        right = integrate.quad(lambda u, law=law: (1 - law.cdf(u)) ** 2, x, 30, epsabs=1e-12)[0]
        crps.append(left + right)
    hidden = np.r_[r, 1.0, np.nan], np.r_[m, np.nan, 0.0], np.r_[v, 1.0, 1.0]
    assert scores.crps_gaussian(*hidden) == pytest.approx(np.mean(crps), rel=1e-8)
    assert scores.log_score_gaussian(*hidden) == pytest.approx(stats.norm.logpdf(r, m, np.sqrt(v)).mean())
    expected = np.r_[stats.norm.cdf(r, m, np.sqrt(v)), np.nan, np.nan]
    np.testing.assert_allclose(scores.pit_gaussian(*hidden), expected, rtol=1e-12)


def test_degenerate_and_hopeless_gaussian_forecasts():
    r, m = np.array([1.0, 2.0, 1e10]), np.array([1.0, 0.5, 0.0])
    v = np.array([0.0, 0.0, 1e-300])
    assert scores.crps_gaussian(r, m, v) == pytest.approx((0 + 1.5 + 1e10) / 3)
    assert np.isnan(scores.log_score_gaussian(r, m, v))
    np.testing.assert_array_equal(scores.pit_gaussian(r, m, v), [0.5, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"variance: expected >= 0, got -0.5"):
        scores.crps_gaussian([1.0], [1.0], [-0.5])


def factor_pair(seed=6, T=60, K=3, extra=1):
    rng = np.random.default_rng(seed)
    f = rng.normal(size=(T, K)) * [1.0, 3.0, 0.2][:K] + [0.5, 0.0, 2.0][:K]
    g = np.column_stack([f[:, :2] @ rng.normal(size=(2, 2)), rng.normal(size=(T, extra))])
    g += 0.3 * rng.normal(size=g.shape)
    f[[4, 9], [0, 2]] = np.nan
    g[[9, 20], [0, 1]] = np.nan
    return f, g


@pytest.mark.parametrize(
    ("intercept", "centred"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_trace_r_squared_equals_the_printed_formula(intercept, centred):
    f, g = factor_pair()
    answer = scores.trace_r_squared(f, g, intercept=intercept, centred=centred)
    rows = np.isfinite(f).all(axis=1) & np.isfinite(g).all(axis=1)
    F, G = f[rows], g[rows]
    if centred:
        F, G = F - F.mean(axis=0), G - G.mean(axis=0)
    if intercept:
        G = np.column_stack([np.ones(len(G)), G])
    expected = np.trace(F.T @ G @ np.linalg.inv(G.T @ G) @ G.T @ F) / np.trace(F.T @ F)
    assert answer == pytest.approx(expected, rel=1e-11)
    assert 0.3 < answer < 0.99


def test_trace_r_squared_ignores_rotation_units_and_duplicates():
    f, g = factor_pair()
    rng = np.random.default_rng(7)
    for centred in (False, True):
        answer = scores.trace_r_squared(f, g, centred=centred)
        turned = g @ rng.normal(size=(3, 3)) * [1e-4, 1.0, 1e6]
        assert scores.trace_r_squared(f, turned, centred=centred) == pytest.approx(answer, rel=1e-8)
        doubled = np.column_stack([g, g[:, 0] * 3, np.zeros(len(g))])
        assert scores.trace_r_squared(f, doubled, centred=centred) == pytest.approx(answer, rel=1e-10)
    constant = np.column_stack(
        [g, np.full(len(g), 0.1)]
    )  # demeaned, a constant is rounding noise, not a factor
    assert scores.trace_r_squared(f, constant, centred=True) == pytest.approx(
        scores.trace_r_squared(f, g, centred=True), rel=1e-10
    )
    assert scores.trace_r_squared(f, f @ rng.normal(size=(3, 3))) == pytest.approx(1.0)
    assert np.isnan(scores.trace_r_squared(np.zeros((5, 2)), np.ones((5, 2))))
    assert np.isnan(scores.trace_r_squared(np.full((5, 2), np.nan), np.ones((5, 2))))
    assert scores.trace_r_squared(np.eye(4)[:, :2], np.zeros((4, 1))) == 0.0


def test_canonical_correlations_equal_the_eigenvalue_formula():
    f, g = factor_pair(extra=0)
    answer = scores.canonical_correlations(f, g)
    rows = np.isfinite(f).all(axis=1) & np.isfinite(g).all(axis=1)
    joint = np.cov(np.column_stack([f, g])[rows].T)
    a, b, c = joint[:3, :3], joint[3:, 3:], joint[:3, 3:]
    squared = np.sort(np.linalg.eigvals(np.linalg.inv(b) @ c.T @ np.linalg.inv(a) @ c).real)[::-1]
    np.testing.assert_allclose(answer, np.sqrt(squared), rtol=1e-10)
    np.testing.assert_allclose(scores.canonical_correlations(g, f), answer, rtol=1e-10)
    assert scores.generalised_r_squared(f, g) == pytest.approx(squared.mean(), rel=1e-10)
    turned = (f @ np.array([[2.0, 1, 0], [0, 1, 0], [3, 0, 1]])) * [1e-4, 1e6, 1] + 5
    np.testing.assert_allclose(scores.canonical_correlations(turned, g), answer, rtol=1e-8)


def test_canonical_correlations_of_deficient_sets():
    f, g = factor_pair()
    deficient = np.column_stack([f[:, 0], 2 * f[:, 0], np.full(len(f), 0.1)])
    answer = scores.canonical_correlations(deficient, g)
    rows = np.isfinite(deficient).all(axis=1) & np.isfinite(g).all(axis=1)
    x, y = f[rows, 0], np.column_stack([np.ones(rows.sum()), g[rows]])
    fitted = y @ np.linalg.lstsq(y, x, rcond=None)[0]
    np.testing.assert_allclose(answer, [np.corrcoef(x, fitted)[0, 1], 0, 0], atol=1e-10)
    assert np.isnan(scores.canonical_correlations(np.full((9, 2), 0.1), g[:9])).all()
    assert np.isnan(scores.generalised_r_squared(np.full((9, 2), np.nan), g[:9]))
    same = scores.canonical_correlations(g, g @ np.array([[1.0, 2, 3], [0, 1, 4], [0, 0, 1]]))
    np.testing.assert_allclose(same, 1.0, rtol=1e-12)
    assert (same <= 1).all()


@pytest.mark.parametrize("scale", SCALES)
def test_scale(scale):
    r, f, b, offsets, codes = ragged()
    v = np.abs(b) + 0.1
    s = scale
    for free in (
        lambda s: scores.r_squared(r * s, f * s),
        lambda s: scores.r_squared(r * s, f * s, b * s),
        lambda s: scores.mse_ratio(r * s, f * s, b * s),
        lambda s: scores.cross_sectional_r_squared(r * s, f * s, offsets),
        lambda s: scores.time_series_r_squared(r * s, f * s, codes, 12),
        lambda s: scores.rank_ic(r * s, f * s, offsets).t_statistic,
        lambda s: scores.relative_pricing_error(r * s, f * s),
        lambda s: scores.coverage(r * s, (f - 1) * s, (f + 1) * s),
    ):
        assert free(s) == pytest.approx(free(1.0), rel=1e-11)
    assert scores.rmse(r * s, f * s) == pytest.approx(scores.rmse(r, f) * s, rel=1e-11)
    assert scores.mae(r * s, f * s) == pytest.approx(scores.mae(r, f) * s, rel=1e-11)
    crps = scores.crps_gaussian(r, f, v)
    assert scores.crps_gaussian(r * s, f * s, v * s**2) == pytest.approx(crps * s, rel=1e-11)
    shifted = scores.log_score_gaussian(r, f, v) - np.log(s)
    assert scores.log_score_gaussian(r * s, f * s, v * s**2) == pytest.approx(shifted, rel=1e-11)


def test_mismatched_arguments_are_refused_and_inputs_left_alone():
    r, f, b, offsets, codes = ragged()
    with pytest.raises(ValueError, match=r"realised \(3,\), forecast \(1,\)"):
        scores.r_squared(np.ones(3), np.ones(1))
    with pytest.raises(ValueError, match="rise from 0"):
        scores.rank_ic(r, f, offsets[:-1])
    with pytest.raises(ValueError, match=r"\(9, 2\) and \(8, 2\)"):
        scores.trace_r_squared(np.ones((9, 2)), np.ones((8, 2)))
    before = [x.copy() for x in (r, f, b)]
    scores.r_squared(r, f, b)
    scores.rank_ic(r, f, offsets)
    scores.expanding_asset_mean(r, offsets, codes, 12)
    scores.pit_gaussian(r, f, np.abs(b))
    assert all(np.array_equal(x, y, equal_nan=True) for x, y in zip(before, (r, f, b), strict=True))
