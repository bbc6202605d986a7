"""Every predictor keeps every rule, unless the list of cases says in words why not."""

from __future__ import annotations

import pytest

from latentfactors import AR1FactorForecaster
from latentfactors.errors import ConfigurationError
from tests.contracts import rules
from tests.contracts.cases import CASES
from tests.contracts.doubles import StateSpaceDouble
from tests.contracts.panels import N_TRAIN, contract_panel, disturb_future

RULES = {
    1: rules.no_look_ahead,
    2: rules.missing_is_missing,
    3: rules.identification,
    4: rules.scale_free,
    5: rules.order_free,
    6: rules.original_units,
    7: rules.determinism,
    8: rules.explicit_checkpoints,
    10: rules.purity,
}


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("number", RULES)
def test_rule(number, case):
    if number in case.lifted:
        assert len(case.lifted[number]) > 15, "a lifted rule needs a written reason"
        return
    RULES[number](case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule_9(case, tmp_path):
    if 9 in case.lifted:
        assert len(case.lifted[9]) > 15, "a lifted rule needs a written reason"
        return
    rules.exact_save_and_load(case, tmp_path)


def test_rules_are_lifted_rarely():
    lifted = sum(len(case.lifted) for case in CASES if not set(case.lifted) <= {3})
    assert lifted <= 6


def test_smoothing_knows_the_future_and_is_refused():
    panel, s = contract_panel(), 50
    model = StateSpaceDouble()
    model.fit(panel.between(0, N_TRAIN))
    smoothed, disturbed = model.smooth(panel), model.smooth(disturb_future(panel, s))
    assert not rules.close(disturbed.factor_returns[:s], smoothed.factor_returns[:s], 1e-6)
    assert rules.same_bytes(
        model.extract(disturb_future(panel, s)).factor_returns[:s], model.extract(panel).factor_returns[:s]
    )
    forecaster = AR1FactorForecaster()
    with pytest.raises(ConfigurationError, match="smoothed"):
        forecaster.fit(smoothed)
