"""SQUAREM and Anderson mixing: acceleration of a slow fixed-point map, such as EM or alternation.

SQUAREM: a map x -> M(x) that descends an objective and converges linearly, error rate close to 1, is stepped
twice,

    x1 = M(x),  x2 = M(x1),  r = x1 - x,  v = (x2 - x1) - r,

and extrapolated with the steplength of scheme S3,

    x' = x - 2 a r + a^2 v,  a = -||r|| / ||v|| <= -1        (a = -1 gives x' = x2),

which removes, like squaring one step of Steffensen's method, the error component that dominates; M(x') is
the next iterate. Three map evaluations a cycle, no derivative, no matrix to store.

Guard            x' is accepted only if its objective does not exceed that of x1; otherwise the next iterate
                 is x2, the plain double step, and the longest allowed steplength is divided by four (it is
                 multiplied by four each time it binds).
Stopping         a distance between successive iterates of the caller's choice (a principal angle, say) at
                 most the tolerance in two cycles in a row. The objective is not used: at a minimum it is flat
                 and stands still at half the digits.
References       Varadhan & Roland (2008), Scandinavian Journal of Statistics 35(2), 335-353, section 4 and
                 eq. (9) (S3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_MEMORY = 15  # steps that Anderson's method mixes
_SLACK = 1e-12  # relative rise of an objective >= 0 that is rounding


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """What `squarem` found.

    Attributes
    ----------
    parameters : (P,), an image of the map: at least as good as the last entry of `objective_path`.
    objective_path : objective at every accepted point where the map was evaluated, in order; never rises, up
        to `slack`.
    n_iterations : evaluations of the map, those that the guard rejected included.
    converged : whether the stopping rule was met.
    reason : one sentence saying why the iteration ended.
    """

    parameters: FloatArray
    objective_path: tuple[float, ...]
    n_iterations: int
    converged: bool
    reason: str


def squarem(
    step: Callable[[FloatArray], tuple[FloatArray, float]],
    start: FloatArray,
    *,
    distance: Callable[[FloatArray, FloatArray], float],
    tolerance: float,
    max_iterations: int,
    floor: float = -math.inf,
    slack: float = 1e-12,
) -> FixedPoint:
    """Fixed point of a map that never raises an objective to be **minimised** (minus a log-likelihood, say).

    Parameters
    ----------
    step : x (P,) -> (M(x), objective at x). Both from one call, because the first half of an EM or ALS sweep
        yields the objective of its input for nothing. Must accept any finite x; an infinite or NaN objective
        marks an inadmissible point.
    start : (P,). Parameters are extrapolated as free numbers: take logarithms of positive ones, and return
        rotation-free ones aligned with their input.
    distance : (new, old) -> non-negative number, between the iterates of successive cycles.
    tolerance : stop when the distance is at most this twice in a row.
    max_iterations : largest number of map evaluations; at least one cycle of three is run.
    floor : an objective at or below it is all rounding (a sum of squares that is zero, say): nothing is left
        to improve.
    slack : relative rise of the objective that is rounding and no reason to reject an extrapolation.

    Returns
    -------
    FixedPoint

    Notes
    -----
    Monotone as long as the map is: the guard judges extrapolations, it does not mend a map that climbs.
    """
    current = np.array(start, dtype=np.float64)
    path: list[float] = []
    n_iterations, close_cycles, longest, gap = 0, 0, 1.0, math.inf
    while n_iterations + 3 <= max(max_iterations, 3):
        first, objective = step(current)
        path.append(objective)
        second, objective = step(first)
        path.append(objective)
        n_iterations += 2
        if objective <= floor:
            return FixedPoint(second, tuple(path), n_iterations, True, "the objective is zero up to rounding")

        change = first - current
        curvature = (second - first) - change
        bend = float(np.linalg.norm(curvature))
        length = max(float(np.linalg.norm(change)) / bend, 1.0) if bend > 0.0 else 1.0
        binds = length >= longest
        length = min(length, longest)
        candidate = current + 2.0 * length * change + length**2 * curvature
        image, reached = step(candidate)
        n_iterations += 1
        # written so that a NaN objective is rejected
        accepted = reached <= objective + slack * abs(objective)
        if accepted:
            path.append(reached)
            following = image
            longest = 4.0 * longest if binds else longest
        else:
            following = second
            longest = max(longest / 4.0, 1.0)

        gap = distance(following, current)
        current = following
        close_cycles = close_cycles + 1 if gap <= tolerance else 0
        if close_cycles == 2:
            reason = f"two successive cycles moved by at most the tolerance {tolerance:g} (last {gap:.1e})"
            return FixedPoint(current, tuple(path), n_iterations, True, reason)
    reason = f"stopped after {n_iterations} iterations, still moving by {gap:.1e} (tolerance {tolerance:g})"
    return FixedPoint(current, tuple(path), n_iterations, False, reason)


def anderson(
    step: Callable[[FloatArray], tuple[FloatArray, float]],
    start: FloatArray,
    *,
    distance: Callable[[FloatArray, FloatArray], float],
    tolerance: float,
    max_iterations: int,
    floor: float = -math.inf,
) -> FixedPoint:
    """Fixed point of a map x -> M(x) that never raises an objective, by safeguarded Anderson mixing.

    With d_k = M(x_k) - x_k and the differences D, X of the last d and M(x): x' = M(x) - X argmin |d - D w|.
    Several slow directions vanish at once, where one extrapolation removes one. `step`, `distance` and the
    answer are those of `squarem`; stops when |M(x) - x| is at most the tolerance twice in a row.

    References: Walker & Ni (2011), SIAM J. Numer. Anal. 49(4), 1715-1735.
    """
    x, images, moves = np.array(start), [], []
    path: list[float] = []
    gap, close, plain = math.inf, 0, x
    for n in range(1, max_iterations + 1):
        image, reached = step(x)
        if path and not reached <= path[-1] * (1.0 + _SLACK):
            # the plain step from the last good point cannot be worse; what was mixed is forgotten
            x, images, moves = plain, [], []
            continue
        path.append(reached)
        gap = distance(image, x)
        close = close + 1 if gap <= tolerance else 0
        if reached <= floor or close == 2:
            exact = "the objective is zero up to rounding"
            reason = exact if reached <= floor else f"a sweep moves the loadings by {gap:.1e} of their size"
            return FixedPoint(image, tuple(path), n, True, reason)
        images, moves = [*images[-_MEMORY:], image], [*moves[-_MEMORY:], image - x]
        plain = x = image
        if len(moves) > 1:
            history, former = np.array(moves), np.array(images)
            bends = history[1:] - history[:-1]
            weights = np.linalg.lstsq(bends @ bends.T, bends @ moves[-1], rcond=1e-14)[0]
            x = image - weights @ (former[1:] - former[:-1])
    reason = f"stopped after {max_iterations} sweeps, the last moved the loadings by {gap:.1e} of their size"
    return FixedPoint(plain, tuple(path), max_iterations, False, reason)
