"""Every rule catches predictors that were broken on purpose, and for the right reason."""

from __future__ import annotations

import warnings

import pytest

from tests.contracts import rules
from tests.contracts.broken import BREACHES, TwoCheckpoints, ZeroFillingPCA, of_pca, pca
from tests.contracts.cases import broken, pipeline
from tests.contracts.test_contracts import RULES


@pytest.mark.parametrize("breach", BREACHES, ids=str)
def test_a_broken_double_is_caught(breach, tmp_path):
    with warnings.catch_warnings(), pytest.raises(AssertionError, match=breach.words):
        check(breach.rule, breach.case, tmp_path)


def check(rule, case, folder):
    if rule == 9:
        rules.exact_save_and_load(case, folder)
    else:
        RULES[rule](case)


def test_every_rule_has_a_breach():
    assert {breach.rule for breach in BREACHES} == set(range(1, 11))


@pytest.mark.parametrize("number", [1, 4, 8])
def test_checkpoints_as_such_break_nothing(number):
    case = broken("PCA, expanding mean", pipeline(lambda: TwoCheckpoints(pca())))
    RULES[number](case)


def test_zero_filling_misses_hidden_cells_widely():
    """The size of the classical mistake, so that nobody takes it for rounding."""
    with pytest.raises(AssertionError, match=r"with 30% hidden are missed by [1-9]\.\de(-01|\+00)"):
        rules.reconstructs_hidden_cells(of_pca(ZeroFillingPCA))
