"""Parts of methods as text: `knn`, `knn[k=50]`, `package.module:Name[k=50]`.

A part is a frozen dataclass whose fields all have defaults, with a class attribute `name`; one of
the user's own has none and is called by its import path.
"""

import dataclasses
import importlib
import re
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

from jaxood.errors import UsageError, choose

TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def name_of(part: object) -> str:
    """The registered name of a part, or its import path."""
    kind = part if isinstance(part, type) else type(part)
    return getattr(part, "name", "") or f"{kind.__module__}:{kind.__qualname__}"


def parameters_of(part: object) -> dict[str, object]:
    """The parameters of a part with their values (of a class: with their defaults)."""
    kind = part if isinstance(part, type) else type(part)
    if not dataclasses.is_dataclass(kind):
        return {}
    return {
        field.name: field.default if isinstance(part, type) else getattr(part, field.name)
        for field in dataclasses.fields(kind)
        if field.init
    }


def label(part: object) -> str:
    """The name of a part with the parameters that differ from its defaults: `knn[k=50]`."""
    defaults = parameters_of(type(part))
    changed = {key: value for key, value in parameters_of(part).items() if value != defaults[key]}
    return spelled(name_of(part), changed)


def spelled_out(part: object) -> str:
    """The name of a part with all of its parameters, so that defaults may change."""
    return spelled(name_of(part), parameters_of(part))


def spelled(name: str, values: Mapping[str, object]) -> str:
    """`knn`, {"k": 50} -> "knn[k=50]"."""
    inside = ",".join(f"{key}={value}" for key, value in values.items())
    return f"{name}[{inside}]" if inside else name


def read(text: str, argument: str = "method") -> tuple[str, dict[str, str]]:
    """`knn[k=50]` -> "knn", {"k": "50"}; a value may be a part: `sfp[by=score-cam[chunk=4]]`.

    Raises:
      UsageError: for other text; `argument` is what it calls it.
    """
    inner = r"(?:[^\[\]]|\[[^\[\]]*\])*"
    match = re.fullmatch(rf"\s*([^\[\]\s]+)\s*(?:\[({inner})\])?\s*", text)
    assignments = re.split(r",(?![^\[]*\])", match[2]) if match and match[2] else []
    if not match or any("=" not in one for one in assignments):
        wanted = "NAME or NAME[PARAMETER=VALUE,...]"
        raise UsageError(argument, repr(text), wanted, "Parts are joined by '+': react+knn[k=50]")
    values = (one.partition("=") for one in assignments)
    return match[1], {key.strip(): value.strip() for key, _, value in values}


def build(name: str, kind: type, values: Mapping[str, object]) -> Any:
    """Makes a part, its parameters converted from text where they are text.

    Raises:
      UsageError: for a parameter that it has not, or a value of another type or out of range.
    """
    kinds = typing.get_type_hints(kind)
    known = parameters_of(kind)
    if values and not known:
        raise UsageError(f"{name}.{next(iter(values))}", "a value", f"none for {name}")
    for key in values:
        choose(f"parameter of {name}", key, known)
    return kind(
        **{key: convert(f"{name}.{key}", value, kinds[key]) for key, value in values.items()}
    )


def convert(argument: str, value: object, kind: Any) -> object:
    """Returns `value` as the type `kind` of a dataclass field.

    Args:
      argument: what an error calls the value, such as "knn.k".
      value: text, or a value of the right type already.
      kind: bool, int, float, str, a Literal, or a union of these and None.

    Raises:
      UsageError: when it is not of that type.
    """
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        options = [one for one in typing.get_args(kind) if one is not type(None)]
        if dataclasses.is_dataclass(value):
            if not any(isinstance(one, type) and isinstance(value, one) for one in options):
                wanted = " or ".join(getattr(one, "__name__", str(one)) for one in options)
                raise UsageError(argument, f"an object, a {type(value).__name__}", wanted)
            return value
        if len(options) < len(typing.get_args(kind)):
            if value is None or str(value).lower() == "none":
                return None
        for literal in (one for one in options if typing.get_origin(one) is typing.Literal):
            if value in typing.get_args(literal):
                return value
            if len(options) > 1:
                options.remove(literal)
        return convert(argument, value, options[0])
    if origin is typing.Literal:
        return choose(argument, str(value), typing.get_args(kind))
    if kind is bool:
        return TRUTH[choose(argument, str(value).lower(), TRUTH)]
    if kind not in (int, float, str):
        if isinstance(value, str):
            raise UsageError(argument, repr(value), f"an object, a {kind.__name__}: from Python")
        return value
    try:
        if kind is not str and isinstance(value, str) and not value.isascii():
            raise ValueError  # int() takes the digits of all scripts
        converted = kind(value)
        if kind is int and converted != float(value):  # type: ignore[arg-type]
            raise ValueError
        if converted != converted:  # NaN passes no comparison, hence no range check either
            raise ValueError
        return converted
    except (TypeError, ValueError, OverflowError):
        wanted = {int: "a whole number", float: "a number", str: "text"}[kind]
        raise UsageError(argument, repr(value), wanted) from None


def imported(path: str, argument: str) -> Any:
    """What `package.module:name` names; the working folder is looked into as well.

    Importing runs the module: such a path is trusted as the command line is.

    Raises:
      UsageError: when there is no such thing.
    """
    module, _, attribute = path.partition(":")
    sys.path.insert(0, "")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        wanted = "package.module:name that can be imported"
        raise UsageError(argument, f"{path} ({error})", wanted) from error
    finally:
        sys.path.remove("")


def class_of(name: str, known: Mapping[str, type], base: type, argument: str) -> type:
    """The part that a name says: one of ours, or the user's own by its import path.

    Raises:
      UsageError: for an unknown name, or an import path to something else than a `base`.
    """
    if ":" not in name:
        return known[choose(argument, name, known)]
    found = imported(name, argument)
    if not (isinstance(found, type) and issubclass(found, base)):
        wanted = f"a class that is a jaxood.{base.__name__}"
        raise UsageError(argument, f"{name}, {found!r}", wanted)
    return found
