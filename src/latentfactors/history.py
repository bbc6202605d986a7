"""One rule for how a fitted sequential thing meets a new panel.

    panel starts at or before the training start   everything is recomputed from it: the panel wins
    panel starts right after the training end      continues from the tail stored in the estimates
    anything else                                  GapError

The stored tail is the whole training history, so the first two agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import FrequencyError, GapError
from latentfactors.estimator import freeze
from latentfactors.periods import follows, is_date
from latentfactors.rows import RowIndex

__all__ = ["History", "continues"]


def continues(first: Any, last: Any, index: RowIndex, who: str) -> bool:
    """Whether a panel continues a training history (True) or replaces it (False).

    Parameters
    ----------
    first, last
        Bounds of the training history.
    index
        The panel's rows.
    who
        Name for the message.

    Raises
    ------
    GapError
        When it does neither.
    """
    if index.n_periods == 0:
        return False
    if is_date(index.times) != isinstance(first, np.datetime64):
        raise GapError(
            f"{who} was trained on {first}..{last} and the panel starts at {index.times[0]}: dates and "
            "integer periods cannot be told apart in time, build both panels alike"
        )
    if index.times[0] <= first:
        return False
    try:
        if follows(last, index.times[0], index.frequency):
            return True
        reason = f"the panel starts at {index.times[0]}"
    except FrequencyError:
        reason = (
            f"the panel starts at {index.times[0]} and has no frequency that would tell whether this is next"
        )
    raise GapError(
        f"{who} was trained on {first}..{last} and {reason}: give a panel that reaches back to {first}, or "
        f"one that starts right after {last}"
    )


@dataclass(frozen=True, eq=False)
class History:
    """Training factors kept for later panels: times (S,) and values (S, K)."""

    times: npt.NDArray[Any]
    values: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        freeze(self)

    def prepend(
        self, index: RowIndex, values: npt.NDArray[np.float64], who: str
    ) -> tuple[npt.NDArray[np.float64], int]:
        """Values with the history before them where the panel continues it, and how many were added."""
        if not continues(self.times[0], self.times[-1], index, who):
            return values, 0
        return np.concatenate([self.values, values]), self.times.size
