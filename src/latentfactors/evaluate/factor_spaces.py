"""Two estimates of factors side by side: how much space they share, and one turned to face the other.

Factors are known up to a rotation, so columns of two models must not be compared before they are aligned.
Definitions are those of `kernels.scores` (angles, shares of variance) and `kernels.rotation` (alignment).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError
from latentfactors.estimator import freeze
from latentfactors.frames import to_frame
from latentfactors.kernels.rotation import match_signed_permutation, procrustes
from latentfactors.kernels.scores import canonical_correlations, generalised_r_squared, trace_r_squared

__all__ = ["FactorSpaceComparison", "compare_factor_spaces"]

FloatArray = npt.NDArray[np.float64]
Alignment = Literal["order", "rotation"]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class FactorSpaceComparison:
    """What two sets of factors have in common.

    Attributes
    ----------
    canonical_correlations : (min(K_a, K_b),) cosines of the angles between the spaces, descending
    generalised_r_squared : their mean square; 1 also when one space lies inside the other
    a_explained, b_explained : centred trace R2: share of the variance of one set that the other spans
    aligned : (T, K_a) a's factors in the order and signs of b's, or rotated towards them; unmatched last.
        With fewer factors in a than in b they keep their own order
    partners : (min(K_a, K_b),) column of b that each aligned factor stands for
    correlations : (min(K_a, K_b),) of the aligned factors with their partners
    n_periods : periods finite in both
    """

    canonical_correlations: FloatArray
    generalised_r_squared: float
    a_explained: float
    b_explained: float
    aligned: FloatArray
    partners: npt.NDArray[np.int64]
    correlations: FloatArray
    n_periods: int

    def __post_init__(self) -> None:
        freeze(self)

    def frame(self, backend: str = "polars") -> Any:
        """One line per pair: factor (column of b, from 1), correlation, canonical_correlation."""
        columns = {"factor": self.partners + 1, "correlation": self.correlations}
        return to_frame(columns | {"canonical_correlation": self.canonical_correlations}, backend)

    def __repr__(self) -> str:
        angles = ", ".join(f"{value:.3f}" for value in self.canonical_correlations)
        return f"FactorSpaceComparison(canonical correlations {angles}, {self.n_periods} periods)"


def compare_factor_spaces(
    a: npt.ArrayLike, b: npt.ArrayLike, *, alignment: Alignment = "order"
) -> FactorSpaceComparison:
    """Compare two sets of factors over the periods that both have.

    Parameters
    ----------
    a, b : (T, K_a), (T, K_b)
        Factors of the same periods; NaN where not realised.
    alignment
        "order": a's factors permuted and signed like b's, each one kept as it is. "rotation": the orthogonal
        matrix that brings a closest to b in least squares, for K_a = K_b; a's scale is kept.

    Raises
    ------
    ConfigurationError
        Shapes that do not fit, fewer than two common periods, a rotation between unequal numbers.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> f = rng.normal(size=(100, 2))
    >>> both = compare_factor_spaces(np.column_stack([-f[:, 1], f[:, 0]]), f)
    >>> bool(np.allclose(both.aligned, f)), both
    (True, FactorSpaceComparison(canonical correlations 1.000, 1.000, 100 periods))
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ConfigurationError(f"expected (T, K_a) and (T, K_b) with one T, got {x.shape} and {y.shape}")
    if alignment not in ("order", "rotation"):
        raise ConfigurationError(f"alignment must be 'order' or 'rotation', got {alignment!r}")
    if alignment == "rotation" and x.shape[1] != y.shape[1]:
        raise ConfigurationError(
            f"a rotation needs as many factors in a as in b, got {x.shape[1]} and {y.shape[1]}: use 'order'"
        )
    common = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    n_periods = int(common.sum())
    if n_periods < 2:
        raise ConfigurationError(f"the two sets have {n_periods} common periods, at least 2 are needed")
    partners = np.arange(min(x.shape[1], y.shape[1]))
    if alignment == "rotation":
        aligned = x @ procrustes(x[common], y[common])
    elif x.shape[1] >= y.shape[1]:
        order, signs = match_signed_permutation(x[common], y[common])
        aligned = x[:, order] * signs
    else:
        order, signs = match_signed_permutation(y[common], x[common])
        partners = order[: x.shape[1]]
        aligned = x * signs[: x.shape[1]]
    return FactorSpaceComparison(
        canonical_correlations=canonical_correlations(x, y),
        generalised_r_squared=generalised_r_squared(x, y),
        a_explained=trace_r_squared(x, y, centred=True),
        b_explained=trace_r_squared(y, x, centred=True),
        aligned=aligned,
        partners=partners,
        correlations=np.array(
            [_correlation(aligned[common, k], y[common, partner]) for k, partner in enumerate(partners)]
        ),
        n_periods=n_periods,
    )


def _correlation(x: FloatArray, y: FloatArray) -> float:
    u, v = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((u @ u) * (v @ v)))
    return float(u @ v) / scale if scale > 0 else float("nan")
