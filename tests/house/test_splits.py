"""Which periods train and which are forecast."""

from __future__ import annotations

import numpy as np
import pytest

from latentfactors import ExpandingWindow, Panel, RollingWindow, VintageSplits
from latentfactors.errors import ConfigurationError, PanelError
from latentfactors.simulate import static_panel
from tests.house.small import Vintages

PANEL = static_panel(n_periods=30, n_assets=4, n_factors=1, seed=0).panel  # 1990-01 to 1992-06


def places(splits, panel=PANEL):
    return [(s.train_start, s.start, s.stop) for s in splits.split(panel)]


def test_expanding():
    assert places(ExpandingWindow(first=12, step=6)) == [(0, 12, 18), (0, 18, 24), (0, 24, 30)]
    assert places(ExpandingWindow(first=12, step=7)) == [
        (0, 12, 19),
        (0, 19, 26),
        (0, 26, 30),
    ]  # short last block
    assert places(ExpandingWindow(first=29, step=6)) == [(0, 29, 30)]
    assert places(ExpandingWindow(first=1, step=100)) == [(0, 1, 30)]


@pytest.mark.parametrize(
    "first", ["1991-01", "1991-01-31", "1991-01-15", np.datetime64("1991-01-31"), 12, np.int64(12)]
)
def test_first_by_date_or_count(first):
    assert places(ExpandingWindow(first=first, step=6))[0] == (0, 12, 18)
    assert places(RollingWindow(size=10, step=6, first=first))[0] == (2, 12, 18)


def test_rolling():
    assert places(RollingWindow(size=12, step=6)) == [(0, 12, 18), (6, 18, 24), (12, 24, 30)]
    assert places(RollingWindow(size=5, step=10, first=12)) == [(7, 12, 22), (17, 22, 30)]
    assert places(RollingWindow(size=12, step=6, first=14))[0] == (2, 14, 20)


@pytest.mark.parametrize("splits", [ExpandingWindow(first=10, step=7), RollingWindow(size=8, step=3)])
def test_blocks_tile_the_future(splits):
    planned = splits.split(PANEL)
    covered = np.concatenate([np.arange(s.start, s.stop) for s in planned])
    np.testing.assert_array_equal(covered, np.arange(planned[0].start, 30))
    for split in planned:
        training, test = split.panels(PANEL)
        assert training.times[-1] == PANEL.times[split.start - 1]  # training ends at the first origin
        assert test.times[0] == training.times[0] == PANEL.times[split.train_start]
        assert test.times[-1] == PANEL.times[split.stop - 1]
        assert np.shares_memory(training.values, PANEL.values)  # a view, no copy
        source, start, stop = split.block(PANEL)
        assert source is PANEL
        assert (start, stop) == (split.start, split.stop)


def test_descriptions_are_dates():
    split = RollingWindow(size=12, step=6).split(PANEL)[1]
    assert split.describe(PANEL) == "train 1990-07-31..1991-06-30, forecast 1991-07-31..1991-12-31"


def test_keys_depend_on_what_a_split_may_see():
    digests = PANEL.digests()
    first, second = ExpandingWindow(first=12, step=6).split(PANEL)[:2]
    later = PANEL.with_values(np.where(PANEL.index.period_codes >= 18, 1.0, PANEL.values)).digests()
    assert first.key(digests) == first.key(later)
    assert second.key(digests) != second.key(later)
    rolling = RollingWindow(size=10, step=6, first=12).split(PANEL)[0]
    validating = ExpandingWindow(first=12, step=6, validation=3).split(PANEL)[0]
    shorter = ExpandingWindow(first=12, step=5).split(PANEL)[0]
    assert len({split.key(digests) for split in (first, rolling, validating, shorter)}) == 4


@pytest.mark.parametrize("first", [0, 30, 31, -1, "1990-01"])
def test_first_must_leave_a_past_and_a_future(first):
    with pytest.raises(ConfigurationError, match=f"first={first} must leave at least one training"):
        ExpandingWindow(first=first, step=6).split(PANEL)


def test_first_outside_the_panel():
    with pytest.raises(PanelError, match="period 1999-01 is not in this panel, which covers 1990-01-31"):
        ExpandingWindow(first="1999-01", step=6).split(PANEL)


@pytest.mark.parametrize("step", [0, -1, 1.5, True, "6"])
def test_bad_steps(step):
    with pytest.raises(ConfigurationError, match="step must be a whole number >= 1"):
        ExpandingWindow(first=12, step=step)
    with pytest.raises(ConfigurationError, match="step must be"):
        RollingWindow(size=12, step=step)


@pytest.mark.parametrize("size", [0, 2.5, True])
def test_bad_sizes(size):
    with pytest.raises(ConfigurationError, match="size must be a whole number >= 1"):
        RollingWindow(size=size, step=6)


def test_rolling_needs_its_size_before_the_first_forecast():
    with pytest.raises(ConfigurationError, match="first=8 leaves 8 training periods, size is 12"):
        RollingWindow(size=12, step=6, first=8).split(PANEL)
    with pytest.raises(
        ConfigurationError, match="size=30 leaves nothing to forecast of the panel's 30 periods"
    ):
        RollingWindow(size=30, step=6).split(PANEL)


def test_validation_must_leave_something_to_train_on():
    for validation in (-1, 1.0):
        with pytest.raises(ConfigurationError, match="validation must be a whole number >= 0"):
            ExpandingWindow(first=12, step=6, validation=validation)
    with pytest.raises(ConfigurationError, match="validation=12 leaves nothing of 12 training periods"):
        ExpandingWindow(first=12, step=6, validation=12).split(PANEL)
    with pytest.raises(ConfigurationError, match="validation=12 leaves nothing of 12"):
        RollingWindow(size=12, step=6, validation=12)
    assert {s.validation for s in ExpandingWindow(first=12, step=6, validation=11).split(PANEL)} == {11}


def test_integer_periods_count():
    panel = Panel.from_arrays(np.ones((10, 2)))
    assert places(ExpandingWindow(first=6, step=3), panel) == [(0, 6, 9), (0, 9, 10)]


def test_vintages():
    source = Vintages(PANEL)
    splits = VintageSplits(source, ("1991-06", "1991-03")).split(PANEL)
    assert [split.as_of for split in splits] == ["1991-03", "1991-06"]
    training, test = splits[0].panels(PANEL)
    assert str(training.times[-1]) == "1991-03-31"
    assert np.isnan(training.period(-1).values).sum() == 2  # the ragged edge
    assert str(test.times[-1]) == "1991-04-30"
    assert np.isnan(test.period(-1).values).all()
    extended, start, stop = splits[0].block(PANEL)
    assert (start, stop, extended.n_periods) == (15, 16, 16)
    assert splits[0].describe(PANEL) == "vintage of 1991-03"
    assert splits[0].key([]) != splits[1].key([])
    revised = Vintages(PANEL.with_values(PANEL.values + 1.0))
    assert VintageSplits(revised, ("1991-03",)).split(PANEL)[0].key([]) != splits[0].key([])
    assert isinstance(VintageSplits(source, ["1991-03"]).dates, tuple)
    for bad in (("1991-03", source), (source, "1991-03")):
        with pytest.raises(ConfigurationError, match="expected a source with as_of"):
            VintageSplits(*bad)
