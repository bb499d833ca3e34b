"""YAML into pydantic dataclasses: files over a base, overrides, and one line that names the key of a mistake."""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import ConfigDict, GetPydanticSchema, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from upsr_core.messages import one_line

T = TypeVar("T")
# Mappings that are values, not sections: a new one replaces the old one whole, their entries are never merged.
WHOLE = ("train_dir", "degradation_mix")
LARGEST_CONFIGURATION = 10_000
# Values keep the type that they are written in: true is no number, and 1 is not true.
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
# pydantic's names of the mistake, in a dataclass and in the arguments of a function.
_UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one line and names the key."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers and booleans: 1e-4 is a number, and ``no`` is text. Aliases may repeat at most
    ``LARGEST_CONFIGURATION`` values: a kilobyte of aliases to aliases would fill the memory."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _values_in(node, {}) > LARGEST_CONFIGURATION:
            raise yaml.YAMLError(f"aliases such as *name repeat more than {LARGEST_CONFIGURATION} values")
        return node


def _values_in(node: yaml.Node, known: dict[int, int]) -> int:
    """Number of values in ``node`` with its aliases written out; ``known`` holds those of other nodes by identity."""
    if id(node) not in known:
        known[id(node)] = LARGEST_CONFIGURATION + 1  # of a node inside itself: without end
        children = chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else node.value
        nested = isinstance(node, yaml.CollectionNode)
        known[id(node)] = 1 + (sum(_values_in(child, known) for child in children) if nested else 0)
    return known[id(node)]


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$", re.IGNORECASE), list("tTfF"))
_FLOAT = re.compile(r"^[-+]?((\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|\.inf)$|^\.nan$", re.IGNORECASE)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def _construct_number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    number = loader.construct_yaml_float(node)
    return int(number) if number.is_integer() else number  # 2e5 steps


_Loader.add_constructor("tag:yaml.org,2002:float", _construct_number)


def arguments_of(callable_: Callable[..., Any], *, without: Sequence[str] = ()) -> GetPydanticSchema:
    """Annotation of a ``dict`` of keyword arguments: its keys and types are those of ``callable_``, none is required.

    Args:
        callable_: a function, or a class whose constructor's arguments are meant.
        without: arguments that the configuration must not set, because they follow from other values.
    """
    function = callable_.__init__ if inspect.isclass(callable_) else callable_
    hints = get_type_hints(function)
    names = [name for name in inspect.signature(function).parameters if name != "self" and name not in without]
    arguments = TypedDict(callable_.__name__, {name: hints[name] for name in names}, total=False)  # type: ignore[misc]
    arguments.__pydantic_config__ = STRICT  # type: ignore[attr-defined]
    return GetPydanticSchema(lambda _, handler: handler(arguments))


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, over that of the file which its key ``base`` names, relative to it.

    Raises:
        ConfigError: a file that cannot be read, or bases that go round in a circle.
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
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold keys and values, but holds {type(content).__name__}")
    return content


def apply_overrides(content: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """``content`` with ``section.key=value`` applied; values are YAML, as in ``[1,2]`` or ``null``.

    Raises:
        ConfigError: an override that cannot be read, or two of one key.
    """
    result = dict(content)
    given: dict[str, str] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"{override!r}: an override must read key=value or section.key=value")
        try:
            value = yaml.load(text, _Loader)
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
    """``base`` with ``changes``, section by section; an empty section, and each of `WHOLE`, takes the other's place."""
    result = dict(base)
    for name, value in changes.items():
        inner = base.get(name)
        both = name not in WHOLE and value and isinstance(inner, Mapping) and isinstance(value, Mapping)
        result[name] = merged(inner, value) if both else value  # type: ignore[arg-type]
    return result


def to_plain(value: Any) -> Any:
    """A configuration as values that YAML can write and `build` can read again."""
    return TypeAdapter(type(value)).dump_python(value, mode="json")


def build(cls: type[T], content: Mapping[str, Any], where: str = "") -> T:
    """The dataclass ``cls`` filled from ``content``, checked against its annotations throughout.

    Args:
        cls: a pydantic dataclass with the configuration `STRICT`; dataclasses inside need none of their own.
        content: the values, nested as the dataclasses are.
        where: key of ``content`` itself, for messages.

    Raises:
        ConfigError: an unknown or missing key, or a value of the wrong type or range.
    """
    try:
        # As JSON, where a list may be a tuple, and text a path, without any other conversion.
        return TypeAdapter(cls).validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        raise _first_mistake(error, cls, where) from error


def _first_mistake(error: ValidationError, cls: type, where: str) -> ConfigError:
    # A key that is wrongly spelled is often missing, too.
    first = min(error.errors(), key=lambda mistake: mistake["type"] not in _UNKNOWN_KEY)
    kind, message = first["type"], first["msg"]
    place = [part for part in first["loc"] if part != "[key]"]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return cause
    key = _key(where, place)
    if kind in _UNKNOWN_KEY:
        (near,) = difflib.get_close_matches(str(place[-1]), _known_keys(cls, place[:-1]), n=1, cutoff=0.0)
        return ConfigError(f"{key}: no such key; did you mean {_key(where, [*place[:-1], near])}?")
    if kind == "missing":
        return ConfigError(f"{key}: is missing and has no default; set it in the file or as {key}=VALUE")
    if cause is not None:
        return ConfigError(f"{key}: {cause}" if key else str(cause))
    for theirs, ours in (
        ("Input should be", "must be"),
        ("an object", "a section of keys and values"),
        ("valid array", "list such as [1,2]"),
    ):
        message = message.replace(theirs, ours)
    return ConfigError(f"{key}: {message}, not {first['input']!r}")


def _key(where: str, place: Sequence[int | str]) -> str:
    parts = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return f"{where}{parts}".lstrip(".")


def _known_keys(cls: type, place: Sequence[int | str]) -> list[str]:
    """The keys that a section of the configuration has."""
    schema = TypeAdapter(cls).json_schema()
    section = schema
    for name in place:
        section = section["properties"][name]
        section = next((option for option in section.get("anyOf", ()) if "$ref" in option), section)
        section = schema["$defs"][section["$ref"].rpartition("/")[2]]
    return list(section["properties"])
