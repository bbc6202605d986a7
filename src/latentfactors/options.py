"""Small option objects that several configs share: how factors move, how noise moves, how sure fits are.

Each is frozen, compares by value, and goes into a config where a choice has parameters of its own:
`PTFAConfig(..., dynamics=VAR(1))`. None always means: not that.
"""

from __future__ import annotations

from dataclasses import dataclass

from latentfactors.errors import ConfigurationError
from latentfactors.estimator import at_least, check_number

__all__ = ["EWMA", "VAR", "Bootstrap"]


@dataclass(frozen=True)
class VAR:
    """Factors follow a stationary vector autoregression.

    Parameters
    ----------
    lags
        Number of lags, at least 1.
    """

    lags: int = 1

    def __post_init__(self) -> None:
        at_least("lags", self.lags, 1)


@dataclass(frozen=True)
class EWMA:
    """Noise variances move: s^2(t) = lambda s^2(t-1) + (1 - lambda) v(t-1), v a period's own estimate.

    Parameters
    ----------
    predictors, targets
        Decay lambda of either group's variance, above 0 and at most 1; 1 leaves the variance where it is.

    Raises
    ------
    ConfigurationError
        A decay outside (0, 1]. With 0 a period's variance would be its predecessor's own estimate alone,
        which one well-fitted period takes to zero; it then outweighs all others.
    """

    predictors: float = 0.94
    targets: float = 0.94

    def __post_init__(self) -> None:
        for name in ("predictors", "targets"):
            value = check_number(f"EWMA {name}", getattr(self, name))
            if not 0.0 < value <= 1.0:
                reason = (
                    ": with 0 one well-fitted period gets a variance of zero and outweighs all others"
                    if value == 0.0
                    else ""
                )
                raise ConfigurationError(
                    f"EWMA {name} must be a decay above 0 and at most 1, got {value:g}{reason}; RiskMetrics "
                    "uses 0.94 for days, 0.97 for months"
                )
            object.__setattr__(self, name, value)

    @property
    def decays(self) -> tuple[float, float]:
        """Lambda of the predictors and of the targets."""
        return self.predictors, self.targets


@dataclass(frozen=True)
class Bootstrap:
    """Parameter uncertainty from refits to data drawn from the fitted model, missing cells where they were.

    Parameters
    ----------
    n_draws
        Refits, at least 2; 100 give a variance to about 14%.
    seed
        Of the draws.
    """

    n_draws: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("n_draws", self.n_draws, 2)
        at_least("seed", self.seed, 0)
