"""Data generating processes, seeded, with the truth returned beside the panel."""

from latentfactors.simulate.conditional import ConditionalTruth, conditional_panel
from latentfactors.simulate.credit import CreditTruth, credit_panel
from latentfactors.simulate.dynamic_factors import (
    SimulatedDynamicPanel,
    dynamic_factor_panel,
    nonlinear_features,
    trace_r_squareds,
)
from latentfactors.simulate.instrumented import InstrumentedTruth, instrumented_panel
from latentfactors.simulate.plain import SimulatedPanel, characteristic_panel, null_panel, static_panel
from latentfactors.simulate.ptfa import SimulatedTargets, targeted_panel

__all__ = [
    "CreditTruth",
    "SimulatedPanel",
    "characteristic_panel",
    "credit_panel",
    "null_panel",
    "static_panel",
    "SimulatedDynamicPanel",
    "SimulatedTargets",
    "dynamic_factor_panel",
    "nonlinear_features",
    "targeted_panel",
    "trace_r_squareds",
    "ConditionalTruth",
    "conditional_panel",
    "InstrumentedTruth",
    "instrumented_panel",
]
