"""The credit factor models beside what they have to beat, on any panel with attributes.

Rows of a table  AE (linear autoencoder), PCA-M, static IPCA (one-hot attributes): M factors, M the number of
                 attributes plus the market. PCA-K: K factors, as many numbers a day as GFM and CFM.
                 BARRA: the K factors with loadings one. GFM, CFM. PCA-K, BARRA and the held-out column are
                 the fair comparison: with K numbers a day something always fits
Scores           1 - SSE/SST over observed cells, nothing demeaned: CS by day, TS by asset, total pooled; MSE.
                 Out of sample: loadings from the training window, factors from the day's own returns
                 All models of a table are scored on the cells that each of them has an answer for
Held out         factors from four fifths of the day's assets, scored on the last fifth: five passes
Masking          a share p of each day's cells hidden before extraction, scored on hidden and on other cells
Reference        Ghiye, Barreau, Carlier & Vazirgiannis (2025), Journal of Financial Data Science 7(3)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from latentfactors.errors import ConfigurationError, InsufficientDataError, LatentFactorsError
from latentfactors.frames import to_frame
from latentfactors.kernels.scores import cross_sectional_r_squared, r_squared, rmse, time_series_r_squared
from latentfactors.model import LatentFactorModel
from latentfactors.models.credit_factor import CreditFactorConfig, CreditFactorModel
from latentfactors.models.graph_factor import GraphFactorConfig, GraphFactorModel, Inference, Normalisation
from latentfactors.models.ipca import IPCAConfig, IPCAModel
from latentfactors.models.pca import PCAConfig, PCAModel
from latentfactors.panel import Panel
from latentfactors.state import LatentFactorState

__all__ = [
    "FactorCorrelations",
    "comparison_table",
    "credit_models",
    "factor_correlations",
    "heterogeneity_experiment",
    "masking_experiment",
    "monthly_folds",
    "normalisation_experiment",
    "one_hot",
    "window_experiment",
]

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Models = Mapping[str, LatentFactorModel[Any, Any]]
Fold = tuple[int, int, int]
_HELD_OUT_GROUPS = 5


def credit_models(panel: Panel) -> dict[str, LatentFactorModel[Any, Any]]:
    """The rows of a comparison, unfitted, sized for a panel: AE, PCA-M, PCA-K, IPCA, BARRA, GFM, CFM.

    IPCA needs `one_hot(panel)`; the experiments below see to it. PCA-K, whose K is large for its data, stops
    after 60 sweeps: more of them fit the training window closer and later days worse.

    Raises
    ------
    ConfigurationError
        A panel without attributes.
    """
    if not panel.attributes:
        raise ConfigurationError(
            "the comparison needs a panel with attributes: add them with with_attributes"
        )
    few = len(panel.attributes) + 1
    many = 1 + sum(len(np.unique(each.codes[each.codes >= 0])) for each in panel.attributes.values())
    return {
        "AE": GraphFactorModel(GraphFactorConfig(attributes=(), n_common=few, infer="encoder")),
        "PCA-M": PCAModel(PCAConfig(n_factors=few, tolerance=1e-5)),
        "PCA-K": PCAModel(PCAConfig(n_factors=many, tolerance=1e-2, max_iterations=60)),
        "IPCA": IPCAModel(IPCAConfig(n_factors=few)),
        "BARRA": CreditFactorModel(CreditFactorConfig(shrinkage=math.inf)),
        "GFM": GraphFactorModel(GraphFactorConfig()),
        "CFM": CreditFactorModel(CreditFactorConfig(tolerance=1e-4)),
    }


def one_hot(panel: Panel) -> Panel:
    """The panel with a constant and a 0/1 characteristic for every category: what static IPCA sees."""
    columns, names = [np.ones(panel.n_rows, dtype=np.float32)], ["market"]
    for name, attribute in panel.attributes.items():
        codes = attribute.codes if attribute.by == "row" else attribute.codes[panel.asset_codes]
        for c, category in enumerate(attribute.categories):
            columns.append((codes == c).astype(np.float32))
            names.append(f"{name}={category}")
    return replace(panel, characteristics=np.column_stack(columns), characteristic_names=tuple(names))


def monthly_folds(panel: Panel, train_months: int = 9, step: int = 1) -> list[Fold]:
    """(start, split, stop) positions: train on `train_months` calendar months, test on the next one.

    Raises
    ------
    InsufficientDataError
        Integer times, or too few months.
    """
    if panel.times.dtype.kind != "M":
        raise InsufficientDataError("monthly folds need dates, the panel has integer periods")
    realised = panel.times[: panel.n_realised].astype("datetime64[M]")
    first = np.flatnonzero(np.r_[True, realised[1:] != realised[:-1]])
    bounds = [*first.tolist(), realised.size]
    folds = [
        (bounds[i], bounds[i + train_months], bounds[i + train_months + 1])
        for i in range(0, len(bounds) - train_months - 1, step)
    ]
    if not folds:
        raise InsufficientDataError(
            f"{len(bounds) - 1} months cannot hold {train_months} to train on and one to test: use fewer"
        )
    return folds


def comparison_table(
    panel: Panel,
    models: Models | None = None,
    *,
    folds: Sequence[Fold] | None = None,
    backend: str = "polars",
) -> Any:
    """Fit of every model in and out of sample, averaged over monthly folds.

    Parameters
    ----------
    panel
        With attributes.
    models
        Name -> unfitted model; None takes `credit_models(panel)`.
    folds
        (start, split, stop); None takes `monthly_folds(panel)`.

    Returns
    -------
    frame
        model, n_factors, then `in_` and `out_` of cs_r2, ts_r2, total_r2, mse, and held_out_r2, n_folds. NaN
        for a model that no fold could fit.

    Examples
    --------
    >>> from latentfactors.simulate import credit_panel
    >>> panel = credit_panel(n_assets=120, n_periods=110, seed=1).panel
    >>> models = {name: credit_models(panel)[name] for name in ("PCA-M", "BARRA")}
    >>> comparison_table(panel, models, folds=[(0, 90, 110)])["model"].to_list()
    ['PCA-M', 'BARRA']
    """
    models = credit_models(panel) if models is None else models
    folds = monthly_folds(panel) if folds is None else folds
    scores: dict[str, list[list[float]]] = {name: [] for name in models}
    sizes = dict.fromkeys(models, 0)
    for start, split, stop in folds:
        for name, (found, n_factors) in _compare(
            models, panel.between(start, split), panel.between(split, stop)
        ).items():
            scores[name].append(found)
            sizes[name] = n_factors
    lines = []
    for name, found in scores.items():
        mean = np.mean(found, axis=0) if found else np.full(9, np.nan)
        lines.append((name, sizes[name], *mean.tolist(), len(found)))
    kinds = ("cs_r2", "ts_r2", "total_r2", "mse")
    head = (
        "model",
        "n_factors",
        *(f"in_{k}" for k in kinds),
        *(f"out_{k}" for k in kinds),
        "held_out_r2",
        "n_folds",
    )
    return _frame(head, lines, backend)


def masking_experiment(
    panel: Panel,
    models: Models | None = None,
    *,
    fold: Fold | None = None,
    shares: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    seeds: int = 10,
    backend: str = "polars",
) -> Any:
    """R2 of hidden and of other cells of the test days when a share of them is hidden from the extraction.

    Parameters
    ----------
    panel, models
        As in `comparison_table`.
    fold
        (start, split, stop); None takes the last monthly fold.
    shares
        In (0, 1).
    seeds
        Draws for each share, at least 1.

    Returns
    -------
    frame
        model, share, masked_r2, unmasked_r2, masked_sd (over draws).

    Raises
    ------
    ConfigurationError
        Shares outside (0, 1), or no draw.
    """
    if not all(0 < share < 1 for share in shares) or seeds < 1:
        raise ConfigurationError(f"shares must lie in (0, 1) and seeds be >= 1, got {shares!r} and {seeds!r}")
    models = credit_models(panel) if models is None else models
    start, split, stop = monthly_folds(panel)[-1] if fold is None else fold
    test, lines = panel.between(split, stop), []
    draws = [np.random.default_rng(seed).random(test.n_rows) for seed in range(seeds)]
    fitted = {name: _fit(model, panel.between(start, split)) for name, model in models.items()}
    ready = {name: (found, _equipped(found, test)) for name, found in fitted.items() if found is not None}
    for share in shares:
        pairs: dict[str, list[list[float]]] = {name: [] for name in ready}
        for draw in draws:
            gone = draw < share
            fits = {
                n: model.extract(given.mask(gone)).reconstruction() for n, (model, given) in ready.items()
            }
            common = np.logical_and.reduce([np.isfinite(fit) for fit in fits.values()])
            for name, fit in fits.items():
                pairs[name].append(
                    [r_squared(test.values[g], fit[g]) for g in (gone & common, ~gone & common)]
                )
        for name, found in pairs.items():
            masked, unmasked = np.mean(found, axis=0)
            lines.append((name, share, masked, unmasked, float(np.std(found, axis=0)[0])))
    return _frame(("model", "share", "masked_r2", "unmasked_r2", "masked_sd"), lines, backend)


def window_experiment(
    panel: Panel,
    models: Models | None = None,
    *,
    lengths: Sequence[int] = (63, 126, 189, 252),
    n_test: int = 21,
    backend: str = "polars",
) -> Any:
    """Out-of-sample total R2 of the last `n_test` realised periods after training windows of several lengths.

    Returns
    -------
    frame
        model, length, out_total_r2, held_out_r2; a model that cannot be fitted on a window is left out there.
    """
    models = credit_models(panel) if models is None else models
    stop = panel.n_realised
    split = stop - n_test
    if max(lengths) > split:
        raise ConfigurationError(
            f"lengths up to {max(lengths)} exceed the {split} periods before the test days"
        )
    lines = []
    for length in lengths:
        found = _compare(models, panel.between(split - length, split), panel.between(split, stop))
        lines += [(name, length, scores[6], scores[8]) for name, (scores, _) in found.items()]
    return _frame(("model", "length", "out_total_r2", "held_out_r2"), lines, backend)


def normalisation_experiment(
    panel: Panel, *, folds: Sequence[Fold] | None = None, backend: str = "polars"
) -> Any:
    """`comparison_table` of GFM's three normalisations, by encoder and by projection."""
    kinds: tuple[Normalisation, ...] = ("mean", "softmax", "relu")
    ways: tuple[Inference, ...] = ("encoder", "project")
    models = {
        f"{kind}, {way}": GraphFactorModel(GraphFactorConfig(normalisation=kind, infer=way))
        for kind in kinds
        for way in ways
    }
    return comparison_table(panel, models, folds=folds, backend=backend)


def heterogeneity_experiment(
    simulate: Any,
    *,
    levels: Sequence[float] = (0.0, 0.1, 0.25, 0.5),
    seeds: int = 3,
    models: Sequence[str] = ("PCA-M", "BARRA", "GFM", "CFM"),
    n_test: int = 21,
    backend: str = "polars",
) -> Any:
    """Where free loadings pay and where they lose: held-out R2 by heterogeneity of the true loadings.

    Parameters
    ----------
    simulate
        (heterogeneity, seed) -> truth with `.panel`, such as a partial of `simulate.credit_panel`.
    levels, seeds
        Standard deviations of the loadings, and draws for each.

    Returns
    -------
    frame
        heterogeneity, model, out_total_r2, held_out_r2, means over seeds.
    """
    lines = []
    for level in levels:
        scores: dict[str, list[list[float]]] = {name: [] for name in models}
        for seed in range(seeds):
            panel = simulate(level, seed).panel
            split, stop = panel.n_realised - n_test, panel.n_realised
            rows = credit_models(panel)
            chosen = {name: rows[name] for name in models}
            for name, (found, _) in _compare(
                chosen, panel.between(0, split), panel.between(split, stop)
            ).items():
                scores[name].append([found[6], found[8]])
        lines += [(level, name, *np.mean(each, axis=0).tolist()) for name, each in scores.items() if each]
    return _frame(("heterogeneity", "model", "out_total_r2", "held_out_r2"), lines, backend)


@dataclass(frozen=True, eq=False, kw_only=True)
class FactorCorrelations:
    """How far named factors say the same.

    Attributes
    ----------
    names : K names
    correlation : (K, K)
    variance_inflation : (K,) 1 / (1 - R2 of a factor on the others); infinite where they span it
    condition_number : of the correlation matrix
    """

    names: tuple[str, ...]
    correlation: FloatArray
    variance_inflation: FloatArray
    condition_number: float


def factor_correlations(state: LatentFactorState) -> FactorCorrelations:
    """Correlations of a state's realised factors; periods without all of them are left out.

    Raises
    ------
    InsufficientDataError
        Fewer than two complete periods.
    """
    values = state.factors.values[np.isfinite(state.factors.values).all(axis=1)]
    if len(values) < 2:
        raise InsufficientDataError(
            f"correlations need two periods with factors, the state has {len(values)}"
        )
    centred = values - values.mean(axis=0)
    size = np.sqrt((centred**2).sum(axis=0))
    unit = np.divide(centred, size, out=np.zeros_like(centred), where=size > 0)
    correlation = unit.T @ unit
    eigenvalues, vectors = np.linalg.eigh(correlation)
    usable = eigenvalues > 1e-12 * eigenvalues[-1]
    inverse = (vectors[:, usable] ** 2 / eigenvalues[usable]).sum(axis=1)
    spanned = (vectors[:, ~usable] ** 2).sum(axis=1) > 1e-10
    smallest = float(eigenvalues[0])
    return FactorCorrelations(
        names=state.factors.names,
        correlation=correlation,
        variance_inflation=np.where(spanned, np.inf, inverse),
        condition_number=float(eigenvalues[-1]) / smallest if usable.all() else np.inf,
    )


# ------------------------------------------------------------------------------------ scoring


def _equipped(model: LatentFactorModel[Any, Any], panel: Panel) -> Panel:
    return one_hot(panel) if model.uses_characteristics else panel


def _fit(model: LatentFactorModel[Any, Any], training: Panel) -> LatentFactorModel[Any, Any] | None:
    """A fitted copy, or None where the window is too small for the model."""
    copy = model.clone()
    try:
        copy.fit(_equipped(model, training))
    except ConfigurationError:
        raise
    except LatentFactorsError:
        return None
    return copy


def _compare(models: Models, training: Panel, test: Panel) -> dict[str, tuple[list[float], int]]:
    """Nine scores and the number of factors of every model that can be fitted, all on the same cells.

    A model that says nothing about new bonds would look better than one that does.
    """
    fits, sizes = {}, {}
    for name, model in models.items():
        found = _fit(model, training)
        if found is not None:
            inside, given = _equipped(model, training), _equipped(model, test)
            state = found.extract(given)
            sizes[name] = len(state.factors.names)
            fits[name] = (
                found.extract(inside).reconstruction(),
                state.reconstruction(),
                _held_out(found, given),
            )
    if not fits:
        return {}
    common = [np.logical_and.reduce([np.isfinite(fit[j]) for fit in fits.values()]) for j in range(3)]
    answer = {}
    for name, (inside, outside, held_out) in fits.items():
        scores = [*_scores(training, inside, common[0]), *_scores(test, outside, common[1])]
        answer[name] = ([*scores, r_squared(test.values[common[2]], held_out[common[2]])], sizes[name])
    return answer


def _scores(panel: Panel, fit: FloatArray, cells: BoolArray) -> tuple[float, float, float, float]:
    values = np.where(cells, panel.values, np.nan)
    return (
        cross_sectional_r_squared(values, fit, panel.offsets),
        time_series_r_squared(values, fit, panel.asset_codes, panel.n_assets),
        r_squared(values, fit),
        rmse(values, fit) ** 2,
    )


def _held_out(model: LatentFactorModel[Any, Any], panel: Panel) -> FloatArray:
    """(R,) fitted values of each fifth of the assets, with the day's factors from the other four."""
    group = np.random.default_rng(0).permutation(panel.n_assets)[panel.asset_codes] % _HELD_OUT_GROUPS
    fit = np.full(panel.n_rows, np.nan)
    for g in range(_HELD_OUT_GROUPS):
        hidden = group == g
        fit[hidden] = model.extract(panel.mask(hidden)).reconstruction()[hidden]
    return fit


def _frame(head: Sequence[str], lines: Sequence[tuple[Any, ...]], backend: str) -> Any:
    if not lines:
        raise InsufficientDataError("no model could be fitted: give longer windows or a fuller panel")
    columns = zip(*lines, strict=True)
    return to_frame({name: np.array(column) for name, column in zip(head, columns, strict=True)}, backend)
