"""Named category factors of a panel: which row is linked to what, and the rows a fit reads.

What the graph factor model and the credit factor model share. A factor is named `country=FR`, or `market`;
names join factors across windows, whose number of categories may differ.

Small groups     a category with fewer than `min_group_size` training assets joins `attribute=other`; where
                 that stays too small, the link is dropped: one lone bond would swallow its own residual
New assets       the loading on k that an asset with its links has on average in training: the mean loading,
                 plus additive effects of the factors nested in k, by least squares over k's assets
Unseen category  the link is dropped, the market and the other links remain; counted in the state's metadata
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError, PanelMismatchError
from latentfactors.estimator import at_least, check_number, freeze
from latentfactors.kernels import adjacency
from latentfactors.kernels.adjacency import Pattern, build_pattern
from latentfactors.panel import Panel
from latentfactors.rows import Attribute
from latentfactors.validate import count

__all__ = ["FactorNames", "NamedFactorEstimates", "Training", "read_training", "row_links"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_OTHER = "other"


@dataclass(frozen=True, eq=False, kw_only=True)
class FactorNames:
    """What the factors are called and which category leads to which.

    Attributes
    ----------
    attributes : names of the attributes used, in order
    common : number of factors that all assets share, the first ones
    names : K names
    families : (K,) position of the attribute, -1 for the common factors
    merged : `attribute=category` of categories that joined `attribute=other`
    dropped : `attribute=category` of training categories without a factor
    """

    attributes: tuple[str, ...]
    common: int
    names: tuple[str, ...]
    families: IntArray
    merged: tuple[str, ...]
    dropped: tuple[str, ...]

    def __post_init__(self) -> None:
        freeze(self)


@dataclass(frozen=True, eq=False, kw_only=True)
class Training:
    """The rows that a fit reads.

    Attributes
    ----------
    names : FactorNames
    pattern : links of the rows
    values : (R,)
    assets : (N,) labels
    periods : (T,) positions of the pattern's periods in the panel
    remarks : sentences about what was left out
    """

    names: FactorNames
    pattern: Pattern
    values: FloatArray
    assets: npt.NDArray[Any]
    periods: IntArray
    min_observed: int
    remarks: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class NamedFactorEstimates:
    """What `fit` found.

    Attributes
    ----------
    names : FactorNames
    assets : (N,) labels of training assets with loadings of their own
    slot_asset, slot_factor : (S,) position of asset and factor of every loading
    loadings : (S,)
    mean_loadings : (K,) what a new asset loads, before the effects below
    effects : (K, K) what a link to the row's factor adds to the loading on the column's
    parameters, n_values : (N,) effective number of parameters fitted to an asset's values, and of values
    residual_variance : (N,) in squared input units, corrected for both kinds of parameters
    pooled_residual_variance : for new assets
    factors : (T, K) in training, NaN where a period had too few assets
    times : (T,) training periods
    factor_mean, factor_covariance : (K,), (K, K) over training, divisor T
    min_observed : observed assets a period needs
    """

    names: FactorNames
    assets: npt.NDArray[Any]
    slot_asset: IntArray
    slot_factor: IntArray
    loadings: FloatArray
    mean_loadings: FloatArray
    effects: FloatArray
    parameters: FloatArray
    n_values: IntArray
    residual_variance: FloatArray
    pooled_residual_variance: float
    factors: FloatArray
    times: npt.NDArray[Any]
    factor_mean: FloatArray
    factor_covariance: FloatArray
    min_observed: int

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def factor_names(self) -> tuple[str, ...]:
        """K names."""
        return self.names.names

    def matrix(self) -> FloatArray:
        """(N, K) loadings, 0 where an asset is not linked; of a migrated asset all it ever had."""
        out = np.zeros((self.assets.size, len(self.factor_names)))
        out[self.slot_asset, self.slot_factor] = self.loadings
        return out


def check_named_config(config: Any) -> None:
    """Refuse settings of the two models that no panel can satisfy."""
    attributes = config.attributes
    if attributes is not None:
        if isinstance(attributes, str) or len(set(attributes)) < len(tuple(attributes)):
            raise ConfigurationError(f"attributes must be different names in a tuple, got {attributes!r}")
        object.__setattr__(config, "attributes", tuple(attributes))
    at_least("n_common", config.n_common, 0)
    at_least("min_group_size", config.min_group_size, 1)
    at_least("max_iterations", config.max_iterations, 1)
    for name in ("min_history", "min_observed"):
        if getattr(config, name) is not None:
            at_least(name, getattr(config, name), 1)
    object.__setattr__(config, "ridge", check_number("ridge", config.ridge))
    if not 0 < config.tolerance < 1:
        raise ConfigurationError(f"tolerance must lie in (0, 1), got {config.tolerance!r}")
    if config.attributes == () and config.n_common == 0:
        raise ConfigurationError(
            "attributes=() and n_common=0 leave no factor: name an attribute, or use n_common=1, the market"
        )


# ------------------------------------------------------------------------------------ links


def row_links(panel: Panel, names: FactorNames) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """(R or N, M) links and whether a known category of the entry was never seen in training.

    By asset (N) where every attribute is, by row (R) otherwise.

    Raises
    ------
    PanelMismatchError
        An attribute the panel does not have.
    """
    used = [attribute_of(panel, name) for name in names.attributes]
    static = is_static(panel, names)
    n = panel.n_assets if static else panel.n_rows
    links = np.empty((n, names.common + len(used)), dtype=np.int32)
    links[:, : names.common] = np.arange(names.common)
    unseen = np.zeros(n, dtype=bool)
    where = {name: k for k, name in enumerate(names.names)}
    for m, (name, attribute) in enumerate(zip(names.attributes, used, strict=True)):
        rest = where.get(f"{name}={_OTHER}", -1)
        labels = adjacency.factor_names(name, attribute.categories)
        target = np.array(
            [where.get(label, rest if label in names.merged else -1) for label in labels] + [-1],
            dtype=np.int32,
        )
        new = np.array(
            [target[c] < 0 and label not in names.dropped for c, label in enumerate(labels)] + [False]
        )
        codes = attribute.codes
        if not static and attribute.by == "asset":
            codes = codes[panel.asset_codes]
        links[:, names.common + m] = target[codes]
        unseen |= new[codes]
    return links, unseen


def is_static(panel: Panel, names: FactorNames) -> bool:
    """Whether no used attribute changes from row to row."""
    return all(attribute_of(panel, name).by == "asset" for name in names.attributes)


def attribute_of(panel: Panel, name: str) -> Attribute:
    """The panel's attribute, or an error that says which there are."""
    if name not in panel.attributes:
        raise PanelMismatchError(
            f"no attribute {name!r}; the panel has {tuple(panel.attributes)}: add it with "
            "panel.with_attributes, or name its column when building the panel"
        )
    return panel.attributes[name]


def read_training(panel: Panel, config: Any) -> Training:
    """Names, links and rows of a training panel.

    Raises
    ------
    PanelMismatchError, InsufficientDataError
        An attribute the panel lacks; no attribute and no common factor; too little history.
    """
    used = tuple(panel.attributes) if config.attributes is None else config.attributes
    if not used and not config.n_common:
        raise PanelMismatchError(
            "the panel has no attributes and n_common=0, so there is no factor: add attributes with "
            "panel.with_attributes, or ask for n_common=1, the market"
        )
    per_asset = config.n_common + len(used)
    history = 2 * per_asset if config.min_history is None else config.min_history
    observed = panel.observed
    values = np.bincount(panel.asset_codes[observed], minlength=panel.n_assets)
    long = values >= history
    names, remarks = learn_names(panel, used, config, observed & long[panel.asset_codes])
    links = row_links(panel, names)[0]
    if is_static(panel, names):
        links = links[panel.asset_codes]
    kept = observed & long[panel.asset_codes] & (links >= 0).any(axis=1)
    counts = np.bincount(panel.index.period_codes[kept], minlength=panel.n_periods)
    least = config.min_observed or min(2 * per_asset, int(counts.max(initial=0)))
    full = counts >= max(least, 1)
    kept &= full[panel.index.period_codes]
    periods = np.flatnonzero(full)
    if periods.size < 2 * per_asset:
        raise InsufficientDataError(
            f"{count(int(periods.size), 'period')} of {panel.n_periods} with at least {least} observed "
            f"assets that have {history} values each; {2 * per_asset} are needed for {per_asset} loadings an "
            "asset: give a longer or fuller panel, fewer attributes, or lower min_history and min_observed"
        )
    active, codes = np.unique(panel.asset_codes[kept], return_inverse=True)
    starts = np.concatenate([[0], np.cumsum(counts[periods])])
    pattern = build_pattern(links[kept], codes, starts, n_assets=active.size, n_factors=len(names.names))
    few = int((panel.active_assets & ~long).sum())
    if few:
        remarks.append(f"{count(few, 'asset')} with fewer than {history} values: no loadings of their own")
    if not full.all():
        thin = count(int((~full).sum()), "period")
        remarks.append(f"{thin} with fewer than {least} observed assets: no factors")
    return Training(
        names=names,
        pattern=pattern,
        values=panel.values[kept],
        assets=panel.assets[active],
        periods=periods,
        min_observed=least,
        remarks=tuple(remarks),
    )


def learn_names(
    panel: Panel, used: Sequence[str], config: Any, kept: npt.NDArray[np.bool_]
) -> tuple[FactorNames, list[str]]:
    """The factors of a training panel, small groups merged, and sentences about them."""
    common = ("market",) if config.n_common == 1 else tuple(f"common {k + 1}" for k in range(config.n_common))
    names, families = list(common), [-1] * len(common)
    merged, dropped, remarks = [], [], []
    rows = np.flatnonzero(kept)
    for m, name in enumerate(used):
        attribute = attribute_of(panel, name)
        codes = attribute.codes[panel.asset_codes[rows]] if attribute.by == "asset" else attribute.codes[rows]
        pairs = np.unique(panel.asset_codes[rows][codes >= 0].astype(np.int64) * len(attribute.categories)
                          + codes[codes >= 0])  # fmt: skip
        category, assets = (
            pairs % max(len(attribute.categories), 1),
            pairs // max(len(attribute.categories), 1),
        )
        sizes = np.bincount(category, minlength=len(attribute.categories))
        labels = np.array(adjacency.factor_names(name, attribute.categories), dtype=object)
        small = (sizes > 0) & (sizes < config.min_group_size) & (labels != f"{name}={_OTHER}")
        rest = small | (labels == f"{name}={_OTHER}")
        together = np.unique(assets[rest[category]]).size
        keeps = [str(label) for label in labels[(sizes > 0) & ~rest]]
        if small.any():
            shown = ", ".join(str(label) for label in labels[small][:3])
            if together >= config.min_group_size:
                merged += [str(label) for label in labels[small]]
                fate = f"merged into {name}={_OTHER}"
            else:
                dropped += [str(label) for label in labels[small]]
                fate = "without a factor, their links are dropped"
            remarks.append(
                f"{count(int(small.sum()), 'category').replace('categorys', 'categories')} with fewer than "
                f"{config.min_group_size} assets ({shown}): {fate}"
            )
        if together >= config.min_group_size:
            keeps.append(f"{name}={_OTHER}")
        elif rest.any() and not small.any():
            dropped.append(f"{name}={_OTHER}")
        names += keeps
        families += [m] * len(keeps)
    found = FactorNames(
        attributes=tuple(used),
        common=config.n_common,
        names=tuple(names),
        families=np.array(families, dtype=np.int64),
        merged=tuple(merged),
        dropped=tuple(dropped),
    )
    if not names:
        raise InsufficientDataError(
            f"no category has {config.min_group_size} assets, so there is no factor: lower min_group_size"
        )
    return found, remarks
