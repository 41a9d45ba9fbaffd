"""Methods as text: `score`, `transform+score`, `view+transform+...+score`.

A view or a transform without a score means `+energy`: `sfp` is `sfp+energy`. A part may carry its
parameters: `react[percentile=95]+knn[k=50]`. One of the user's own is called by its import path:
`react+my_package.my_module:MyDetector[k=3]`.
"""

import difflib
import inspect
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

from jaxood.context import View
from jaxood.detectors.contract import Detector, Transform
from jaxood.detectors.method import ENERGY, Method
from jaxood.detectors.registry import DETECTORS, TRANSFORMS, VIEWS
from jaxood.errors import UsageError, require
from jaxood.spelling import build, imported, name_of, parameters_of, read, spelled

Settings = Mapping[str, Mapping[str, object]]  # part's name -> parameter -> value
Sweeps = Mapping[str, Mapping[str, Sequence[object]]]
Choices = Mapping[str, Sequence[Mapping[str, object]]]  # part's name -> values of its parameters
Part = Detector | Transform | View
KINDS = (Detector, Transform, View)
TABLES: dict[str, type[Part]] = {**VIEWS, **TRANSFORMS, **DETECTORS}


def parse_method(
    method: object,
    settings: Settings = {},  # noqa: B006 (never changed)
) -> Method:
    """Reads a method.

    Args:
      method: text as above; a detector, or a transform or view, which is scored by energy; a
        Method as it is; or an object that has one as `method`, as `jaxood.detector` gives it.
      settings: parameters by part's name, as text or as values, for text; those in the text come
        first.

    Raises:
      UsageError: an unknown name or parameter, or an order that makes no sense.
    """
    if isinstance(method, Method):
        return method
    inside = getattr(method, "method", None)
    if isinstance(inside, Method):
        return inside
    if isinstance(method, KINDS):
        return _method([method])
    if isinstance(method, type) and issubclass(method, KINDS):
        return _method([_built(name_of(method), method, {})])
    if not isinstance(method, str):
        wanted = "a name, a Method, or a Detector, Transform or View"
        raise UsageError("method", repr(method), wanted)
    parts = _with_score(_read(method))
    return _method(
        [
            _built(name, class_of_part(name), {**settings.get(name, {}), **values})
            for name, values in parts
        ]
    )


def method_of(text: str, known: Mapping[str, type]) -> Method:
    """Reads a method without ever importing anything: for text that comes from a file.

    Args:
      known: classes by import path; what such a path in the text may say, of a part or in a
        parameter.

    Raises:
      UsageError: as `parse_method`, and for an import path that is not among them.
    """

    def require_known(name: str) -> None:
        wanted = "names of ours, or classes that are given"
        remedy = "Give the class with parts=, if you trust it: a file starts no code"
        require(":" not in name or name in known, "parts", f"no {name}", wanted, remedy)

    parts: list[Part] = []
    for name, values in map(read, _split(text)):
        require_known(name)
        for value in values.values():
            require_known(value)
        parts.append(_built(name, known.get(name) or class_of_part(name), values))
    return _method(parts)


def with_parameters(method: object, **parameters: object) -> Method:
    """A method, with parameters for its last part: `knn`, k=50.

    Raises:
      UsageError: as `parse_method`.
    """
    parsed = parse_method(method)
    if not parameters:
        return parsed
    *before, last = parsed.parts
    values = {**parameters_of(last), **parameters}
    return _method([*before, _built(name_of(last), type(last), values)])


def parse_methods(
    methods: Iterable[object],
    settings: Settings = {},  # noqa: B006 (never changed)
    sweeps: Sweeps = {},  # noqa: B006
) -> list[Method]:
    """Reads several methods, each that is text once a combination of the swept parameters.

    A sweep of knn.k over 5 and 10 makes `react+knn` into `react+knn[k=5]` and `react+knn[k=10]`.
    All of them score the same extracted features. Methods that are the same come once.

    Args:
      settings: as for `parse_method`.
      sweeps: lists of values by part's name and parameter; those in the text come first.

    Raises:
      UsageError: as `parse_method`, and for a parameter of a part that no method has.
    """
    return list(dict.fromkeys(method for method, _ in families_of(methods, settings, sweeps)))


def families_of(
    methods: Iterable[object],
    settings: Settings = {},  # noqa: B006 (never changed)
    sweeps: Sweeps = {},  # noqa: B006
    tune: tuple[Choices, Sweeps] = ({}, {}),
) -> list[tuple[Method, tuple[Method, ...]]]:
    """What `parse_methods` gives, each with the methods among which its parameters are chosen.

    For one that is text these are the combinations of values for what it and `settings` leave
    open; else it stands alone.

    Args:
      tune: choices for parts, of which those are taken that methods have; and lists of values by
        part's name and parameter, which take the place of such choices.

    Raises:
      UsageError: as `parse_methods`, and for a list of values that no method leaves open.
    """
    methods = list(methods)
    ready, own = tune
    texts = [text for one in methods if isinstance(one, str) for text in _swept(one, sweeps)]
    parts = [part for text in texts for part in _with_score(_read(text))]
    used = sorted({name for name, _ in parts})
    given: tuple[tuple[str, Mapping[str, Iterable[str]]], ...] = (
        ("set", settings),
        ("sweep", sweeps),
        ("tune", own),
    )
    for argument, by_name in given:
        for name, values in by_name.items():
            class_of_part(name, argument)
            if name not in used:
                wanted = f"a part of a method asked for: {', '.join(used)}"
                raise UsageError(argument, f"{name}.{next(iter(values))}", wanted)
    for name, values in own.items():
        for parameter in values:
            told = [known for part, known in parts if part == name]
            left_open = any(parameter not in {**settings.get(name, {}), **known} for known in told)
            wanted = "a parameter that a method leaves open"
            require(left_open, "tune", f"{name}.{parameter}, which is given", wanted)
    choices = {**ready, **{name: _combined(values) for name, values in own.items()}}
    found: list[tuple[Method, tuple[Method, ...]]] = []
    for one in methods:
        for text in _swept(one, sweeps) if isinstance(one, str) else [one]:
            variants = _variants(text, choices, settings) if isinstance(text, str) else [text]
            candidates = dict.fromkeys(parse_method(variant, settings) for variant in variants)
            found.append((parse_method(text, settings), tuple(candidates)))
    return list(dict.fromkeys(found))


def class_of_part(name: str, argument: str = "method") -> type[Part]:
    """The part that a name or an import path says.

    Raises:
      UsageError: when there is no such part.
    """
    if name in TABLES:
        return TABLES[name]
    if ":" not in name:
        groups = (("score", DETECTORS), ("transform", TRANSFORMS), ("view", VIEWS))
        wanted = "; ".join(f"a {kind}: {', '.join(sorted(table))}" for kind, table in groups)
        close = difflib.get_close_matches(name, TABLES, n=3)
        remedy = f"Did you mean {' or '.join(close)}?" if close else ""
        raise UsageError(argument, repr(name), wanted, remedy)
    found = imported(name, argument)
    if not (isinstance(found, type) and issubclass(found, KINDS)):
        wanted = "a class that is a jaxood.Detector, jaxood.Transform or jaxood.View"
        raise UsageError(argument, f"{name}, {found!r}", wanted)
    return found


def _built(name: str, kind: type[Part], values: Mapping[str, object]) -> Part:
    missing = sorted(getattr(kind, "__abstractmethods__", ()))
    if inspect.isabstract(kind):
        raise UsageError("method", f"{name} without {', '.join(missing)}", "a class that has it")
    return build(name, kind, values)


def _method(parts: Sequence[Part]) -> Method:
    """Puts parts together.

    Raises:
      UsageError: when their order makes no sense.
    """
    view: View | None = None
    transforms: list[Transform] = []
    score: Detector | None = None
    for part in parts:
        name = name_of(part)
        if score:
            first = name_of(score)
            if isinstance(part, Detector):
                got = f"two scores, {first} and {name}"
                raise UsageError("method", got, "one score", "Ask for two methods")
            raise UsageError("method", f"{name} after the score {first}", "the score last")
        if isinstance(part, View):
            if view:
                got = f"two views, {name_of(view)} and {name}"
                raise UsageError("method", got, "one view, as the first part")
            if transforms:
                last = name_of(transforms[-1])
                raise UsageError("method", f"the view {name} after {last}", f"{name}+{last}")
            view = part
        elif isinstance(part, Transform):
            transforms.append(part)
        else:
            score = part
    return Method(score or ENERGY, tuple(transforms), view)


def _split(text: str) -> list[str]:
    """At each "+", but for those of numbers in brackets, and those that end a name: `rmds++`."""
    return re.split(r"\+(?![^\[]*\])(?!\+?\s*(?:\[|$))", text)


def _read(text: str) -> list[tuple[str, dict[str, str]]]:
    parts = [read(part) for part in _split(text)]
    for name, _ in parts:
        class_of_part(name)
    return parts


def _with_score(parts: list[tuple[str, dict[str, str]]]) -> list[tuple[str, dict[str, str]]]:
    scored = any(issubclass(class_of_part(name), Detector) for name, _ in parts)
    return parts if scored else [*parts, (ENERGY.name, {})]


def _swept(text: str, sweeps: Sweeps) -> Iterable[str]:
    """The text once a combination of swept values for its parts."""
    return _variants(text, {name: _combined(values) for name, values in sweeps.items()})


def _combined(values: Mapping[str, Sequence[object]]) -> list[dict[str, object]]:
    """All combinations of values of a part's parameters."""
    return [
        dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())
    ]


def _variants(
    text: str,
    choices: Choices,
    settings: Settings = {},  # noqa: B006 (never changed)
) -> Iterable[str]:
    """The text once a combination of choices for what its parts, and `settings`, leave open."""
    parts = _with_score(_read(text))
    axes = []
    for name, given in parts:
        taken = {**settings.get(name, {}), **given}
        left_open = [
            {key: value for key, value in one.items() if key not in taken}
            for one in choices.get(name, ())
        ]
        axes.append([one for i, one in enumerate(left_open) if one not in left_open[:i]] or [{}])
    for chosen in itertools.product(*axes):
        pairs = zip(parts, chosen, strict=True)
        yield "+".join(spelled(name, {**given, **values}) for (name, given), values in pairs)


def _assignment(argument: str, text: str) -> tuple[str, str, str]:
    """Splits `knn.k=50` into its three parts."""
    target, equals, value = text.partition("=")
    name, dot, parameter = target.strip().rpartition(".")
    holds = bool(equals and dot and name and parameter and value.strip())
    require(holds, argument, repr(text), "NAME.PARAMETER=VALUE, such as knn.k=50")
    return name, parameter, value.strip()


def parse_settings(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Reads `knn.k=50`; the last word on a parameter holds."""
    settings: dict[str, dict[str, str]] = {}
    for text in texts:
        name, parameter, value = _assignment("set", text)
        settings.setdefault(name, {})[parameter] = value
    return settings


def parse_sweeps(texts: Iterable[str], argument: str = "sweep") -> dict[str, dict[str, list[str]]]:
    """Reads `knn.k=5,10,50`: the values of a parameter are separated by commas."""
    sweeps: dict[str, dict[str, list[str]]] = {}
    for text in texts:
        name, parameter, values = _assignment(argument, text)
        chosen = [value.strip() for value in values.split(",") if value.strip()]
        if len(set(chosen)) != len(chosen) or not chosen:
            raise UsageError(argument, repr(text), "values that differ, such as knn.k=5,10,50")
        sweeps.setdefault(name, {})[parameter] = chosen
    return sweeps


def parse_tune(texts: Iterable[str]) -> list[str | Sweeps] | None:
    """Reads `openood` and `knn.k=5,10,50`, as `jaxood.evaluate` takes them."""
    texts = list(texts)
    ready = [text for text in texts if not set(text) & set(".=")]
    own = parse_sweeps((text for text in texts if text not in ready), "tune")
    return [*ready, *([own] if own else [])] or None
