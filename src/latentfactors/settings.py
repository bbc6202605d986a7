"""Plain values, as TOML holds them, become arguments of a class or function, checked against its signature.

A registry maps the names that a user may write to `module:attribute` inside this library; nothing is imported
before it is named. Every refusal is a `ConfigurationError` of one line: the place, what was expected, what
came.
"""

from __future__ import annotations

import datetime
import importlib
import inspect
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from latentfactors.errors import ConfigurationError, LatentFactorsError

__all__ = [
    "as_table",
    "checked",
    "choose",
    "from_toml",
    "make",
    "named",
    "refuse_unknown",
    "selected",
    "shown",
]

JobT = TypeVar("JobT")


def selected(
    registry: Mapping[str, str], entry: Any, key: str, where: str
) -> tuple[Any, dict[str, Any], str]:
    """What `"name"` or `{key = "name", option = ...}` stands for, its options, and the place in words."""
    options = {key: entry} if isinstance(entry, str) else as_table(entry, where)
    name = options.pop(key, None)
    return choose(registry, name, f"{where} {key}"), options, f"{where} ({name})"


def choose(registry: Mapping[str, str], name: Any, where: str) -> Any:
    """The class or function that a name stands for, imported now."""
    if not isinstance(name, str) or name not in registry:
        raise ConfigurationError(f"{where} must be one of {', '.join(registry)}, got {shown(name)}")
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(f"latentfactors.{module}"), attribute)


def make(build: Callable[..., Any], options: Mapping[str, Any], where: str) -> Any:
    """Call `build` with options that its signature has accepted.

    >>> from latentfactors.forecasters import EWMAFactorForecaster
    >>> make(EWMAFactorForecaster, {"half_life": 24}, "forecaster").config.half_life
    24.0
    >>> make(EWMAFactorForecaster, {"half_life": "24"}, "forecaster")
    Traceback (most recent call last):
    latentfactors.errors.ConfigurationError: forecaster half_life must be a number, got '24'
    """
    arguments = checked(build, options, where)
    with named(where):
        return build(**arguments)


def checked(
    build: Callable[..., Any], options: Mapping[str, Any], where: str, skip: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Options as arguments of `build`: names, presence and types are those of its signature, less `skip`."""
    signature = inspect.signature(build, eval_str=True).parameters
    parameters = {name: each for name, each in signature.items() if name not in skip}
    refuse_unknown(options, tuple(parameters), where)
    arguments = {}
    for name, parameter in parameters.items():
        if name in options:
            arguments[name] = _converted(options[name], parameter.annotation, f"{where} {name}")
        elif parameter.default is parameter.empty:
            raise ConfigurationError(f"{where}: {name} is missing, expected {_words(parameter.annotation)}")
    return arguments


def as_table(value: Any, where: str) -> dict[str, Any]:
    """A copy of a TOML table."""
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where} must be a table, got {shown(value)}")
    return dict(value)


def refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], where: str, what: str = "key") -> None:
    """Refuse the first key that is not known: a misspelt option must not be ignored."""
    for key in table:
        if key not in known:
            raise ConfigurationError(
                f"{where}: unknown {what} {key!r}, expected {', '.join(known) if known else 'none'}"
            )


def shown(value: Any) -> str:
    """What came, in at most 60 characters."""
    if isinstance(value, dict):
        return "a table"
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextmanager
def named(where: str) -> Iterator[None]:
    """Errors of the library that are raised inside say where they belong."""
    try:
        yield
    except LatentFactorsError as error:
        raise type(error)(f"{where}: {error}") from error


def _converted(value: Any, hint: Any, where: str) -> Any:
    """A value as the annotation wants it; true is no number, and nothing is parsed from text."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        # No null in TOML: an option that may be None is left out.
        kinds = [each for each in arguments if each is not NoneType]
        if len(kinds) == 1:
            return _converted(value, kinds[0], where)
        for each in kinds:
            try:
                return _converted(value, each, where)
            except ConfigurationError:
                continue
    elif origin is Literal:
        if type(value) is not bool and value in arguments:
            return value
    elif origin in (tuple, Sequence):
        if isinstance(value, list):
            return _list(value, hint, where)
    elif is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, dict):
            return make(hint, value, where)
    elif hint is Any:  # a period: its number or its date
        if isinstance(value, datetime.date):
            return value.isoformat()[:10]
        if type(value) in (int, str):
            return value
    elif hint is float and type(value) in (int, float):
        return float(value)
    elif type(value) is hint:
        return value
    raise ConfigurationError(f"{where} must be {_words(hint)}, got {shown(value)}")


def _list(items: list[Any], hint: Any, where: str) -> tuple[Any, ...]:
    kinds = get_args(hint)
    if get_origin(hint) is not tuple or kinds[-1] is ...:
        kinds = kinds[:1] * len(items)
    try:
        return tuple(_converted(item, kind, where) for item, kind in zip(items, kinds, strict=True))
    except ValueError:  # of another length, or an item of another kind: the message speaks of the whole list
        raise ConfigurationError(f"{where} must be {_words(hint)}, got {shown(items)}") from None


def _words(hint: Any) -> str:
    """An annotation in the words of somebody who writes TOML."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_words(each) for each in arguments if each is not NoneType)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is tuple and arguments[-1] is not ...:
        return f"a list of {len(arguments)}, each {_words(arguments[0])}"
    if origin in (tuple, Sequence):
        return f"a list, each {_words(arguments[0])}"
    if is_dataclass(hint):
        return "a table"
    plain = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return plain.get(hint, "a whole number or a date")


def from_toml(path: str | Path, parse: Callable[[Mapping[str, Any], Path], JobT]) -> JobT:
    """What `parse` makes of a TOML file and its folder.

    Raises
    ------
    ConfigurationError
        No such file, not TOML, or what `parse` refuses: one line that names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigurationError(f"no configuration file at {str(path)!r}")
    with named(str(path)):
        try:
            config = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigurationError(f"not valid TOML: {error}") from None
        return parse(config, path.parent)
