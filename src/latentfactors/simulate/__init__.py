"""Data generating processes, seeded, with the truth returned beside the panel."""

from latentfactors.simulate.dynamic_factors import (
    SimulatedDynamicPanel,
    dynamic_factor_panel,
    nonlinear_features,
    trace_r_squareds,
)
from latentfactors.simulate.plain import SimulatedPanel, characteristic_panel, null_panel, static_panel
from latentfactors.simulate.ptfa import SimulatedTargets, targeted_panel

__all__ = [
    "SimulatedDynamicPanel",
    "SimulatedPanel",
    "SimulatedTargets",
    "characteristic_panel",
    "dynamic_factor_panel",
    "nonlinear_features",
    "null_panel",
    "static_panel",
    "targeted_panel",
    "trace_r_squareds",
]
