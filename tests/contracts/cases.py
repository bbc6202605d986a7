"""Every predictor that has to keep the ten rules. A new model joins by one entry here.

A rule, or a part of one, is lifted only with a written reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from sklearn.linear_model import LinearRegression

from latentfactors import (
    EWMA,
    VAR,
    AR1FactorForecaster,
    AutoregressivePredictor,
    BetaLambdaMapper,
    Bootstrap,
    CAEConfig,
    CAEModel,
    CreditFactorConfig,
    CreditFactorModel,
    CrossSectionalOLSPredictor,
    CrossSectionalRidgePredictor,
    D2FMConfig,
    D2FMModel,
    DFMConfig,
    DynamicFactorModel,
    EWMAFactorForecaster,
    ExpandingMeanFactorForecaster,
    FactorRegressionConfig,
    FactorRegressionModel,
    GradientBoostingPredictor,
    GraphFactorConfig,
    GraphFactorModel,
    HistoricalMeanPredictor,
    IPCAConfig,
    IPCAModel,
    LatentFactorForecastPipeline,
    NativeFactorForecaster,
    NativeMapper,
    NeuralNetworkPredictor,
    NeurIFConfig,
    NeurIFModel,
    NowcastPredictor,
    ObservedFactorConfig,
    ObservedFactorModel,
    Panel,
    PCAConfig,
    PCAModel,
    PTFAConfig,
    PTFAModel,
    RegressorPredictor,
    RollingMeanFactorForecaster,
    RPPCAConfig,
    RPPCAModel,
    TrainingConfig,
    VARFactorForecaster,
    VarianceBreak,
    ZeroPredictor,
)
from latentfactors.evaluate import SelectedPredictor, SelectionConfig
from latentfactors.kernels.cross_section import period_ranks
from tests.contracts.doubles import ConditionalDouble, StateSpaceDouble, StaticDouble, WeightDouble
from tests.contracts.panels import contract_panel


@dataclass(frozen=True, kw_only=True)
class Case:
    """A predictor and what is known about it.

    Attributes
    ----------
    make : builds it, unfitted
    exact : values (T, N) of the predictor's own process, noise-free, and the forecast or reconstruction that
        must reproduce hidden cells: "reconstruction" or "forecast"; None with a reason in `lifted[2]`
    declared : violations of the declared identification of a fitted model on its training panel, name -> size
    new_assets : what an asset never seen in training gets: a forecast, or NaN and a count
    factors_are_given : realised factors come with the panel, whatever its assets do
    shifts : forecasts follow a change of the values' origin (a location is part of the model)
    horizons : horizons it serves
    targets : labels it forecasts, where it does not forecast all; a target's reconstruction may be NaN too
    bits : why rule 1 holds to 1e-10 and not to the bit; None: to the bit
    lifted : rule number -> reason
    """

    name: str
    make: Callable[[], Any]
    panel: Callable[..., Panel] = contract_panel
    exact: Callable[[], tuple[Panel, np.ndarray]] | None = None
    exact_output: Literal["reconstruction", "forecast"] = "reconstruction"
    exact_tolerance: float = 1e-10
    declared: Callable[[Any, Panel], Mapping[str, float]] | None = None
    new_assets: Literal["forecast", "nan", "own_history"] = "nan"
    shifts: bool = False
    factors_are_given: bool = False
    horizons: tuple[int, ...] = (1, 2)
    targets: tuple[str, ...] | None = None
    tolerance: float = 1e-8
    rows_matter: str | None = None
    bits: str | None = None
    lifted: Mapping[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def pipeline(model, forecaster=None, mapper=None):
    return lambda: LatentFactorForecastPipeline(
        model=model(),
        forecaster=ExpandingMeanFactorForecaster() if forecaster is None else forecaster(),
        mapper=BetaLambdaMapper() if mapper is None else mapper(),
    )


# ------------------------------------------------------------------------ noise-free panels of each process


def hide(panel: Panel, share: float = 0.3) -> Panel:
    """30% of the values hidden, at random."""
    return panel.mask(np.random.default_rng(5).uniform(size=panel.n_rows) < share)


def exact_static(mean: float = 0.0) -> tuple[Panel, np.ndarray]:
    """Two static factors without noise, complete truth by row."""
    rng = np.random.default_rng(4)
    loadings, factors = rng.normal(size=(24, 2)), rng.normal(size=(64, 2)) * [0.05, 0.03] + 0.01
    values = factors @ loadings.T + mean * rng.normal(size=24)
    panel = contract_panel(ragged=False, missing=0.0).between(0, 64)
    return hide(panel.with_values(panel.index.gather(values))), panel.index.gather(values)


def exact_named() -> tuple[Panel, np.ndarray]:
    """A market and three sector factors with unequal loadings, without noise."""
    panel = contract_panel(ragged=False, missing=0.0).between(0, 64)
    rng, sector = np.random.default_rng(4), panel.attributes["sector"].codes
    loadings = np.column_stack([np.ones(sector.size), *(sector == c for c in range(3))])
    loadings *= 1.0 + 0.5 * rng.normal(size=loadings.shape)
    truth = panel.index.gather(rng.normal(size=(64, 4)) * [0.05, 0.03, 0.03, 0.03] @ loadings.T)
    return hide(panel.with_values(truth)), truth


def exact_categories() -> tuple[Panel, np.ndarray]:
    """The same with loadings of one."""
    panel = contract_panel(ragged=False, missing=0.0).between(0, 64)
    rng, sector = np.random.default_rng(4), panel.attributes["sector"].codes
    links = np.column_stack([np.ones(sector.size), *(sector == c for c in range(3))])
    truth = panel.index.gather(rng.normal(size=(64, 4)) * [0.05, 0.03, 0.03, 0.03] @ links.T)
    return hide(panel.with_values(truth)), truth


def exact_mirrored(broken: int | None = None) -> tuple[Panel, np.ndarray]:
    """Two factors, second half minus the first and hidden alike: sample means are the means, gaps or not.

    In a broken period, and so in its mirror image 32 periods later, factors are four times as large.
    """
    rng = np.random.default_rng(4)
    loadings, factors = rng.normal(size=(24, 2)), rng.normal(size=(32, 2)) * [0.05, 0.03]
    if broken is not None:
        factors[broken] *= 4.0
    values = 0.1 * rng.normal(size=24) + np.concatenate([factors, -factors]) @ loadings.T
    hidden = np.tile(rng.uniform(size=(32, 24)) < 0.3, (2, 1))
    panel = contract_panel(ragged=False, missing=0.0).between(0, 64)
    truth = panel.index.gather(values)
    return panel.with_values(np.where(panel.index.gather(hidden), np.nan, truth)), truth


def exact_characteristics() -> tuple[Panel, np.ndarray]:
    """Values linear in characteristics with slopes of each period, without noise."""
    panel = contract_panel(missing=0.0).between(0, 64)
    slopes = np.random.default_rng(4).normal(size=(64, 3))
    truth = (panel.characteristics * slopes[panel.index.period_codes]).sum(axis=1)
    return hide(panel.with_values(truth)), truth


def exact_instrumented() -> tuple[Panel, np.ndarray]:
    """IPCA's process with two factors, without noise."""
    panel = contract_panel(missing=0.0).between(0, 64)
    rng = np.random.default_rng(4)
    gamma, _ = np.linalg.qr(rng.normal(size=(3, 2)))
    factors = 0.02 + rng.normal(size=(64, 2)) * [0.1, 0.05]
    truth = ((panel.characteristics @ gamma) * factors[panel.index.period_codes]).sum(axis=1)
    return hide(panel.with_values(truth)), truth


def conditional_process(panel: Panel) -> np.ndarray:
    """(R,) r = (1 + c_1) f_1 + 2 c_2 f_2 of the panel's rows."""
    rng = np.random.default_rng(9)
    factors = np.array([0.02, 0.01]) + rng.normal(size=(65, 2)) * [0.06, 0.03]
    c = panel.characteristics
    loadings = np.column_stack([1.0 + c[:, 0], 2.0 * c[:, 1]])
    return (loadings * factors[panel.index.period_codes]).sum(axis=1)


def conditional_panel(**options: Any) -> Panel:
    """The contract panel with ranked characteristics on which its values depend, and a little noise."""
    panel = contract_panel(**options)
    ranks = [period_ranks(panel.period(p).characteristics) for p in range(panel.n_periods)]
    panel = replace(panel, characteristics=np.concatenate(ranks))
    noise = 0.01 * np.random.default_rng(10).normal(size=panel.n_rows)
    return panel.with_values(np.where(panel.observed, conditional_process(panel) + noise, np.nan))


def exact_conditional() -> tuple[Panel, np.ndarray]:
    """The same process without noise."""
    panel = conditional_panel(missing=0.0).between(0, 64)
    truth = conditional_process(panel)
    return hide(panel.with_values(truth)), truth


def exact_observed() -> tuple[Panel, np.ndarray]:
    """Static betas on the panel's observed factors, without noise."""
    panel = contract_panel(ragged=False, missing=0.0).between(0, 64)
    betas = np.random.default_rng(4).normal(size=(panel.n_assets, 2))
    truth = panel.index.gather(panel.observed_factors @ betas.T)
    return hide(panel.with_values(truth)), truth


def exact_constant_slopes() -> tuple[Panel, np.ndarray]:
    """Values linear in characteristics with one intercept and one slope for all periods, without noise."""
    panel = contract_panel(missing=0.0).between(0, 64)
    truth = 0.01 + panel.characteristics @ np.array([0.02, -0.01, 0.005])
    return hide(panel.with_values(truth)), truth


def exact_means() -> tuple[Panel, np.ndarray]:
    """Each asset always earns its mean."""
    panel = contract_panel(missing=0.0).between(0, 64)
    truth = np.linspace(-0.02, 0.03, panel.n_assets)[panel.asset_codes]
    return hide(panel.with_values(truth)), truth


# ------------------------------------------------------------------------ declared identification


def components_declared(model, panel):
    """B'B = I; F'F diagonal, descending; largest absolute loading positive."""
    state = model.extract(panel)
    loadings = state.measurement.loadings.values
    loadings = loadings[np.isfinite(loadings).all(axis=1)]
    factors = state.factor_returns[np.isfinite(state.factor_returns).all(axis=1)]
    if getattr(model.config, "demean", False) or isinstance(model, StaticDouble):
        factors = factors - factors.mean(axis=0)
    moments = factors.T @ factors / len(factors)
    correlation = moments / np.sqrt(np.outer(np.diag(moments), np.diag(moments)))
    largest = loadings[np.abs(loadings).argmax(axis=0), np.arange(loadings.shape[1])]
    return {
        "loadings orthonormal": np.abs(loadings.T @ loadings - np.eye(loadings.shape[1])).max(),
        "factors uncorrelated": np.abs(correlation - np.diag(np.diag(correlation))).max(),
        "factors descending": max(0.0, np.diff(np.diag(moments)).max() / moments[0, 0]),
        "largest loading positive": max(0.0, -largest.min()),
    }


def orthonormal_declared(model, panel):
    """B'B = I and signs; the filter's factors need not be uncorrelated."""
    found = components_declared(model, panel)
    return {name: found[name] for name in ("loadings orthonormal", "largest loading positive")}


def priced_declared(model, panel):
    """D^-1 B orthonormal; F'F/T + gamma fbar fbar' diagonal, descending; factor means not negative."""
    state, gamma = model.extract(panel), model.config.gamma
    loadings = state.measurement.loadings.values / model.estimates.scale[:, None]
    loadings = loadings[np.isfinite(loadings).all(axis=1)]
    factors = state.factor_returns[np.isfinite(state.factor_returns).all(axis=1)]
    mean = factors.mean(axis=0)
    moments = factors.T @ factors / len(factors) + gamma * np.outer(mean, mean)
    size = np.sqrt(np.outer(np.diag(moments), np.diag(moments)))
    return {
        "loadings orthonormal": np.abs(loadings.T @ loadings - np.eye(2)).max(),
        "moments diagonal": np.abs((moments - np.diag(np.diag(moments))) / size).max(),
        "moments descending": max(0.0, np.diff(np.diag(moments)).max() / moments[0, 0]),
        "factor means not negative": max(0.0, -mean.min()),
    }


def instrumented_declared(model, panel):
    """Gamma'Gamma = I; F'F/T diagonal, descending; factor means not negative; alpha orthogonal to Gamma."""
    gamma, factors = model.estimates.gamma, model.extract(panel).factor_returns
    factors = factors[np.isfinite(factors).all(axis=1)]
    moments = factors.T @ factors / len(factors)
    size = np.sqrt(np.outer(np.diag(moments), np.diag(moments)))
    alpha = np.zeros(len(gamma)) if model.estimates.gamma_alpha is None else model.estimates.gamma_alpha
    return {
        "gamma orthonormal": np.abs(gamma.T @ gamma - np.eye(gamma.shape[1])).max(),
        "moments diagonal": np.abs((moments - np.diag(np.diag(moments))) / size).max(),
        "moments descending": max(0.0, np.diff(np.diag(moments)).max() / moments[0, 0]),
        "factor means not negative": max(0.0, -factors.mean(axis=0).min()),
        "alpha orthogonal": np.abs(gamma.T @ alpha).max() / max(np.abs(alpha).max(), 1e-300),
    }


def gauge_declared(model, panel):
    """Mean loading 1, or root mean square 1 where it is near 0; CFM's sectors orthogonal to the market."""
    estimates = model.estimates
    loadings, factors = estimates.loadings, estimates.factors[np.isfinite(estimates.factors).all(axis=1)]
    factor_of = estimates.slot_factor
    members = np.bincount(factor_of)
    means, squares = np.bincount(factor_of, loadings) / members, np.bincount(factor_of, loadings**2) / members
    unit = np.where(np.abs(means) >= 0.1 * np.sqrt(squares), means, squares)
    found = {"loadings have unit size": np.abs(unit - 1.0).max()}
    if isinstance(model, CreditFactorModel):
        moments = factors.T @ factors
        nested = [name.startswith("sector=") for name in estimates.factor_names]
        across = moments[0] / np.sqrt(moments[0, 0] * np.diag(moments))
        found["sectors orthogonal to the market"] = np.abs(across[nested]).max()
    return found


def categories_declared(model, panel):
    """Loadings 1; the factors of a family sum to zero, weighted by their assets."""
    estimates = model.estimates
    factors = estimates.factors[np.isfinite(estimates.factors).all(axis=1)]
    sizes = np.bincount(estimates.slot_factor)
    sums = [
        np.abs(factors[:, family] @ sizes[family]).max() / np.abs(factors).max()
        for m in range(2)
        if (family := np.flatnonzero(estimates.names.families == m)).size
    ]
    return {"loadings are one": np.abs(estimates.loadings - 1.0).max(), "families sum to zero": max(sums)}


def whitened_declared(model, panel):
    """Pooled B'B/rows = I over observed rows; F'F/T diagonal, descending; factor means not negative."""
    state = model.extract(panel)
    loadings = state.measurement.loadings.rows()[panel.observed]
    factors = state.factor_returns[np.isfinite(state.factor_returns).all(axis=1)]
    moments = factors.T @ factors / len(factors)
    size = np.sqrt(np.outer(np.diag(moments), np.diag(moments)))
    return {
        "loadings white": np.abs(loadings.T @ loadings / len(loadings) - np.eye(loadings.shape[1])).max(),
        "moments diagonal": np.abs((moments - np.diag(np.diag(moments))) / size).max(),
        "moments descending": max(0.0, np.diff(np.diag(moments)).max() / moments[0, 0]),
        "factor means not negative": max(0.0, -factors.mean(axis=0).min()),
    }


def given_declared(model, panel):
    """Factors are the observed ones themselves."""
    factors = model.extract(panel).factor_returns
    return {"factors are the given ones": np.nanmax(np.abs(factors - panel.observed_factors))}


def targeted_declared(model, panel):
    """P'P/s_x^2 + Q'Q/s_y^2 diagonal, descending; the first target's loadings positive."""
    e = model.estimates
    precision = e.predictor_loadings.T @ e.predictor_loadings / e.predictor_variance
    precision += e.target_loadings.T @ e.target_loadings / e.target_variance
    return {
        "precision diagonal": np.abs(precision - np.diag(np.diag(precision))).max() / precision[0, 0],
        "precision descending": max(0.0, np.diff(np.diag(precision)).max() / precision[0, 0]),
        "first target's loadings positive": max(0.0, -e.target_loadings[0].min()),
    }


def characteristics_declared(model, panel):
    """Loadings are the characteristics themselves."""
    loadings = model.extract(panel).measurement.loadings.rows()
    return {"loadings are characteristics": np.abs(loadings - panel.characteristics).max()}


def regressed_declared(model, panel):
    """Factors covary positively with the first target of their pairs."""
    state, lead = model.extract(panel), model.config.lead
    target = panel.wide()[:, panel.assets.tolist().index(model.config.targets[0])]
    factors, later = state.factor_returns[: len(target) - lead], target[lead:]
    rows = np.isfinite(factors).all(axis=1) & np.isfinite(later)
    covariances = (factors[rows] - factors[rows].mean(axis=0)).T @ (later[rows] - later[rows].mean())
    return {"covariance with the target positive": max(0.0, -covariances.min())}


def dynamic_declared(model, panel):
    """Var(f) = I; Lambda'D^-1 Lambda diagonal, descending; the largest loading of each factor positive."""
    found = model.estimates
    r = found.loadings.shape[1]
    transition = found.transition[0]
    variance = np.linalg.solve(np.eye(r * r) - np.kron(transition, transition), found.innovation.ravel())
    gram = found.loadings.T @ (found.loadings / found.idiosyncratic_variance[:, None])
    diagonal = np.diag(gram)
    largest = found.loadings[np.abs(found.loadings).argmax(axis=0), np.arange(r)]
    return {
        "factors have unit variance": np.abs(variance.reshape(r, r) - np.eye(r)).max(),
        "information diagonal": np.abs(gram - np.diag(diagonal)).max() / diagonal.max(),
        "information descending": max(0.0, np.diff(diagonal).max() / diagonal.max()),
        "largest loading positive": max(0.0, -largest.min()),
    }


def deep_declared(model, panel):
    """Var(f) = I of the factors' law; Lambda'D^-1 Lambda diagonal, descending; largest loadings positive."""
    found = model.estimates
    r, p = found.loadings.shape[1], len(found.transition)
    companion, noise = np.eye(p * r, k=-r), np.zeros((p * r, p * r))
    companion[:r], noise[:r, :r] = np.hstack(list(found.transition)), found.innovation
    size = (p * r) ** 2
    variance = np.linalg.solve(np.eye(size) - np.kron(companion, companion), noise.ravel())
    variance = variance.reshape(p * r, p * r)[:r, :r]
    gram = found.loadings.T @ (found.loadings / found.idiosyncratic_variance[:, None])
    diagonal = np.diag(gram)
    largest = found.loadings[np.abs(found.loadings).argmax(axis=0), np.arange(r)]
    return {
        "factors have unit variance": np.abs(variance - np.eye(r)).max(),
        "information diagonal": np.abs(gram - np.diag(diagonal)).max() / diagonal.max(),
        "information descending": max(0.0, np.diff(diagonal).max() / diagonal.max()),
        "largest loading positive": max(0.0, -largest.min()),
    }


# ------------------------------------------------------------------------ the list

NO_FACTORS = {3: "has no latent factors, so nothing to rotate"}

PCA_FORECASTERS = {
    "expanding mean": ExpandingMeanFactorForecaster,
    "EWMA": lambda: EWMAFactorForecaster(half_life=24),
    "rolling mean": lambda: RollingMeanFactorForecaster(window=24),
    "AR(1)": AR1FactorForecaster,
    "VAR(2)": lambda: VARFactorForecaster(lags=2, ridge=0.1),
}

RP_PCA_CONFIGS = {
    "plain": RPPCAConfig(n_factors=2, tolerance=1e-12),
    "scaled": RPPCAConfig(n_factors=2, tolerance=1e-12, scale_by_volatility=True),
    "gamma -1": RPPCAConfig(n_factors=2, tolerance=1e-12, gamma=-1.0),
}

TARGETS = ("A05", "A10")
PTFA_CONFIGS = {
    "lead 1": PTFAConfig(n_factors=2, targets=TARGETS, lead=1, tolerance=1e-11),
    "lead 1, moving variances": PTFAConfig(
        n_factors=2, targets=TARGETS, lead=1, tolerance=1e-11, volatility=EWMA(0.94, 0.97)
    ),
    "lead 2, imposed weight, bootstrap": PTFAConfig(
        n_factors=2,
        targets=TARGETS,
        lead=2,
        tolerance=1e-11,
        target_weight=1.5,
        parameter_uncertainty=Bootstrap(3),
    ),
    "dynamics": PTFAConfig(n_factors=2, targets=TARGETS, dynamics=VAR(1), tolerance=1e-9),
    "dynamics, lead 2, imposed weight, bootstrap": PTFAConfig(
        n_factors=2,
        targets=TARGETS,
        lead=2,
        dynamics=VAR(1),
        target_weight=1.5,
        parameter_uncertainty=Bootstrap(n_draws=3, seed=2),
        tolerance=1e-9,
    ),
}

IPCA_CONFIGS = {
    "plain": IPCAConfig(n_factors=2),
    "with alpha": IPCAConfig(n_factors=2, alpha=True),
    "by period": IPCAConfig(n_factors=2, weighting="periods"),
}

# the exact process needs the prior and the ridge out of the way
NAMED_CASES = {
    "CFM": (CreditFactorModel(CreditFactorConfig(tolerance=1e-12)), None, gauge_declared),
    "CFM, static": (
        CreditFactorModel(CreditFactorConfig(attributes=("sector",), ridge=0.0, tolerance=1e-13)),
        exact_named,
        gauge_declared,
    ),
    "CFM, shrunken": (CreditFactorModel(CreditFactorConfig(shrinkage=5.0, tolerance=1e-12)), None, None),
    "CFM, to group means": (
        CreditFactorModel(CreditFactorConfig(shrinkage=5.0, shrink_to="group_mean", tolerance=1e-12)),
        None,
        gauge_declared,
    ),
    "CFM, BARRA": (
        CreditFactorModel(CreditFactorConfig(attributes=("sector",), shrinkage=math.inf)),
        exact_categories,
        categories_declared,
    ),
    "CFM, regression": (
        CreditFactorModel(
            CreditFactorConfig(attributes=("sector",), infer="regression", tolerance=1e-12, cold_start=False)
        ),
        None,
        gauge_declared,
    ),
    "GFM": (GraphFactorModel(GraphFactorConfig(tolerance=1e-20)), None, gauge_declared),
    "GFM, encoder": (
        GraphFactorModel(GraphFactorConfig(tolerance=1e-20, infer="encoder", cold_start=False)),
        None,
        gauge_declared,
    ),
}
TARGET = ("A01",)

CAE_CONFIGS = {
    "CAE0": CAEConfig(
        n_factors=2,
        architecture="CA0",
        l1_penalty=0.0,
        training=TrainingConfig(epochs=20, learning_rate=0.02, schedule="cosine", checkpoint_interval=10),
    ),
    "CAE2": CAEConfig(
        n_factors=2,
        architecture=(8, 4),
        training=TrainingConfig(
            epochs=20,
            learning_rate=0.01,
            schedule="cosine",
            validation=8,
            checkpoint_epochs=(10,),
            default_checkpoint="best",
            n_ensemble=2,
        ),
    ),
}

# as many steps, each with the rows it takes for sums of inputs to stand in for a pass over them: `input_sums`
CAE_CONFIGS["CAE2, batches of three"] = replace(
    CAE_CONFIGS["CAE2"], training=replace(CAE_CONFIGS["CAE2"].training, batch=3, epochs=60)
)

NEURIF_CONFIGS = {
    "NeurIF": NeurIFConfig(
        n_factors=2,
        width=8,
        n_heads=2,
        temporal_layers=1,
        induced_points=4,
        window=6,
        training=TrainingConfig(
            epochs=4,
            batch=8,
            validation=8,
            checkpoint_epochs=(2,),
            default_checkpoint="best",
            n_ensemble=2,
        ),
    ),
    "NeurIF, linear limit": NeurIFConfig(
        n_factors=2,
        factor_mode="realized",
        channel=None,
        spatial=None,
        residual_blocks=0,
        ridge=0.0,
        orthogonality=0.0,
        width=8,
        n_heads=2,
        instruments=10.0,
        # training starts at the least-squares answer: steps of Adam's full length would only leave it
        training=TrainingConfig(epochs=2, batch=8, learning_rate=1e-5),
    ),
}
CROSS_SECTION = "firms attend to all rows of their period, those without a value included"
# as many epochs as fit into one scan of 64 steps, so that pre-training and iterations are one program
D2FM_CONFIGS = {
    "linear decoder": D2FMConfig(
        n_factors=2,
        hidden_units=(8,),
        epochs_per_iteration=30,
        pretraining_epochs=60,
        max_iterations=3,
        n_draws=10,
    ),
    "symmetric decoder": D2FMConfig(
        n_factors=2,
        hidden_units=(6,),
        decoder="symmetric",
        epochs_per_iteration=30,
        pretraining_epochs=60,
        max_iterations=3,
        n_draws=10,
    ),
}
D2FM_CONFIGS["linear decoder, likelihood"] = replace(D2FM_CONFIGS["linear decoder"], likelihood_iterations=20)

GIVEN = ("mkt", "smb")
OBSERVED_CONFIGS = {
    "static": ObservedFactorConfig(factors=GIVEN, alpha=False),
    "static with alpha": ObservedFactorConfig(factors=GIVEN),
    "rolling": ObservedFactorConfig(factors=GIVEN, window=24),
    "weighted": ObservedFactorConfig(factors=GIVEN, half_life=12.0),
}

AUTOREGRESSIONS = {
    "one step": {},
    "direct, horizon 2": {"horizon": 2},
    "iterated": {"method": "iterated"},
    "iterated, fixed order": {"method": "iterated", "lags": 2},
}

CASES: list[Case] = [
    *(
        Case(
            name=f"PCA, {name}",
            make=pipeline(lambda: PCAModel(PCAConfig(n_factors=2, tolerance=1e-12)), forecaster),
            exact=exact_static,
            declared=components_declared,
        )
        for name, forecaster in PCA_FORECASTERS.items()
    ),
    Case(
        name="PCA demeaned with alpha",
        make=pipeline(
            lambda: PCAModel(PCAConfig(n_factors=2, demean=True, alpha=True, tolerance=1e-12)),
        ),
        exact=exact_static,
        declared=components_declared,
    ),
    Case(
        name="PCA probabilistic",
        make=pipeline(lambda: PCAModel(PCAConfig(n_factors=2, probabilistic=True, tolerance=1e-11))),
        exact=exact_static,
        # the noise variance has a floor of 1e-12 of the mean square, so exact data are fitted to 1e-6 of it
        exact_tolerance=1e-5,
        declared=orthonormal_declared,
    ),
    *(
        Case(
            name=f"RP-PCA, {name}",
            make=pipeline(lambda config=config: RPPCAModel(config)),
            exact=exact_static,
            declared=priced_declared,
        )
        for name, config in RP_PCA_CONFIGS.items()
    ),
    *(
        Case(
            name=f"IPCA, {name}",
            make=pipeline(lambda config=config: IPCAModel(config)),
            exact=exact_instrumented,
            declared=instrumented_declared,
            new_assets="forecast",
        )
        for name, config in IPCA_CONFIGS.items()
    ),
    *(
        Case(
            name=name,
            make=pipeline(model.clone),
            exact=exact,
            exact_tolerance=1e-9,
            declared=declared,
            new_assets="forecast" if model.config.cold_start else "nan",
            lifted={} if declared else {3: "between the two gauges the penalty itself picks the solution"},
        )
        for name, (model, exact, declared) in NAMED_CASES.items()
    ),
    *(
        Case(
            name=f"observed factors, {name}",
            make=pipeline(lambda config=config: ObservedFactorModel(config)),
            exact=exact_observed,
            declared=given_declared,
            new_assets="own_history" if config.window or config.half_life else "nan",
            factors_are_given=True,
        )
        for name, config in OBSERVED_CONFIGS.items()
    ),
    *(
        Case(
            name=f"factor regression, {method}",
            make=pipeline(
                lambda method=method: FactorRegressionModel(
                    FactorRegressionConfig(
                        n_factors=2, targets=TARGET, lead=1, method=method, tolerance=1e-12
                    )
                ),
                NativeFactorForecaster,
                NativeMapper,
            ),
            # slopes over the cells each predictor has lie in no common space: the others are approximate
            exact=exact_static if method in ("pcr", "spca") else None,
            declared=regressed_declared,
            shifts=True,
            horizons=(1,),
            targets=TARGET,
        )
        for method in ("pcr", "pls", "spca", "three_pass")
    ),
    *(
        Case(
            name=name,
            make=pipeline(lambda config=config: CAEModel(config)),
            panel=conditional_panel,
            # ReLU units bend what is linear: a network with hidden layers comes near, not within a tolerance
            exact=exact_conditional if name == "CAE0" else None,
            exact_tolerance=1e-5,
            declared=whitened_declared,
            new_assets="forecast",
            tolerance=1e-4,
        )
        for name, config in CAE_CONFIGS.items()
    ),
    *(
        Case(
            name=name,
            make=pipeline(
                lambda config=config: NeurIFModel(config),
                NativeFactorForecaster if config.factor_mode == "amortized" else None,
            ),
            panel=conditional_panel,
            # the network moves loadings a little from where IPCA has them: no exact reconstruction with it
            exact=exact_conditional if config.spatial is None else None,
            exact_tolerance=1e-4,
            declared=whitened_declared,
            new_assets="forecast",
            horizons=(1,) if config.factor_mode == "amortized" else (1, 2),
            rows_matter=CROSS_SECTION if config.spatial else None,
            tolerance=1e-4,
        )
        for name, config in NEURIF_CONFIGS.items()
    ),
    *(
        Case(
            name=f"PTFA, {name}",
            make=pipeline(lambda config=config: PTFAModel(config), NativeFactorForecaster, NativeMapper),
            declared=targeted_declared,
            shifts=True,
            horizons=tuple(range(config.lead, 3)) if config.dynamics else (config.lead,),
            targets=TARGETS,
            # a state-space fit is compared at the tolerance of its iteration
            tolerance=1e-6 if config.dynamics else 1e-8,
        )
        for name, config in PTFA_CONFIGS.items()
    ),
    *(
        Case(
            name=f"DFM, {kind}",
            make=pipeline(
                lambda kind=kind: DynamicFactorModel(
                    DFMConfig(n_factors=2, idiosyncratic=kind, tolerance=1e-9, max_iterations=2000)
                ),
                NativeFactorForecaster,
                NativeMapper,
            ),
            exact=exact_mirrored,
            # idiosyncratic variances have a floor of 1e-6 of a series' own
            exact_tolerance=1e-3,
            declared=dynamic_declared,
            bits="the filter's window is as wide as the widest gap, so later gaps change the order of sums",
            shifts=True,
            horizons=(0, 1, 2),
        )
        for kind in ("iid", "ar1")
    ),
    Case(
        name="DFM, broken months",
        make=pipeline(
            lambda: DynamicFactorModel(
                DFMConfig(
                    n_factors=2,
                    idiosyncratic="ar1",
                    variance_break=VarianceBreak(periods=("2001-09", "2004-05")),
                    tolerance=1e-9,
                    max_iterations=2000,
                )
            ),
            NativeFactorForecaster,
            NativeMapper,
        ),
        # means are those of the other months: with both mirrored months broken they are the process's
        exact=lambda: exact_mirrored(broken=20),
        exact_tolerance=1e-5,
        declared=dynamic_declared,
        bits="the filter's window is as wide as the widest gap, so later gaps change the order of sums",
        shifts=True,
        horizons=(0, 1, 2),
    ),
    *(
        Case(
            name=f"D2FM, {name}",
            make=pipeline(lambda config=config: D2FMModel(config), NativeFactorForecaster, NativeMapper),
            # trained by gradient steps with noise: comes near, not within a tolerance
            declared=deep_declared,
            bits="the filter's window is as wide as the widest gap, so later gaps change the order of sums",
            shifts=True,
            # the unscented filter is run anew for every panel: two horizons say what three do
            horizons=(0, 1, 2) if config.decoder == "linear" else (0, 1),
            tolerance=1e-4,
        )
        for name, config in D2FM_CONFIGS.items()
    ),
    Case(
        name="nowcasts of a dynamic factor model",
        make=lambda: NowcastPredictor(
            DynamicFactorModel(
                DFMConfig(n_factors=2, idiosyncratic="ar1", tolerance=1e-9, max_iterations=2000)
            ),
            targets=TARGETS,
        ),
        targets=TARGETS,
        # hidden cells of noise-free values are the model's affair, whose pipelines stand above
        bits="the filter's window is as wide as the widest gap, so later gaps change the order of sums",
        shifts=True,
        horizons=(0, 2),
        lifted=NO_FACTORS,
    ),
    Case(
        name="static double",
        make=pipeline(StaticDouble),
        exact=lambda: exact_static(mean=0.1),
        declared=components_declared,
        shifts=True,
    ),
    Case(
        name="conditional double",
        make=pipeline(ConditionalDouble),
        exact=exact_characteristics,
        declared=characteristics_declared,
        new_assets="forecast",
    ),
    Case(
        name="state-space double, native",
        make=pipeline(StateSpaceDouble, NativeFactorForecaster, NativeMapper),
        exact=lambda: exact_static(mean=0.1),
        # the filter's prior weighs 1e-14 against the data
        exact_tolerance=1e-6,
        declared=orthonormal_declared,
        shifts=True,
        horizons=(0, 1, 2),
    ),
    Case(
        name="state-space double, AR(1)",
        make=pipeline(StateSpaceDouble, AR1FactorForecaster),
        exact=lambda: exact_static(mean=0.1),
        exact_tolerance=1e-6,
        declared=orthonormal_declared,
        shifts=True,
    ),
    Case(
        name="weight double",
        make=WeightDouble,
        new_assets="forecast",
        rows_matter="weights of a period share one gross exposure, so the row set is part of the answer",
        lifted={**NO_FACTORS, 6: "weights have no unit"},
    ),
    Case(
        name="zero",
        make=ZeroPredictor,
        new_assets="forecast",
        lifted=NO_FACTORS,
    ),
    Case(
        name="historical mean",
        make=HistoricalMeanPredictor,
        exact=exact_means,
        exact_output="forecast",
        new_assets="own_history",
        shifts=True,
        lifted=NO_FACTORS,
    ),
    *(
        Case(
            name=f"autoregression, {name}",
            make=lambda options=options: AutoregressivePredictor(max_lags=3, **options),
            # the rule asks for one-step forecasts
            exact=None if options.get("horizon") else exact_means,
            exact_output="forecast",
            new_assets="own_history",
            shifts=True,
            horizons=(2,) if options.get("horizon") else (1, 2) if options else (1,),
            lifted=NO_FACTORS,
        )
        for name, options in AUTOREGRESSIONS.items()
    ),
    Case(
        name="cross-sectional OLS",
        make=CrossSectionalOLSPredictor,
        exact=exact_constant_slopes,
        exact_output="forecast",
        new_assets="forecast",
        shifts=True,
        horizons=(1,),
        lifted=NO_FACTORS,
    ),
    Case(
        name="cross-sectional ridge",
        make=CrossSectionalRidgePredictor,
        new_assets="forecast",
        shifts=True,
        horizons=(1,),
        lifted=NO_FACTORS,
    ),
    Case(
        name="cross-sectional ridge, horizon 3",
        make=lambda: CrossSectionalRidgePredictor(horizon=3),
        new_assets="forecast",
        shifts=True,
        horizons=(3,),
        rows_matter="a hidden row three periods ahead is a hidden target",
        lifted=NO_FACTORS,
    ),
    Case(
        name="selected by validation",
        make=lambda: SelectedPredictor(
            {"mean": HistoricalMeanPredictor(), "AR": AutoregressivePredictor(lags=1)},
            SelectionConfig(validation=8, step=4),
        ),
        new_assets="own_history",
        shifts=True,
        horizons=(1,),
        lifted=NO_FACTORS,
    ),
    Case(
        name="neural network",
        make=lambda: NeuralNetworkPredictor(
            hidden=(4,), epochs=4, batch=64, n_ensemble=2, validation=0.2, learning_rate=0.01
        ),
        new_assets="forecast",
        shifts=True,
        horizons=(1,),
        lifted=NO_FACTORS,
    ),
    Case(
        name="gradient boosting",
        make=lambda: GradientBoostingPredictor(max_trees=5, min_rows=5, validation=0.2),
        new_assets="forecast",
        shifts=True,
        horizons=(1,),
        lifted={**NO_FACTORS, 9: "a foreign object cannot be saved without pickle; save is refused instead"},
    ),
    Case(
        name="scikit-learn regressor",
        make=lambda: RegressorPredictor(LinearRegression()),
        exact=exact_constant_slopes,
        exact_output="forecast",
        new_assets="forecast",
        shifts=True,
        horizons=(1,),
        lifted={**NO_FACTORS, 9: "a foreign object cannot be saved without pickle; save is refused instead"},
    ),
]


def case_named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def broken(name: str, make: Callable[[], Any], **changes: Any) -> Case:
    """A healthy case's twin around a predictor that breaks a rule on purpose."""
    return replace(case_named(name), make=make, **changes)
