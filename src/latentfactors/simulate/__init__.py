"""Data generating processes, seeded, with the truth returned beside the panel."""

from latentfactors.simulate.plain import SimulatedPanel, characteristic_panel, null_panel, static_panel

__all__ = ["SimulatedPanel", "characteristic_panel", "null_panel", "static_panel"]
