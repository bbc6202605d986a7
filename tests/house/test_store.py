"""What is saved comes back to the bit, or not at all."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import pytest

from latentfactors import store
from latentfactors.errors import NotFittedError, StoreError
from latentfactors.estimator import Checkpoints, Estimator, freeze
from latentfactors.panel import Panel
from latentfactors.rows import Attribute
from latentfactors.state import FitSummary
from latentfactors.store import fingerprint, load_object, read_card, save_object


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    n_factors: int = 2
    shrinkage: float = 0.1
    nested: Any = None


@dataclass(frozen=True, eq=False, kw_only=True)
class ToyEstimates:
    loadings: np.ndarray
    labels: np.ndarray
    derived: float = field(init=False, default=0.0)

    def __post_init__(self):
        object.__setattr__(self, "derived", float(self.loadings.sum()))
        freeze(self)


class ToyModel(Estimator[ToyConfig, ToyEstimates]):
    def fit(self, panel):
        return self._fit_panel(panel, self._estimate)

    def _estimate(self, panel):
        rng = np.random.default_rng(0)
        found = {
            epoch: ToyEstimates(loadings=rng.normal(size=(panel.n_assets, 2)), labels=panel.assets)
            for epoch in (1, 2)
        }
        summary = FitSummary(converged=True, reason="done", n_iterations=2, metrics={"r2": float("nan")})
        return Checkpoints(found, best=1), summary


class Plain:
    """Storable without being an estimator."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def _to_store(self) -> dict[str, Any]:
        return {"content": self.content}

    @classmethod
    def _from_store(cls, content: Mapping[str, Any]) -> Plain:
        return cls(content["content"])


@dataclass
class Thawed:
    x: int = 1


class Colour(IntEnum):
    RED = 1


class Pair(NamedTuple):
    a: int
    b: int


def panel():
    return Panel.from_wide(
        np.random.default_rng(0).normal(size=(6, 3)), universe="all", assets=["A", "B", "C"],
        times=[f"2020-0{m}" for m in range(1, 7)], frequency="M",
    )  # fmt: skip


def fitted():
    model = ToyModel(ToyConfig(shrinkage=1 / 3))
    model.fit(panel())
    return model


def same(a, b):
    """Equal to the bit, types included."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()
    elif isinstance(a, tuple | list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, Mapping):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, float):
        assert np.float64(a).tobytes() == np.float64(b).tobytes()
    elif isinstance(a, np.datetime64):
        assert (str(a), a.dtype) == (str(b), b.dtype)
    else:
        assert a == b


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# ------------------------------------------------------------------------------------ exactness

VALUES = {
    "plain": [None, True, 0, -(10**30), 0.1, 1e-320, "text \u20ac \U0001f600 \n", ""],
    "unusual floats": (float("nan"), float("inf"), -float("inf"), -0.0),
    "keys": {1: "one", "1": "text", (1, "a"): [1, (2,)], None: {}, 2.5: ()},
    "dates": [np.datetime64("2020-01-31"), np.datetime64("2020-01-31T01", "ns"), np.datetime64("NaT", "D")],
    "arrays": [
        np.arange(6.0).reshape(2, 3).T, np.float32([np.nan, -0.0]), np.array([], dtype=np.int8), np.array(7),
        np.array(["a", "longer"]), np.array(["2020-01-31", "NaT"], dtype="datetime64[D]"),
        np.array([True, False]), np.arange(3, dtype=">i4"), np.array([1 + 2j])[:0].real,
    ],
    "looks like a marker": {"$array": "a0", "$record": "x:y"},
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back_to_the_bit(tmp_path, name):
    save_object(tmp_path, Plain(VALUES[name]), {})
    back = load_object(tmp_path, Plain).content
    same(back, VALUES[name])
    assert not any(isinstance(item, np.ndarray) and item.flags.writeable for item in back)


def test_an_estimator_comes_back_whole(tmp_path):
    model = fitted()
    assert model.save(tmp_path / "toy") == tmp_path / "toy"
    back = ToyModel.load(tmp_path / "toy")
    assert back.config == model.config
    assert back.identity == model.identity
    assert back.summary.reason == "done"
    assert np.isnan(back.summary.metrics["r2"])
    assert back.fitted.span == model.fitted.span
    assert back.available_checkpoints == (1, 2)
    for label in (1, 2, "best", "last"):
        ours, theirs = model.estimates_at(label)[1], back.estimates_at(label)[1]
        same(theirs.loadings, ours.loadings)
        same(theirs.labels, ours.labels)
        assert theirs.derived == ours.derived
        assert not theirs.loadings.flags.writeable
    assert fingerprint(back) == fingerprint(model)
    unfitted = ToyModel(ToyConfig())
    save_object(tmp_path / "unfitted", unfitted, {})
    with pytest.raises(NotFittedError):
        _ = ToyModel.load(tmp_path / "unfitted").estimates
    with pytest.raises(NotFittedError):
        unfitted.save(tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_a_panel_comes_back_with_its_fingerprint(tmp_path):
    sector = {"sector": Attribute([0, 1, -1], ("x", "y"))}
    whole = replace(panel().with_values(np.arange(18.0)), attributes=sector)
    save_object(tmp_path, whole, {})
    assert load_object(tmp_path, Panel).digests() == whole.digests()


def test_the_card_is_for_people(tmp_path):
    fitted().save(tmp_path)
    card = read_card(tmp_path)
    assert card["training_span"] == ["2020-01-31", "2020-06-30"]
    assert card["value_kind"] == "excess_return"
    assert card["metrics"] == {"r2": "NaN"}
    assert "ToyConfig" in card["config"]
    assert {"latentfactors", "numpy", "python"} <= card["versions"].keys()
    json.loads((tmp_path / "manifest.json").read_text(), parse_constant=pytest.fail)  # strict JSON


def test_equal_contents_have_equal_fingerprints_and_files(tmp_path):
    assert fingerprint(ToyConfig(nested=np.arange(3))) == fingerprint(ToyConfig(nested=np.arange(3)))
    variants = [
        ToyConfig(), ToyConfig(n_factors=3), ToyConfig(nested=(1,)), ToyConfig(nested=[1]),
        ToyConfig(nested=1), ToyConfig(nested=1.0), ToyConfig(nested="1"), ToyConfig(nested=True),
        ToyConfig(nested=np.arange(3)), ToyConfig(nested=np.arange(3.0)),
        ToyConfig(nested=np.arange(3).reshape(3, 1)), Plain(1),
    ]  # fmt: skip
    assert len({fingerprint(each) for each in variants}) == len(variants)
    for name in ("one", "two"):
        fitted_once = fitted()
        object.__setattr__(fitted_once.summary, "seconds", 0.0)
        save_object(tmp_path / name, fitted_once, {})
    assert files(tmp_path / "one") == files(tmp_path / "two")


# ------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "content",
    [
        object(), lambda: 1, {1, 2}, Thawed(), Colour.RED, Pair(1, 2), 1j, np.array([object()], dtype=object),
        np.array([1j]), np.zeros(2, dtype=[("a", int)]), np.timedelta64(1, "D"), type, b"bytes", Thawed,
    ],
    ids=lambda content: type(content).__name__,
)  # fmt: skip
def test_what_would_not_come_back_is_refused_and_writes_nothing(tmp_path, content):
    with pytest.raises(StoreError):
        save_object(tmp_path / "new", Plain([content]), {})
    assert not (tmp_path / "new").exists()


def test_a_class_that_could_not_be_found_again_is_refused(tmp_path):
    @dataclass(frozen=True)
    class Local:
        x: int = 1

    with pytest.raises(StoreError, match="Local"):
        save_object(tmp_path / "new", Plain(Local()), {})


def test_every_changed_byte_of_the_manifest_is_noticed(tmp_path):
    save_object(tmp_path, Plain([1, 0.1 + 0.2, np.arange(3.0)]), {"units": "decimal"})
    path = tmp_path / "manifest.json"
    original = path.read_bytes()
    for position in range(len(original)):
        for bit in (1, 4):
            changed = bytearray(original)
            changed[position] ^= bit
            path.write_bytes(changed)
            with pytest.raises(StoreError):
                load_object(tmp_path)
    # the same numbers and words, written in another way
    assert b"0.30000000000000004" in original
    assert float("0.30000000000000005") == 0.1 + 0.2
    respelled = original.replace(b"0.30000000000000004", b"0.30000000000000005")
    for alike in (
        respelled,
        original + b" ",
        original.replace(b"\n", b"\r\n"),
        original.replace(b" ", b"", 1),
    ):
        assert json.loads(alike) == json.loads(original)
        path.write_bytes(alike)
        with pytest.raises(StoreError, match="does not match its checksum"):
            load_object(tmp_path)
    document = json.loads(original)
    document["card"]["units"] = "percent"
    path.write_text(json.dumps(document))
    with pytest.raises(StoreError, match="does not match its checksum"):
        read_card(tmp_path)
    path.write_bytes(original)
    assert read_card(tmp_path)["units"] == "decimal"


def test_changed_arrays_are_noticed(tmp_path):
    save_object(tmp_path, Plain(np.arange(100.0)), {})
    (path,) = tmp_path.glob("arrays-*.npz")
    original = path.read_bytes()
    for changed in (original[:-5], original[:200] + b"\x01" + original[201:], b"", original + b"\0"):
        path.write_bytes(changed)
        with pytest.raises(StoreError, match="does not match its checksum"):
            load_object(tmp_path)
    path.unlink()
    with pytest.raises(StoreError, match="lacks its arrays file"):
        load_object(tmp_path)


def forge(folder, change, payload=None):
    """A manifest with valid checksums and a changed content: what a careful forger would write."""
    path = folder / "manifest.json"
    document = json.loads(path.read_bytes())
    if payload is not None:
        (folder / document["arrays"]["file"]).write_bytes(payload)
        document["arrays"]["sha256"] = store.hashlib.sha256(payload).hexdigest()
    change(document)
    document.pop("checksum")
    document["checksum"] = store._checksum(document)
    path.write_bytes(store._manifest_bytes(document))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d.update(format="something"), "not written by latentfactors"),
        (lambda d: d.update(format_version=99), "has format 99"),
        (lambda d: d.pop("arrays"), "lacks some"),
        (lambda d: d.update(card=3), "lacks some"),
        (lambda d: d["arrays"].pop("file"), "lacks some"),
        (lambda d: d["arrays"].update(file="../secret.npz"), "lacks its arrays file"),
        (lambda d: d["arrays"].update(file="/etc/hostname"), "lacks its arrays file"),
        (lambda d: d["content"].update({"$object": "os:system"}), "does not exist"),
        (lambda d: d["content"].update({"$object": "subprocess:Popen"}), "cannot be loaded"),
        (lambda d: d["content"].update({"$object": "a_module_nobody_has:Thing"}), "import a_module"),
        (lambda d: d["content"].update({"$object": "latentfactors.no:X"}), "needs latentfactors"),
        (lambda d: d.update(content={"$record": "subprocess:Popen", "fields": {}}), "not a frozen"),
        (lambda d: d.update(content={"$record": "latentfactors.state:FitSpan", "fields": {}}), "not fit"),
        (lambda d: d.update(content={"$array": "a99"}), "does not fit"),
        (lambda d: d.update(content={"$date": ["never", "D"]}), "does not fit"),
        (lambda d: d.update(content={"$code": "1"}), "unknown element"),
    ],
)  # fmt: skip
def test_forged_manifests_are_refused_without_running_anything(tmp_path, change, match):
    save_object(tmp_path, Plain(np.arange(3.0)), {})
    forge(tmp_path, change)
    with pytest.raises(StoreError, match=match):
        load_object(tmp_path)


class Bomb:
    def __reduce__(self):
        return (os._exit, (3,))


def test_pickles_are_never_read_nor_written(tmp_path):
    save_object(tmp_path, Plain(np.arange(3.0)), {})
    (path,) = tmp_path.glob("arrays-*.npz")
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            header = archive.read(name)[:128]
            assert header.startswith(b"\x93NUMPY")
            assert b"|O" not in header
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        member = io.BytesIO()
        np.save(member, np.array([Bomb()], dtype=object), allow_pickle=True)
        archive.writestr("a0.npy", member.getvalue())
    for payload in (buffer.getvalue(), pickle.dumps(Bomb()), b"no archive"):
        forge(tmp_path, lambda document: None, payload)
        with pytest.raises(StoreError, match=r"cannot be read|does not fit"):
            load_object(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "no json", '{"format": "other"}', "null", "\udce4"])
def test_foreign_files_are_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(StoreError, match="manifest"):
        load_object(tmp_path)
    with pytest.raises(StoreError, match="no artifact"):
        load_object(tmp_path / "absent")


def test_another_class_than_expected_is_refused(tmp_path):
    save_object(tmp_path, Plain(1), {})
    with pytest.raises(StoreError, match="holds a Plain, expected a ToyModel"):
        ToyModel.load(tmp_path)


# ------------------------------------------------------------------------------------ crashes and neighbours


@pytest.mark.parametrize("crash_at", [0, 1, 2])
def test_a_crash_between_files_leaves_the_old_artifact_readable(tmp_path, monkeypatch, crash_at):
    save_object(tmp_path, Plain(np.zeros(3)), {})
    swap, calls = os.replace, []

    def crashing(source, target):
        calls.append(target)
        if len(calls) == crash_at + 1:
            raise KeyboardInterrupt
        swap(source, target)

    monkeypatch.setattr(os, "replace", crashing)
    if crash_at < 2:  # before the arrays, between arrays and manifest
        with pytest.raises(KeyboardInterrupt):
            save_object(tmp_path, Plain(np.ones(3)), {})
        assert load_object(tmp_path).content.tolist() == [0.0] * 3
    else:
        save_object(tmp_path, Plain(np.ones(3)), {})
        assert len(calls) == 2
        assert load_object(tmp_path).content.tolist() == [1.0] * 3
    assert not list(tmp_path.glob(".*.tmp"))


def test_saving_again_replaces_the_artifact_and_touches_nothing_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "arrays-of-mine.npz").write_bytes(b"mine")
    for content in (np.zeros(3), np.ones(3), np.ones(3)):
        save_object(tmp_path, Plain(content), {})
        same(load_object(tmp_path).content, content)
        assert len(list(tmp_path.iterdir())) == 4  # manifest, one arrays file, and the two
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "arrays-of-mine.npz").read_bytes() == b"mine"


def test_a_foreign_manifest_is_not_overwritten_but_a_damaged_one_of_ours_is(tmp_path):
    foreign = tmp_path / "site" / "manifest.json"
    foreign.parent.mkdir()
    foreign.write_text('{"name": "a web page"}')
    with pytest.raises(StoreError, match="belongs to something else"):
        save_object(foreign.parent, Plain(1), {})
    assert files(foreign.parent) == {"manifest.json": b'{"name": "a web page"}'}
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        save_object(tmp_path / "file", Plain(1), {})
    ours = save_object(tmp_path / "ours", Plain(1), {})
    for damaged in ((ours / "manifest.json").read_bytes()[:60], b""):
        (ours / "manifest.json").write_bytes(damaged)
        save_object(ours, Plain(2), {})
        assert load_object(ours).content == 2
