"""YAML into dataclasses: unknown keys are refused with the nearest valid name, and all types are checked."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one line and names the key."""


def arguments_of(callable_: Callable[..., Any], *, without: Sequence[str] = ()) -> dict[str, Any]:
    """Metadata for a ``dict`` field of keyword arguments: its keys and types are those of ``callable_``.

    Args:
        callable_: a function, or a class whose constructor's arguments are meant.
        without: arguments that the configuration must not set, because they follow from other values.
    """
    function = callable_.__init__ if inspect.isclass(callable_) else callable_
    hints = get_type_hints(function)
    names = [name for name in inspect.signature(function).parameters if name != "self" and name not in without]
    return {"arguments": {name: hints[name] for name in names}}


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, over that of the file which its key ``base`` names, relative to it.

    Raises:
        ConfigError: a file that can not be read, or bases that go round in a circle.
    """
    return _load_over_base(path, ())


def _load_over_base(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigError(f"{path}: is its own base, by way of {', '.join(file.name for file in seen)}")
    content = _load_mapping(path)
    base = content.pop("base", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base must be the path of a YAML file, not {base!r}")
    return merged(_load_over_base(path.parent / base, (*seen, path.resolve())), content)


def _load_mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold keys and values, but holds {type(content).__name__}")
    return content


def apply_overrides(content: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """``content`` with ``section.key=value`` applied; values are YAML, as in ``[1,2]`` or ``null``.

    Raises:
        ConfigError: an override that can not be read, or two of one key.
    """
    result = dict(content)
    given: dict[str, str] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"{override!r}: an override must read key=value or section.key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{override!r}: the value is not YAML; quote it") from error
        if key in given:
            raise ConfigError(
                f"{key}: is given twice, as {given[key]!r} and {text!r}; give one value, in quotes where the shell "
                "would expand it, as it does {0..9}"
            )
        given[key] = text
        *sections, name = key.split(".")
        target = result
        for section in sections:
            inner = target.get(section)
            if inner is not None and not isinstance(inner, Mapping):
                raise ConfigError(f"{override!r}: {section} is a value, not a section")
            target[section] = target = dict(inner or {})
        target[name] = value
    return result


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``, section by section."""
    result = dict(base)
    for name, value in changes.items():
        inner = base.get(name)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        result[name] = merged(inner, value) if both else value  # type: ignore[arg-type]
    return result


def to_plain(value: Any) -> Any:
    """A configuration as what YAML can write and `build` can read again."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: to_plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def build(cls: type[T], content: Mapping[str, Any], where: str = "") -> T:
    """The dataclass ``cls`` filled from ``content``, checked against its type hints throughout.

    Args:
        cls: a dataclass; fields with the metadata of `arguments_of` are checked against that.
        content: the values, nested as the dataclasses are.
        where: key of ``content`` itself, for messages.

    Raises:
        ConfigError: an unknown or missing key, or a value of the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    _refuse_unknown(content, fields, where)
    values = {}
    for name, field in fields.items():
        key = _join(where, name)
        if name in content:
            values[name] = _field_value(content[name], hints[name], field.metadata, key)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{key}: is missing and has no default; set it in the file or as {key}=VALUE")
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from error


def _field_value(value: Any, hint: Any, metadata: Mapping[str, Any], key: str) -> Any:
    arguments = metadata.get("arguments")
    if arguments is None:
        return _coerce(value, hint, key)
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}: must be a section of keys and values, not {value!r}")
    _refuse_unknown(value, arguments, key)
    return {name: _coerce(item, arguments[name], _join(key, name)) for name, item in value.items()}


def _refuse_unknown(content: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    for name in content:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
            hint = f"did you mean {_join(where, near[0])}?" if near else "it has no keys"
            raise ConfigError(f"{_join(where, str(name))}: no such key; {hint}")


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _coerce(value: Any, hint: Any, key: str) -> Any:
    """``value`` as the type ``hint`` asks, or ConfigError."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _coerce_union(value, get_args(hint), key)
    if origin is Literal:
        if value is False and "no" in get_args(hint):
            value = "no"  # as which YAML 1.1 reads it unless it is quoted
        if value not in get_args(hint):
            raise ConfigError(f"{key}: must be one of {', '.join(map(str, get_args(hint)))}, not {value!r}")
        return value
    if origin in (tuple, list, Sequence):
        return _coerce_sequence(value, hint, key)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key}: must be a section of keys and values, not {value!r}")
        return dict(value)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key}: must be a section of keys and values, not {value!r}")
        return build(hint, value, key)  # type: ignore[arg-type]
    return _coerce_scalar(value, hint, key)


def _coerce_union(value: Any, members: tuple[Any, ...], key: str) -> Any:
    if value is None and type(None) in members:
        return None
    errors = []
    for member in members:
        if member is not type(None):
            try:
                return _coerce(value, member, key)
            except ConfigError as error:
                errors.append(error)
    raise errors[0]


def _coerce_sequence(value: Any, hint: Any, key: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{key}: must be a list such as [1,2], not {value!r}")
    members = get_args(hint)
    if get_origin(hint) is tuple and members[-1] is not Ellipsis:
        if len(value) != len(members):
            raise ConfigError(f"{key}: must have {len(members)} entries, not {len(value)}")
    else:
        members = (members[0],) * len(value)
    return tuple(
        _coerce(item, member, f"{key}[{i}]") for i, (item, member) in enumerate(zip(value, members, strict=True))
    )


def _coerce_scalar(value: Any, hint: Any, key: str) -> Any:
    if hint is Path and isinstance(value, str) and value:
        return Path(value).expanduser()
    if hint in (int, float) and not isinstance(value, bool):
        # YAML 1.1 reads 1e-4 as text.
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = None
        if number is not None and math.isfinite(number) and (hint is float or number.is_integer()):
            return hint(value) if isinstance(value, int) else hint(number)
    elif hint in (str, bool) and type(value) is hint:
        return value
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    raise ConfigError(f"{key}: must be {names.get(hint, hint)}, not {value!r}")
