"""The covariance of assets as an operator: B, S and D are kept, their N x N sum is not.

Covariance       Sigma = B S B' + D              B (N, K) in input units, S (K, K), D (N, N)
Specific         D = diag(d), or with issuer blocks D_ij = rho sqrt(d_i d_j) for i, j of one issuer, 0 <= rho
                 < 1
Root             S = LL', C = BL (eigenvalues of S; rounding below zero counts as zero, so S may be singular)
Solve            Sigma^-1 = D^-1 - D^-1 C M^-1 C' D^-1,  M = I + C'D^-1 C  (Woodbury), through the Cholesky
                 factor of M; D^-1 is O(N): a rank-one correction per issuer (Sherman-Morrison)
Determinant      ln|Sigma| = ln|D| + ln|M|
Draws            C z + D^1/2 e,  with issuers sqrt(1 - rho) d^1/2 e_i + sqrt(rho) d^1/2 e_issuer
Cost             O(N K^2) once, then O(N K) a product or solve; memory O(N K)

Positive definite because d > 0 and S is positive semi-definite; both are checked.

References: Golub & Van Loan (2013), Matrix Computations, 4th ed., section 2.1.4 (Woodbury).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError
from latentfactors.estimator import at_least, freeze
from latentfactors.frames import to_frame
from latentfactors.risk.portfolios import Weights, aligned, resolve_families

__all__ = ["CovarianceOperator"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class CovarianceOperator:
    """Sigma = B S B' + D of the assets of one period, never formed unless `dense()` is called.

    Parameters
    ----------
    assets : (N,)
        Labels, in the order of all vectors below.
    loadings : (N, K)
        B, in input units per unit of factor.
    factor_covariance : (K, K)
        S, positive semi-definite.
    specific_variance : (N,)
        d > 0, in squared input units.
    factor_names
        K names; `country=FR` belongs to the family `country`.
    families
        Factor name -> family, where the names do not say it; whole or in part.
    issuers : (N,) int, optional
        Code of every asset's issuer, -1 for none.
    issuer_correlation
        rho in [0, 1), between specific returns of one issuer's assets.
    universe : (M,), optional
        Labels of which `assets` are a part: portfolios given as an array are in this order. None: `assets`.
    time, origin
        The period whose covariance this is, and the last period whose data were used.
    in_sample
        The model behind the loadings was fitted on data later than `origin`.
    remarks
        What was repaired, or has to be known.

    Raises
    ------
    ConfigurationError
        Shapes that do not fit, values that are not finite, d <= 0, S that is no covariance.

    Examples
    --------
    >>> sigma = CovarianceOperator(
    ...     assets=np.array(["a", "b"]),
    ...     loadings=np.array([[1.0], [2.0]]),
    ...     factor_names=("market",),
    ...     factor_covariance=np.array([[0.04]]),
    ...     specific_variance=np.array([0.01, 0.02]),
    ... )
    >>> sigma.dense()
    array([[0.05, 0.08],
           [0.08, 0.18]])
    >>> np.allclose(sigma @ sigma.solve(np.ones(2)), 1.0), round(sigma.volatility({"a": 1.0}), 4)
    (True, 0.2236)
    """

    assets: npt.NDArray[Any]
    loadings: FloatArray
    factor_covariance: FloatArray
    specific_variance: FloatArray
    factor_names: tuple[str, ...]
    families: Mapping[str, str] | None = None
    issuers: IntArray | None = None
    issuer_correlation: float = 0.0
    universe: npt.NDArray[Any] | None = None
    time: Any = None
    origin: Any = None
    in_sample: bool = False
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("loadings", "factor_covariance", "specific_variance"):
            array = np.asarray(getattr(self, name), dtype=np.float64)
            if not np.isfinite(array).all():
                raise ConfigurationError(f"{name} must be finite, it has NaN or infinities")
            object.__setattr__(self, name, array)
        n, k = len(self.assets), len(self.factor_names)
        shapes = {"loadings": (n, k), "factor_covariance": (k, k), "specific_variance": (n,)}
        if self.issuers is not None:
            shapes["issuers"] = (n,)
        for name, wanted in shapes.items():
            if np.shape(getattr(self, name)) != wanted:
                raise ConfigurationError(
                    f"{name} must have shape {wanted} for {n} assets and {k} factors, got "
                    f"{np.shape(getattr(self, name))}"
                )
        if n and not self.specific_variance.min() > 0:
            worst = self.assets[int(self.specific_variance.argmin())]
            raise ConfigurationError(
                f"specific_variance must be positive, got {self.specific_variance.min():.3g} for asset "
                f"{worst!s}: without it the covariance is singular"
            )
        if not 0 <= self.issuer_correlation < 1:
            raise ConfigurationError(f"issuer_correlation must lie in [0, 1), got {self.issuer_correlation}")
        object.__setattr__(self, "families", resolve_families(self.factor_names, self.families))
        _ = self._root  # refuses an S that is no covariance
        freeze(self)

    # ---------------------------------------------------------------- size and labels

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N)."""
        return len(self.assets), len(self.assets)

    @property
    def n_factors(self) -> int:
        """K."""
        return len(self.factor_names)

    @property
    def family_of(self) -> tuple[str, ...]:
        """K family names, one a factor."""
        assert self.families is not None
        return tuple(self.families[name] for name in self.factor_names)

    def portfolio(self, weights: Weights, *, what: str = "weights") -> FloatArray:
        """(N,) weights in the order of `assets`.

        Parameters
        ----------
        weights
            Asset -> weight, absent ones 0; or an array over `universe`.
        what
            Name for messages.

        Raises
        ------
        PanelMismatchError
            Unknown assets, another length, NaN, or weight on assets that this covariance does not cover, by
            name.
        """
        return aligned(weights, self.assets, self.universe, what)

    # ---------------------------------------------------------------- the algebra

    @cached_property
    def _root(self) -> FloatArray:
        """(K, K) L with S = LL'."""
        covariance = self.factor_covariance
        size = float(np.abs(covariance).max(initial=0.0))
        if np.abs(covariance - covariance.T).max(initial=0.0) > 1e-10 * size:
            raise ConfigurationError("factor_covariance must be symmetric")
        values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
        if values.min(initial=0.0) < -1e-10 * max(values.max(initial=0.0), size):
            raise ConfigurationError(
                f"factor_covariance has the eigenvalue {values.min():.3g}: it is no covariance, repair it "
                "with latentfactors.risk.repair_covariance"
            )
        return vectors * np.sqrt(np.maximum(values, 0.0))

    @cached_property
    def _factor_part(self) -> FloatArray:
        """(N, K) C = BL."""
        return self.loadings @ self._root

    @cached_property
    def _capacity(self) -> FloatArray:
        """(K, K) lower Cholesky factor of M = I + C'D^-1 C."""
        inner = self._factor_part.T @ self.specific_solve(self._factor_part)
        return np.linalg.cholesky(np.eye(self.n_factors) + (inner + inner.T) / 2).astype(
            np.float64, copy=False
        )

    @cached_property
    def _blocks(self) -> tuple[IntArray, IntArray] | None:
        """Block of every asset (N,), those without an issuer in a block of their own, and block sizes."""
        if self.issuers is None or self.issuer_correlation == 0:
            return None
        codes = np.asarray(self.issuers, dtype=np.int64)
        alone = codes < 0
        codes = np.where(alone, codes.max(initial=-1) + 1 + np.cumsum(alone), codes)
        block = np.unique(codes, return_inverse=True)[1]
        return block, np.bincount(block)

    def matvec(self, x: npt.ArrayLike) -> FloatArray:
        """Sigma x for x (N,) or (N, m)."""
        return self.systematic_matvec(x) + self.specific_matvec(x)

    def __matmul__(self, x: npt.ArrayLike) -> FloatArray:
        return self.matvec(x)

    def systematic_matvec(self, x: npt.ArrayLike) -> FloatArray:
        """B S B'x for x (N,) or (N, m)."""
        return self.loadings @ (self.factor_covariance @ (self.loadings.T @ self._vector(x)))

    def specific_matvec(self, x: npt.ArrayLike) -> FloatArray:
        """D x for x (N,) or (N, m)."""
        given = self._vector(x)
        d = _column(self.specific_variance, given)
        if self._blocks is None:
            return d * given
        rho, v = self.issuer_correlation, np.sqrt(d)
        return (1.0 - rho) * d * given + rho * v * self._block_sums(v * given)

    def specific_solve(self, x: npt.ArrayLike) -> FloatArray:
        """D^-1 x for x (N,) or (N, m)."""
        given = self._vector(x)
        d = _column(self.specific_variance, given)
        if self._blocks is None:
            return given / d
        rho, v = self.issuer_correlation, np.sqrt(d)
        block, size = self._blocks
        share = _column(rho / (1.0 + rho * (size[block].astype(np.float64) - 1.0)), given)
        return (given / d - share / v * self._block_sums(given / v)) / (1.0 - rho)

    def solve(self, x: npt.ArrayLike) -> FloatArray:
        """Sigma^-1 x for x (N,) or (N, m), by Woodbury."""
        from scipy.linalg import cho_solve

        reduced = self.specific_solve(x)
        inner = cho_solve((self._capacity, True), self._factor_part.T @ reduced)
        return reduced - self.specific_solve(self._factor_part @ inner)

    def logdet(self) -> float:
        """ln |Sigma|."""
        rho = self.issuer_correlation if self._blocks is not None else 0.0
        total = float(np.log(self.specific_variance).sum())
        if self._blocks is not None:
            size = self._blocks[1]
            total += float((size * np.log1p(-rho) + np.log1p(rho * size / (1.0 - rho))).sum())
        return total + 2.0 * float(np.log(np.diagonal(self._capacity)).sum())

    def diagonal(self) -> FloatArray:
        """(N,) variances of the assets."""
        return np.einsum("ij,ij->i", self._factor_part, self._factor_part) + self.specific_variance

    def dense(self) -> FloatArray:
        """(N, N) Sigma: 8 N^2 bytes, 3.2 GB for 20,000 assets."""
        return self._factor_part @ self._factor_part.T + self.dense_specific()

    def dense_specific(self) -> FloatArray:
        """(N, N) D, with issuer blocks where there are any."""
        specific = np.diag(self.specific_variance)
        if self._blocks is not None:
            block, v = self._blocks[0], np.sqrt(self.specific_variance)
            same = (block[:, None] == block) & ~np.eye(len(v), dtype=np.bool_)
            specific += np.where(same, self.issuer_correlation * np.outer(v, v), 0.0)
        return specific

    # ---------------------------------------------------------------- portfolios and draws

    def variance(self, weights: Weights) -> float:
        """w'Sigma w of a portfolio, in squared input units."""
        w = self.portfolio(weights)
        exposure = self._root.T @ (self.loadings.T @ w)
        return float(exposure @ exposure + w @ self.specific_matvec(w))

    def volatility(self, weights: Weights) -> float:
        """Standard deviation of a portfolio, in input units per period."""
        return float(np.sqrt(self.variance(weights)))

    def sample(self, n_draws: int, *, seed: int) -> FloatArray:
        """(n_draws, N) normal draws with mean zero and covariance Sigma.

        Examples
        --------
        >>> sigma = CovarianceOperator(
        ...     assets=np.arange(3),
        ...     loadings=np.ones((3, 1)),
        ...     factor_covariance=np.eye(1),
        ...     specific_variance=np.ones(3),
        ...     factor_names=("market",),
        ... )
        >>> sigma.sample(4, seed=0).shape
        (4, 3)
        """
        at_least("n_draws", n_draws, 1)
        rng = np.random.default_rng(seed)
        draws = rng.standard_normal((n_draws, self.n_factors)) @ self._factor_part.T
        v, own = np.sqrt(self.specific_variance), rng.standard_normal((n_draws, len(self.assets)))
        if self._blocks is None:
            return draws + v * own
        block, size = self._blocks
        common = rng.standard_normal((n_draws, size.size))[:, block]
        rho = self.issuer_correlation
        return draws + v * (np.sqrt(1.0 - rho) * own + np.sqrt(rho) * common)

    def scaled(self, multiplier: npt.ArrayLike) -> CovarianceOperator:
        """diag(m) Sigma diag(m) for m (N,): the same assets in other units, `duration_times_spread` uses it.

        A multiplier of 0 is refused: an asset without risk would make the covariance singular.
        """
        m = np.asarray(multiplier, dtype=np.float64)
        if m.shape != (len(self.assets),) or not np.isfinite(m).all() or np.any(m == 0):
            raise ConfigurationError(
                f"multiplier must be finite, not zero and of shape ({len(self.assets)},), got shape {m.shape}"
            )
        if self._blocks is not None and np.any(m < 0) and np.any(m > 0):
            raise ConfigurationError("with issuer blocks all multipliers need one sign")
        return replace(
            self, loadings=m[:, None] * self.loadings, specific_variance=m * m * self.specific_variance
        )

    def select(self, assets: npt.ArrayLike) -> CovarianceOperator:
        """The covariance of some of the assets, by (N,) boolean mask or positions."""
        chosen = np.arange(len(self.assets))[np.asarray(assets)]
        return replace(
            self,
            assets=self.assets[chosen],
            loadings=self.loadings[chosen],
            specific_variance=self.specific_variance[chosen],
            issuers=None if self.issuers is None else self.issuers[chosen],
            universe=self.assets if self.universe is None else self.universe,
        )

    def frame(self, backend: str = "polars") -> Any:
        """One line per asset: asset, volatility, systematic, specific (deviations), then loadings."""
        systematic = np.einsum("ij,ij->i", self._factor_part, self._factor_part)
        columns: dict[str, npt.NDArray[Any]] = {
            "asset": self.assets,
            "volatility": np.sqrt(systematic + self.specific_variance),
            "systematic": np.sqrt(systematic),
            "specific": np.sqrt(self.specific_variance),
        }
        columns |= {name: self.loadings[:, k].copy() for k, name in enumerate(self.factor_names)}
        return to_frame(columns, backend)

    def __repr__(self) -> str:
        when = "" if self.time is None else f", {self.time}"
        when += "" if self.origin is None else f" from data to {self.origin}"
        blocks = "" if self._blocks is None else f", issuer correlation {self.issuer_correlation:.2f}"
        return f"CovarianceOperator({len(self.assets):,} assets, {self.n_factors} factors{when}{blocks})"

    def _vector(self, x: npt.ArrayLike) -> FloatArray:
        given = np.asarray(x, dtype=np.float64)
        if given.ndim not in (1, 2) or len(given) != len(self.assets):
            raise ConfigurationError(
                f"expected an array ({len(self.assets)},) or ({len(self.assets)}, m), got {given.shape}"
            )
        return given

    def _block_sums(self, x: FloatArray) -> FloatArray:
        """Sum of x (N,) or (N, m) over every asset's block, spread back over its assets."""
        assert self._blocks is not None
        block, size = self._blocks
        total = np.zeros((size.size, *x.shape[1:]))
        np.add.at(total, block, x)
        return total[block]


def _column(vector: FloatArray, like: FloatArray) -> FloatArray:
    return vector if like.ndim == 1 else vector[:, None]
