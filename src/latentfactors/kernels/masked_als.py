"""Factor models with named links, by alternating least squares on the observed rows.

Model            r_it = sum over j in N(i) of b_ij f_jt + e_it        B on the pattern of links, F (T, K) free
Objective        sum over observed rows of (r - b'f)^2 + ridge (sum b^2 + sum f^2)
                 or, with shrinkage s > 0,  ... + s sum (b - t)^2 + ridge sum f^2,  t = 1
                 or, with group effects,    t_ij = 1 + sum over k in N(i) nested in j of a_jk less its mean
                 values divided by their root mean square, so that ridge and s count in observations
Sweep            f_t by a K x K system over period t's rows, b_i by a system of the size of asset i's own
                 links over its rows, then `gauge.balance` (with shrinkage, that fixes the gauge).
                 Each step lowers the objective, so it never rises; there is no learning rate
Ridge on both    on B alone it is void: the scale moves to F at no cost
Group effects    a_j by least squares of b_j - 1 on the centred links, so t_j = 1 + P_j (b_j - 1), P_j the
                 projector on them: the mean loading of every group (market betas by sector), jointly with
                 the asset's deviation from it. The scale stays fixed: t has mean 1 in every factor
Acceleration     Anderson mixing of the last sweeps' B, with F projected out; a mix that raises the objective
                 is replaced by the plain sweep. Categories that nearly cover another (2,397 senior bonds of
                 2,625) leave many slow directions, which one extrapolation at a time does not remove
Shrinkage        s -> infinity: b = 1 (group effects are then shifts into the nested factors), least
                 squares of each period's values on the links themselves, an
                 exact branch. Families of categories that cover every asset make the links of rank K -
                 (number of families); the factors of a family then sum to zero, weighted by their assets
Projection       f_t = m + V^1/2 (I + V^1/2 G V^1/2)^-1 V^1/2 c,  G = B'D^-1B, c = B'D^-1(r - Bm) over period
                 t's rows, m and V mean and covariance of the training factors: the posterior of f ~ N(m, V),
                 in a form that holds for singular V. The prior mean is m, not 0: premia are not shrunk
References       Ghiye, Barreau, Carlier & Vazirgiannis (2025), Journal of Financial Data Science 7(3) (the
                 models, fitted there by gradient descent); Udell, Horn, Zadeh & Boyd (2016), Foundations and
                 Trends in Machine Learning 9(1), section 2 (penalty on both sides); Menchero, Orr & Wang
                 (2011), MSCI Barra research notes (cross-sectional regression with constraints)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentfactors.kernels.adjacency import (
    Pattern,
    asset_equations,
    fitted,
    period_equations,
    to_slots,
)
from latentfactors.kernels.als import start_loadings
from latentfactors.kernels.em import anderson
from latentfactors.kernels.gauge import Nesting, balance, find_nesting

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_EXACT_FIT = 1e-27  # of the sum of squares: rounding alone
_JITTER = (
    1e-13  # of the mean diagonal: what keeps a singular system solvable, far below any ridge that matters
)


@dataclass(frozen=True, eq=False)
class MaskedFit:
    """Loadings on a pattern and factors.

    Attributes
    ----------
    loadings : (S,) by slot
    factors : (T, K), the minimisers given the loadings
    objective_path : objective / sum of squares, never rising
    n_iterations, converged, reason : how the iteration went
    """

    loadings: FloatArray
    factors: FloatArray
    objective_path: tuple[float, ...]
    n_iterations: int
    converged: bool
    reason: str


def fit_masked(
    values: FloatArray,
    pattern: Pattern,
    *,
    ridge: float = 0.0,
    shrinkage: float = 0.0,
    group_effects: bool = False,
    start: FloatArray | None = None,
    tolerance: float = 1e-7,
    max_iterations: int = 1000,
) -> MaskedFit:
    """Minimise the objective of the module docstring.

    Parameters
    ----------
    values : (R,) finite.
    pattern : of these rows.
    ridge, shrinkage : >= 0, in observations of values with root mean square 1; shrinkage finite.
    group_effects : whether shrinkage is towards the mean of an asset's groups instead of 1.
    start : (S,) loadings; None: ones, and leading eigenvectors for factors with the same links.
    tolerance : largest root mean square change of the loadings in a cycle, relative to theirs, that counts as
        standing still.
    max_iterations : largest number of sweeps.
    """
    unit = root_mean_square(values)
    y = values / unit
    nesting = find_nesting(pattern)
    total = float(y @ y) or 1.0
    groups = group_spaces(pattern, nesting) if group_effects and shrinkage else {}

    def factor_step(b: FloatArray) -> FloatArray:
        return solve(*period_equations(pattern, b, y), ridge)

    def objective(b: FloatArray, f: FloatArray) -> float:
        residual = y - fitted(pattern, b, f)
        penalty = ridge * float(np.vdot(f, f))
        penalty += (
            shrinkage * float(((b - target(nesting, groups, b)) ** 2).sum())
            if shrinkage
            else ridge * float(b @ b)
        )
        return (float(residual @ residual) + penalty) / total

    def sweep(b: FloatArray) -> tuple[FloatArray, float]:
        f = factor_step(b)
        reached = objective(b, f)
        grams, crosses = asset_equations(pattern, f, y)
        if shrinkage:
            crosses += shrinkage * from_slots(pattern, target(nesting, groups, b))
        found = to_slots(pattern, solve(grams, crosses, shrinkage or ridge))
        if not shrinkage:
            return balance(nesting, found, f)[0], reached
        return settle(nesting, groups, found, f, ridge / shrinkage), reached

    def distance(new: FloatArray, old: FloatArray) -> float:
        return float(np.linalg.norm(new - old) / max(np.linalg.norm(new), 1e-300))

    first = first_loadings(y, pattern, nesting) if start is None else start
    found = anderson(
        sweep, first, distance=distance, tolerance=tolerance, max_iterations=max_iterations, floor=_EXACT_FIT
    )
    factors = factor_step(found.parameters)
    path = (*found.objective_path, objective(found.parameters, factors))
    return MaskedFit(
        found.parameters, unit * factors, path, found.n_iterations, found.converged, found.reason
    )


def group_spaces(pattern: Pattern, nesting: Nesting) -> dict[int, FloatArray]:
    """Orthonormal basis (n, r) of the centred links to nested factors, for every factor that has such."""
    found = {}
    for k in range(pattern.n_factors):
        _, design, centre = inner_links(pattern, nesting, k)
        if design.shape[1]:
            left, singular, _ = np.linalg.svd(design - centre, full_matrices=False)
            found[k] = left[:, singular > 1e-10 * max(singular[0], 1.0)]
    return found


def inner_links(pattern: Pattern, nesting: Nesting, k: int) -> tuple[IntArray, FloatArray, FloatArray]:
    """Factors (J,) strictly nested in k, 0/1 links (n, J) of k's assets to them, and their means (J,)."""
    own = nesting.members[k]
    inner = np.array(
        [j for j, outer, _ in nesting.pairs if outer == k and nesting.members[j].size < own.size],
        dtype=np.int64,
    )
    position = np.full(pattern.n_assets, -1)
    position[pattern.slot_asset[own]] = np.arange(own.size)
    design = np.zeros((own.size, inner.size))
    for column, j in enumerate(inner):
        design[position[pattern.slot_asset[nesting.members[j]]], column] = 1.0
    return inner, design, design.mean(axis=0) if own.size else np.zeros(inner.size)


def target(nesting: Nesting, groups: Mapping[int, FloatArray], loadings: FloatArray) -> FloatArray:
    """(S,) what shrunken loadings are pulled to: 1 + P (b - 1) on the spaces of `group_spaces`, else 1."""
    out = np.ones(loadings.size)
    for k, basis in groups.items():
        own = nesting.members[k]
        out[own] += basis @ (basis.T @ (loadings[own] - 1.0))
    return out


def settle(
    nesting: Nesting,
    groups: Mapping[int, FloatArray],
    loadings: FloatArray,
    factors: FloatArray,
    ridge: float,
) -> FloatArray:
    """Loadings after shifts of nested factors into their containers that lower the penalty at the same fit.

    f_j -> f_j - c f_k, b_k -> b_k + c b_j at j's assets: with R_k = (I - P_k)(b_k - 1), e = (I - P_k) b_j,
    sum R_k^2 + ridge f_j'f_j has its minimum at c = (ridge f_j'f_k - R_k'e) / (ridge f_k'f_k + e'e).
    """
    b, f = loadings.copy(), np.array(factors)
    for j, k, beside in nesting.pairs:
        if k not in groups or nesting.members[j].size == nesting.members[k].size:
            continue
        own, basis = nesting.members[k], groups[k]
        moved = np.zeros(own.size)
        moved[np.searchsorted(own, beside)] = b[nesting.members[j]]
        moved -= basis @ (basis.T @ moved)  # R_k'e = (b_k - 1)'e, for I - P_k is a projector
        bend = ridge * float(f[:, k] @ f[:, k]) + float(moved @ moved)
        if bend > 0.0:
            shift = (ridge * float(f[:, j] @ f[:, k]) - float((b[own] - 1.0) @ moved)) / bend
            f[:, j] -= shift * f[:, k]
            b[beside] += shift * b[nesting.members[j]]
    return b


def from_slots(pattern: Pattern, by_slot: FloatArray) -> FloatArray:
    """(N, P) on an asset's own slots, zero beyond them: the inverse of `to_slots`."""
    most = int(np.diff(pattern.asset_slots).max(initial=0))
    own = np.zeros((pattern.n_assets, most))
    first = pattern.asset_slots[pattern.slot_asset]
    own[pattern.slot_asset, np.arange(pattern.n_slots) - first] = by_slot
    return own


def first_loadings(y: FloatArray, pattern: Pattern, nesting: Nesting) -> FloatArray:
    """Ones; factors with the same links, which ones cannot tell apart, start at leading eigenvectors."""
    b = np.ones(pattern.n_slots)
    for alike in nesting.classes:
        if alike.size > 1:
            assets = pattern.slot_asset[nesting.members[alike[0]]]
            position = np.full(pattern.n_assets, -1)
            position[assets] = np.arange(assets.size)
            codes = np.empty(y.size, dtype=np.int64)
            codes[pattern.by_asset] = np.repeat(np.arange(pattern.n_assets), np.diff(pattern.asset_starts))
            inside = position[codes] >= 0
            filled, mask = np.zeros((2, pattern.n_periods, assets.size))
            cells = pattern.row_periods[inside], position[codes[inside]]
            filled[cells], mask[cells] = y[inside], 1.0
            rank = min(alike.size, *filled.shape)
            vectors = start_loadings(filled, mask, rank) * np.sqrt(assets.size)
            for j, vector in zip(alike, vectors.T, strict=False):
                b[nesting.members[j]] = vector
    return b


def solve(grams: FloatArray, crosses: FloatArray, ridge: float) -> FloatArray:
    """(n, P) solutions of (G + ridge I) x = c; directions that nothing tells about come out (nearly) zero."""
    size = grams.shape[1]
    mean = np.trace(grams, axis1=1, axis2=2) / max(size, 1)
    lift = np.maximum(ridge, np.where(mean > 0.0, _JITTER * mean, 1.0))
    lifted = grams + lift[:, None, None] * np.eye(size)
    return np.asarray(np.linalg.solve(lifted, crosses[:, :, None])[:, :, 0], dtype=np.float64)


def root_mean_square(values: FloatArray) -> float:
    """Of (R,) values, relative to the largest one inside, so that squares neither overflow nor vanish."""
    peak = float(np.abs(values).max(initial=0.0))
    return peak * float(np.sqrt(np.mean((values / peak) ** 2))) if peak > 0.0 else 1.0


# ------------------------------------------------------------------------------------ loadings of one


def category_regression(
    pattern: Pattern, values: FloatArray, families: Sequence[IntArray], weights: FloatArray
) -> FloatArray:
    """(T, K) least-squares factors of every period on the links themselves, loadings all one.

    Parameters
    ----------
    pattern : links of the rows.
    values : (R,) finite.
    families : factors that sum to zero, weighted by `weights`, in every period.
    weights : (K,) for instance the number of assets of every factor.

    Notes
    -----
    Minimises sum (r - a'f)^2 subject to C f = 0 by f = Z x, Z an orthonormal basis of the null space of C;
    what the period's rows still cannot tell apart (a category without a row, a family that not every asset
    belongs to is no such case) gets the answer of minimum norm.
    """
    size = pattern.n_factors
    constraint = np.zeros((len(families), size))
    for row, family in zip(constraint, families, strict=True):
        row[family] = weights[family]
    free = null_space(constraint)
    grams, crosses = period_equations(pattern, np.ones(pattern.n_slots), values)
    out = np.zeros(crosses.shape)
    for t in range(pattern.n_periods):
        inverse = np.linalg.pinv(free.T @ grams[t] @ free, rcond=1e-12, hermitian=True)
        out[t] = free @ (inverse @ (free.T @ crosses[t]))
    return out


def null_space(constraint: FloatArray) -> FloatArray:
    """(K, K - rank) orthonormal basis of {f: C f = 0}."""
    if not constraint.size:
        return np.eye(constraint.shape[1])
    _, singular, right = np.linalg.svd(constraint)
    return right[int((singular > 1e-12 * singular[0]).sum()) :].T


# ------------------------------------------------------------------------------------ new periods


def posterior_factors(
    grams: FloatArray, crosses: FloatArray, mean: FloatArray, covariance: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Posterior means (T, K) and covariances (T, K, K) of f ~ N(mean, covariance) given G and c of a period.

    `grams` (T, K, K) holds B'D^-1B, `crosses` (T, K) B'D^-1(r - B mean).
    """
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    n_periods, size = crosses.shape
    factors, spread = np.empty((n_periods, size)), np.empty((n_periods, size, size))
    identity = np.eye(size)
    for t in range(n_periods):  # each period by products of its own, so that no other one rounds it
        inner = np.linalg.inv(identity + root.T @ grams[t] @ root)
        factors[t] = mean + root @ (inner @ (root.T @ crosses[t]))
        half = root @ (0.5 * (inner + inner.T))
        spread[t] = half @ root.T
    return factors, 0.5 * (spread + spread.transpose(0, 2, 1))
