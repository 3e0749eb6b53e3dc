"""From an ml-collections ConfigDict to frozen dataclasses and back, with every key and value checked."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from ml_collections import ConfigDict, config_dict

from vivit_jax.errors import UserError

T = TypeVar("T")


def check(section: Any, name: str, holds: Any, what: str) -> None:
    """Raises a UserError that names `section.name` and its value unless `holds`."""
    if not holds:
        raise UserError(f"config.{type(section).__name__.lower()}.{name}: {getattr(section, name)!r} {what}")


def defaults(kind: type) -> ConfigDict:
    """A ConfigDict with every field of a dataclass, for config files and flags to change.

    Fields without a default are placeholders: unset, but typed.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.type):
            values[field.name] = defaults(typing.cast(type, field.type))
        elif field.default is not dataclasses.MISSING and field.default is not None:
            values[field.name] = field.default
        else:
            values[field.name] = placeholder(field.type)
    return ConfigDict(values, type_safe=True)


def placeholder(kind: Any):
    """An unset value that takes `kind` from a flag."""
    if typing.get_origin(kind) is Literal:
        kind = str
    given = [of for of in typing.get_args(kind) if of is not types.NoneType]
    kind = given[0] if len(given) == 1 else kind  # float | None
    return config_dict.placeholder(kind if kind in (int, float, bool, str) else object)


def build(kind: type[T], values: Mapping[str, Any], path: str = "config") -> T:
    """Builds a dataclass from a mapping.

    Raises:
      UserError: an unknown key (with the nearest valid one), or a value of the wrong type or that is impossible.
    """
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, kind))}
    for key in values:
        if key not in fields:
            raise UserError(f"{path}.{key}: no such key{nearest(key, fields)}")
    arguments = {}
    for key, value in values.items():
        expected, where = fields[key].type, f"{path}.{key}"
        if dataclasses.is_dataclass(expected):
            if not isinstance(value, Mapping | ConfigDict):
                raise UserError(f"{where}: {value!r} is not a section")
            arguments[key] = build(typing.cast(type, expected), dict(value), where)
        else:
            arguments[key] = convert(expected, value, where)
    return kind(**arguments)


def nearest(key: str, known) -> str:
    close = difflib.get_close_matches(key, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else f"; the keys are {', '.join(known)}"


def convert(expected: Any, value: Any, where: str) -> Any:
    """Returns `value` as `expected` (a scalar, a Literal, or a tuple of scalars), or raises UserError."""
    origin, args = typing.get_origin(expected), typing.get_args(expected)
    if origin is Literal:
        if value not in args:
            raise UserError(f"{where}: {value!r} is none of {', '.join(repr(a) for a in args)}")
        return value
    if origin is tuple:
        if not isinstance(value, tuple | list):
            raise UserError(f"{where}: {value!r} is not a tuple")
        kinds = args if Ellipsis not in args and len(args) == len(value) else args[:1] * len(value)
        return tuple(convert(kind, item, where) for kind, item in zip(kinds, value, strict=True))
    if origin is dict:
        return dict(value)
    if origin is types.UnionType:
        if value is None and types.NoneType in args:
            return None
        kinds = [kind for kind in args if isinstance(value, typing.get_origin(kind) or kind)]
        return convert(kinds[0] if kinds else args[0], value, where)
    if value is None:
        raise UserError(f"{where}: is not set")
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise UserError(f"{where}: {value!r} is not {expected.__name__}")
    if expected is float and not math.isfinite(value):
        raise UserError(f"{where}: {value!r} is not a finite number")
    return value


def _key(path: str, field: dataclasses.Field) -> str:
    """A dict's keys stand beside the fields of its dataclass, as in the file that it came from."""
    return path if typing.get_origin(field.type) is dict else f"{path}.{field.name}"


def differences(old: Any, new: Any, path: str = "config") -> list[str]:
    """Lines `key: old -> new`; fields whose metadata says `resume` may change from one start of a run to the next."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{path}.{key}")]
    if not dataclasses.is_dataclass(old) or type(old) is not type(new):
        return [] if old == new else [f"{path}: {old!r} -> {new!r}"]
    return [
        line
        for field in dataclasses.fields(old)
        if not field.metadata.get("resume")
        for line in differences(getattr(old, field.name), getattr(new, field.name), _key(path, field))
    ]
