"""One latent space for the members of an ensemble, so that loadings can be averaged.

Members know their loadings B_m (n, K) and factors only up to an invertible map. Each is first normalised,
(B_m R_m)'(B_m R_m)/n = I, and then turned orthogonally towards the others' mean (generalised Procrustes,
started at the first member): A_m = R_m Q_m. Loadings average as mean_m B_m A_m and factors as
mean_m f_m A_m^(-T). All follows from the members' joint Gram matrix, which is collected period by period.

References: Gower (1975), Psychometrika 40(1), generalised Procrustes analysis.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from latentfactors.errors import InsufficientDataError, TrainingError
from latentfactors.validate import count

__all__ = ["align_members", "principal_turn"]

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
    (M, K, K). The mean of the mapped loadings is not normalised.

    Raises
    ------
    TrainingError
        A member's loadings have a rank below K.
    """
    k, n_members = n_factors, len(gram) // n_factors
    blocks = gram.reshape(n_members, k, n_members, k).transpose(0, 2, 1, 3)
    roots = np.stack([inverse_root(blocks[m, m], f"member {m + 1}'s loadings") for m in range(n_members)])
    # R_m' B_m'B_n R_n / n
    cross = np.einsum("mab,mnac,ncd->mnbd", roots, blocks, roots)
    turns = np.stack([_nearest_rotation(cross[m, 0]) for m in range(n_members)])
    for _ in range(_ROUNDS if n_members > 2 else 0):
        former = turns
        turns = np.stack(
            [_nearest_rotation(np.einsum("nbd,nde->be", cross[m], turns)) for m in range(n_members)]
        )
        if np.abs(turns - former).max() < 1e-12:
            break
    return roots @ turns


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
