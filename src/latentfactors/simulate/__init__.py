"""Data generating processes, seeded, with the truth returned beside the panel."""

from latentfactors.simulate.credit import CreditTruth, credit_panel
from latentfactors.simulate.plain import SimulatedPanel, characteristic_panel, null_panel, static_panel

__all__ = [
    "CreditTruth",
    "SimulatedPanel",
    "characteristic_panel",
    "credit_panel",
    "null_panel",
    "static_panel",
]
