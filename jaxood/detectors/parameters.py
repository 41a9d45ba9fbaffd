"""Hyper-parameters as text: `--set knn.k=50`, `--sweep knn.k=5,10,50`, `knn[k=50]`."""

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping

from jaxood.errors import UsageError, choose

Settings = Mapping[str, Mapping[str, object]]  # step name -> field name -> value

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def convert(argument: str, value: object, kind: object) -> object:
    """Returns `value` as the type `kind` of a dataclass field.

    Args:
      argument: what an error calls the value, such as "knn.k".
      value: text, or a value of the right type already.
      kind: bool, int, float, str, a Literal, or one of these or None.

    Raises:
      UsageError: when it is not of that type.
    """
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None or str(value).lower() == "none":
            return None
        (kind,) = (option for option in typing.get_args(kind) if option is not type(None))
        origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return choose(argument, str(value), typing.get_args(kind))
    if kind is bool:
        return _TRUTH[choose(argument, str(value).lower(), _TRUTH)]
    try:
        converted = kind(value)
        if kind is int and converted != float(value):
            raise ValueError
        if converted != converted:  # NaN passes no comparison, hence no range check either
            raise ValueError
        return converted
    except (TypeError, ValueError, OverflowError):
        wanted = {int: "a whole number", float: "a number", str: "text"}[kind]
        raise UsageError(argument, repr(value), wanted) from None


def build(name: str, step: type, values: Mapping[str, object]) -> object:
    """Makes a step of a method, its fields converted from text where they are text."""
    kinds = typing.get_type_hints(step)
    fields = [field.name for field in dataclasses.fields(step) if field.init]
    if values and not fields:
        raise UsageError(f"{name}.{next(iter(values))}", "a value", f"none for {name}")
    for key in values:
        choose(f"parameter of {name}", key, fields)
    return step(
        **{key: convert(f"{name}.{key}", value, kinds[key]) for key, value in values.items()}
    )


def label(name: str, step: object) -> str:
    """The name of a step with the parameters that differ from its defaults: `sfp[seed=1]`."""
    changed = [
        f"{field.name}={getattr(step, field.name)}"
        for field in dataclasses.fields(step)
        if getattr(step, field.name) != field.default
    ]
    return f"{name}[{','.join(changed)}]" if changed else name


def split_assignment(argument: str, text: str) -> tuple[str, str, str]:
    """Splits `knn.k=50` into its three parts."""
    target, equals, value = text.partition("=")
    name, dot, field = target.strip().partition(".")
    if not (equals and dot and name and field and value.strip()):
        raise UsageError(argument, repr(text), "NAME.PARAMETER=VALUE, such as knn.k=50")
    return name, field, value.strip()


def parse_settings(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Reads `--set` arguments; the last word on a parameter holds."""
    settings: dict[str, dict[str, str]] = {}
    for text in texts:
        name, field, value = split_assignment("--set", text)
        settings.setdefault(name, {})[field] = value
    return settings


def parse_sweeps(texts: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Reads `--sweep` arguments: the values of a parameter are separated by commas."""
    sweeps: dict[str, dict[str, list[str]]] = {}
    for text in texts:
        name, field, values = split_assignment("--sweep", text)
        chosen = [value.strip() for value in values.split(",") if value.strip()]
        if len(set(chosen)) != len(chosen) or not chosen:
            raise UsageError("--sweep", repr(text), "values that differ, such as knn.k=5,10,50")
        sweeps.setdefault(name, {})[field] = chosen
    return sweeps
