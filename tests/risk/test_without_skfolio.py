"""Without the extra, everything but the export works and the export says what to install."""

import sys

import pytest

from latentfactors import risk
from latentfactors.errors import MissingCapabilityError


def test_the_export_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "latentfactors.risk.skfolio", raising=False)
    monkeypatch.setitem(sys.modules, "skfolio", None)
    monkeypatch.setitem(sys.modules, "skfolio.prior", None)
    with pytest.raises(MissingCapabilityError, match=r"latentfactors\[portfolio\]"):
        _ = risk.skfolio_prior
    with pytest.raises(AttributeError, match="no attribute"):
        _ = risk.optimiser
