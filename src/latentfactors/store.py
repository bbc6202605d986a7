"""One save and load for all that can be fitted: a JSON manifest, an npz of arrays, checksums; no pickle.

    directory/
      manifest.json           format, model card, structure, checksum of itself and of the arrays
      arrays-<digest>.npz     every array, plain dtypes only

The manifest is replaced last and names its arrays by their digest, so a reader sees the old artifact or the
new one, never a mixture. Objects are rebuilt by their own constructors: frozen dataclasses and estimators.
The checksums find damage and careless edits: a file with any byte changed is refused, also where it would
read alike. They are no signature, so load artifacts from people you trust.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from latentfactors._version import __version__
from latentfactors.errors import StoreError
from latentfactors.frames import claim_manifest, write_atomically
from latentfactors.rows import read_only

__all__ = ["Storable", "class_path", "fingerprint", "load_object", "read_card", "save_object"]

_FORMAT, _FORMAT_VERSION = "latentfactors-artifact", 1
_ARRAY_KINDS = "biufMU"


@runtime_checkable
class Storable(Protocol):
    """An object that saves as a mapping and comes back from it."""

    def _to_store(self) -> dict[str, Any]: ...

    @classmethod
    def _from_store(cls, content: Mapping[str, Any]) -> Any: ...


def class_path(cls: type) -> str:
    """`module:name`, the way classes are written in manifests."""
    return f"{cls.__module__}:{cls.__qualname__}"


def save_object(directory: str | Path, item: Any, card: Mapping[str, Any]) -> Path:
    """Write one artifact.

    Parameters
    ----------
    directory
        Created if need be; other files in it are left alone.
    item
        An estimator, a pipeline (whatever is `Storable`), or a frozen dataclass of arrays and plain values.
    card
        What a reader of the manifest should know: config, data span, units, preparation.

    Returns
    -------
    Path
        The directory.

    Raises
    ------
    StoreError
        Something that has no plain representation, or a directory whose manifest belongs to something else.
    """
    folder = Path(directory)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    content = _encode(item, arrays)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)  # type: ignore[arg-type]
    payload = buffer.getvalue()
    digest = hashlib.sha256(payload).hexdigest()
    name = f"arrays-{digest[:16]}.npz"
    document = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "versions": _versions(),
        "card": _plain(card),
        "content": content,
        "arrays": {"file": name, "sha256": digest},
    }
    document["checksum"] = _checksum(document)
    claim_manifest(folder, _FORMAT)
    former = _former_arrays(folder)
    write_atomically(folder / name, payload)
    write_atomically(folder / "manifest.json", _manifest_bytes(document))
    if former is not None and former != name:
        (folder / former).unlink(missing_ok=True)
    return folder


def load_object(directory: str | Path, expected: type | None = None) -> Any:
    """Read one artifact back, exactly.

    Raises
    ------
    StoreError
        Missing, damaged, tampered or foreign files, or another class than `expected`.
    """
    folder = Path(directory)
    document = _read_manifest(folder)
    payload_path = folder / str(document["arrays"]["file"])
    if payload_path.parent != folder or not payload_path.is_file():
        raise StoreError(f"{str(folder)!r} lacks its arrays file {document['arrays']['file']!r}")
    payload = payload_path.read_bytes()
    if hashlib.sha256(payload).hexdigest() != document["arrays"]["sha256"]:
        raise StoreError(
            f"{str(payload_path)!r} does not match its checksum: the file was changed or damaged"
        )
    try:
        with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise StoreError(f"{str(payload_path)!r} cannot be read: {error}") from error
    try:
        item = _decode(document["content"], arrays)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise StoreError(
            f"{str(folder)!r}, written by version {document['versions'].get('latentfactors')}, "
            f"does not fit this version ({__version__}): {error}"
        ) from error
    if expected is not None and not isinstance(item, expected):
        raise StoreError(f"{str(folder)!r} holds a {type(item).__name__}, expected a {expected.__name__}")
    return item


def read_card(directory: str | Path) -> dict[str, Any]:
    """The model card of an artifact: its manifest without the stored content."""
    document = _read_manifest(Path(directory))
    return {"versions": document["versions"], **document["card"]}


def fingerprint(item: Any) -> str:
    """A digest of anything that can be stored: equal contents, equal text."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    digest = hashlib.sha256(json.dumps(_encode(item, arrays), sort_keys=True).encode())
    for array in arrays.values():
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        raise StoreError(f"no artifact at {str(folder)!r}: manifest.json is missing")
    content = path.read_bytes()
    try:
        document = json.loads(content)
        # Two spellings of a number or of a space read alike: the bytes themselves have to be those written.
        as_written = _manifest_bytes(document) == content
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{str(path)!r} is not a manifest: {error}") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise StoreError(f"{str(path)!r} was not written by latentfactors")
    if document.get("format_version") != _FORMAT_VERSION:
        raise StoreError(
            f"{str(path)!r} has format {document.get('format_version')}, this version reads {_FORMAT_VERSION}"
        )
    if document.pop("checksum", None) != _checksum(document) or not as_written:
        raise StoreError(f"{str(path)!r} does not match its checksum: the file was changed or damaged")
    if not all(isinstance(document.get(part), dict) for part in ("arrays", "card", "versions")) or not (
        {"file", "sha256"} <= document["arrays"].keys() and "content" in document
    ):
        raise StoreError(f"{str(path)!r} lacks some of its parts")
    return document


def _former_arrays(folder: Path) -> str | None:
    """The arrays file that the present manifest names, to be removed once the new one stands."""
    try:
        return str(_read_manifest(folder)["arrays"]["file"])
    except StoreError:
        return None


def _manifest_bytes(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()


def _checksum(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str]:
    import scipy

    python = ".".join(map(str, sys.version_info[:3]))
    return {
        "latentfactors": __version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": python,
    }


def _plain(card: Mapping[str, Any]) -> dict[str, Any]:
    """A card for people: everything that JSON lacks, NaN included, becomes text."""
    return json.loads(json.dumps(card, default=str), parse_constant=str)


def _encode(item: Any, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    if isinstance(item, np.ndarray):
        if item.dtype.kind not in _ARRAY_KINDS:
            raise StoreError(f"arrays of {item.dtype} are not stored")
        name = f"a{len(arrays)}"
        arrays[name] = item
        return {"$array": name}
    if isinstance(item, np.datetime64):
        return {"$date": [str(item), np.datetime_data(item.dtype)[0]]}
    if isinstance(item, np.generic):
        item = item.item()
    # Exact types only: an enumeration or a named tuple would come back as something else.
    if item is None or type(item) in (bool, int, str):
        return item
    if type(item) is float:
        return item if np.isfinite(item) else {"$float": repr(item)}
    if type(item) in (tuple, list):
        return {"$tuple" if isinstance(item, tuple) else "$list": [_encode(each, arrays) for each in item]}
    if isinstance(item, Mapping):
        return {"$map": [[_encode(key, arrays), _encode(value, arrays)] for key, value in item.items()]}
    if _is_frozen(type(item)):
        stored = {each.name: _encode(getattr(item, each.name), arrays) for each in fields(item) if each.init}
        return {"$record": _findable_path(type(item)), "fields": stored}
    if isinstance(item, Storable):
        return {"$object": _findable_path(type(item)), "content": _encode(item._to_store(), arrays)}
    raise StoreError(f"a {type(item).__name__} has no plain representation and cannot be saved")


def _decode(item: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    if not isinstance(item, dict):
        return item
    match item:
        case {"$array": name}:
            return read_only(arrays[name])
        case {"$date": [text, unit]}:
            return np.datetime64(text, unit)
        case {"$float": text}:
            return float(text)
        case {"$tuple": items}:
            return tuple(_decode(each, arrays) for each in items)
        case {"$list": items}:
            return [_decode(each, arrays) for each in items]
        case {"$map": pairs}:
            return {_decode(key, arrays): _decode(value, arrays) for key, value in pairs}
        case {"$record": path, "fields": stored}:
            cls = _resolve(path)
            if not _is_frozen(cls):
                raise StoreError(f"manifest names {path!r}, which is not a frozen dataclass")
            return cls(**{name: _decode(value, arrays) for name, value in stored.items()})
        case {"$object": path, "content": content}:
            cls = _resolve(path)
            if not hasattr(cls, "_from_store"):
                raise StoreError(f"manifest names {path!r}, which cannot be loaded")
            return cls._from_store(_decode(content, arrays))
    raise StoreError(f"manifest holds an unknown element: {sorted(item)}")


def _is_frozen(cls: Any) -> bool:
    return is_dataclass(cls) and cls.__dataclass_params__.frozen  # type: ignore[attr-defined]


def _findable_path(cls: type) -> str:
    """The path of a class, checked when saving: what `load_object` could not find is refused at once."""
    path = class_path(cls)
    if _resolve(path) is not cls:
        raise StoreError(f"class {path!r} hides behind another of its name and cannot be saved")
    return path


def _resolve(path: str) -> Any:
    """A class by its path. Only this library's modules are imported; yours must have been imported by you."""
    module_name, _, qualname = path.partition(":")
    if module_name.split(".")[0] == __name__.split(".")[0]:
        try:
            importlib.import_module(module_name)
        except ImportError as error:
            raise StoreError(f"the artifact needs {module_name}: {error}") from error
    found: Any = sys.modules.get(module_name)
    if found is None:
        raise StoreError(f"the artifact needs class {path!r}: import {module_name} before loading")
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise StoreError(f"the artifact needs class {path!r}, which does not exist")
    return found
