"""Data generating processes, seeded, with the truth returned beside the panel."""

from latentfactors.simulate.conditional import ConditionalTruth, conditional_panel
from latentfactors.simulate.plain import SimulatedPanel, characteristic_panel, null_panel, static_panel

__all__ = [
    "ConditionalTruth",
    "SimulatedPanel",
    "characteristic_panel",
    "conditional_panel",
    "null_panel",
    "static_panel",
]
