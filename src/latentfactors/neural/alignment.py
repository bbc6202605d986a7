"""One latent space for the members of an ensemble, so that loadings can be averaged.

Members know their loadings B_m (n, K) and factors only up to an invertible map. Each is first normalised,
(B_m R_m)'(B_m R_m)/n = I, and then turned orthogonally towards the others' mean (generalised Procrustes,
started at the first member): A_m = R_m Q_m. Loadings average as mean_m B_m A_m and factors as
mean_m f_m A_m^(-T). All follows from the members' joint Gram matrix, which is collected period by period.
A member that collapsed (its loadings have a rank below K, as when all its units have died) has no such map:
A_m = 0 says so, and means are over the living members.

References: Gower (1975), Psychometrika 40(1), generalised Procrustes analysis.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from latentfactors.errors import InsufficientDataError, TrainingError
from latentfactors.validate import count

__all__ = ["align_members", "living_members", "one_member", "principal_turn"]

FloatArray = npt.NDArray[np.float64]
_ROUNDS = 20
_COLLAPSED = 1e-10


def align_members(gram: FloatArray, n_factors: int) -> FloatArray:
    """Maps A (M, K, K) into the common space.

    Parameters
    ----------
    gram : (M K, M K), [B_1 ... B_M]'[B_1 ... B_M]/n over training rows
    n_factors : K

    Returns
    -------
    (M, K, K), zeros for members whose loadings have a rank below K. The mean of the mapped loadings is not
    normalised.

    Raises
    ------
    TrainingError
        All members' loadings have a rank below K.
    """
    k, n_members = n_factors, len(gram) // n_factors
    blocks = gram.reshape(n_members, k, n_members, k).transpose(0, 2, 1, 3)
    roots, collapsed = np.zeros((n_members, k, k)), []
    for m in range(n_members):
        try:
            roots[m] = inverse_root(blocks[m, m], f"member {m + 1}'s loadings")
        except TrainingError as error:
            collapsed.append(error)
    if len(collapsed) == n_members:
        raise collapsed[0]
    first = int(np.argmax(living_members(roots)))
    # R_m' B_m'B_n R_n / n
    cross = np.einsum("mab,mnac,ncd->mnbd", roots, blocks, roots)
    turns = np.stack([_nearest_rotation(cross[m, first]) for m in range(n_members)])
    for _ in range(_ROUNDS if n_members > 2 else 0):
        former = turns
        turns = np.stack(
            [_nearest_rotation(np.einsum("nbd,nde->be", cross[m], turns)) for m in range(n_members)]
        )
        if np.abs(turns - former).max() < 1e-12:
            break
    return roots @ turns


def living_members(maps: FloatArray) -> npt.NDArray[np.bool_]:
    """(M,) whether a member has a map (M, K, K) into the common space: False for those that collapsed."""
    return np.asarray(maps.any(axis=(1, 2)))


def one_member(maps: FloatArray, m: int) -> slice:
    """Where member m stands.

    Raises
    ------
    TrainingError
        It collapsed: it has no loadings in the common space.
    """
    if not living_members(maps)[m]:
        raise TrainingError(
            f"member {m + 1} of {len(maps)} collapsed in training and is left out: choose among the living "
            f"ones, {', '.join(str(j + 1) for j in np.flatnonzero(living_members(maps)))}"
        )
    return slice(m, m + 1)


def inverse_root(moment: FloatArray, what: str) -> FloatArray:
    """S (K, K) with S' moment S = I.

    Raises
    ------
    TrainingError
        The moment is singular: its smallest eigenvalue is below 1e-10 of the largest.
    """
    eigenvalues, vectors = np.linalg.eigh(moment)
    if not eigenvalues[0] > _COLLAPSED * max(float(eigenvalues[-1]), np.finfo(float).tiny):
        rank = int((eigenvalues > _COLLAPSED * max(float(eigenvalues[-1]), np.finfo(float).tiny)).sum())
        raise TrainingError(
            f"{what} have rank {rank} after training, expected {len(moment)}: ask for fewer factors, or "
            "lower the learning rate or the L1 penalty"
        )
    return vectors / np.sqrt(eigenvalues)


def principal_turn(loadings: FloatArray, factors: FloatArray) -> FloatArray:
    """T (K, K): (B T)'(B T)/n = I, F T^(-T) with diagonal, descending second moments and means >= 0.

    Parameters
    ----------
    loadings : (n, K)
    factors : (T, K), periods with NaN are left out

    Raises
    ------
    TrainingError, InsufficientDataError
        Loadings of a rank below K; fewer than K periods.
    """
    root = inverse_root(loadings.T @ loadings / len(loadings), "the ensemble's loadings")
    realised = factors[np.isfinite(factors).all(axis=1)]
    if len(realised) < factors.shape[1]:
        raise InsufficientDataError(
            f"{count(len(realised), 'period')} with identified factors, {factors.shape[1]} needed: ask for "
            "fewer factors, or give a longer or fuller panel"
        )
    moved = realised @ np.linalg.inv(root).T
    axes = np.linalg.svd(moved, full_matrices=False)[2].T
    return root @ (axes * np.where((moved @ axes).sum(axis=0) < 0, -1.0, 1.0))


def _nearest_rotation(cross: FloatArray) -> FloatArray:
    left, _, right = np.linalg.svd(cross)
    return left @ right
