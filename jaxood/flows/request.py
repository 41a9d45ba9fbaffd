"""What is asked of an evaluation, as objects; what makes no sense is said before a model is loaded.

A method whose parameters are tuned stands for several, of which one is chosen.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxood.detectors.contract import Detector
from jaxood.detectors.grammar import Choices, Sweeps, families_of, parse_methods
from jaxood.detectors.method import Method
from jaxood.detectors.spaces import OPENOOD
from jaxood.errors import UsageError, choose, require, require_seed
from jaxood.metrics.ood import FPR_CONVENTIONS

MethodSource = str | Method | Detector
Tune = str | Sweeps | Sequence[str | Sweeps] | None


class Family(NamedTuple):
    """A method as it was asked for, and the candidates for its parameters: itself, or several."""

    asked: Method
    candidates: tuple[Method, ...]


def parsed(
    methods: MethodSource | Sequence[MethodSource],
    settings: Mapping[str, Mapping[str, object]] | None = None,
    sweeps: Sweeps | None = None,
) -> list[Method]:
    """One or several methods as objects.

    Raises:
      UsageError: for an empty list, and as `parse_methods`.
    """
    return parse_methods(_several(methods), settings or {}, sweeps or {})


def check_request(
    methods: MethodSource | Sequence[MethodSource],
    settings: Mapping[str, Mapping[str, object]] | None,
    sweeps: Sweeps | None,
    fpr_convention: str,
    seed: int,
    tune: Tune = None,
) -> list[Family]:
    """The methods, when all that was asked for makes sense.

    Args:
      tune: see `jaxood.evaluate`.

    Raises:
      UsageError: otherwise.
    """
    choose("fpr_convention", fpr_convention, FPR_CONVENTIONS)
    require_seed("seed", seed)
    texts = _several(methods)
    choices = ({}, {}) if tune is None else _choices(tune)
    found = families_of(texts, settings or {}, sweeps or {}, choices)
    families = [Family(*family) for family in found]
    if tune is not None and all(len(family.candidates) == 1 for family in families):
        names = ", ".join(family.asked.name for family in families)
        wanted = f"one that leaves parameters open which are tried: of {', '.join(OPENOOD)}"
        raise UsageError("tune", f"{tune} for {names}", wanted)
    return families


def candidates_of(families: Iterable[Family]) -> list[Method]:
    """All methods that may be scored, each after its plain counterpart."""
    every = dict.fromkeys(one for family in families for one in family.candidates)
    return with_plain(list(every))


def with_plain(methods: Sequence[Method]) -> list[Method]:
    """The methods, and before them the plain counterparts that are not among them."""
    plain = [counterpart for method in methods if (counterpart := method.plain)]
    missing = [method for method in dict.fromkeys(plain) if method not in methods]
    return [*missing, *methods]


def _several(methods: MethodSource | Sequence[MethodSource]) -> list[MethodSource]:
    several = [methods] if isinstance(methods, str | Method | Detector) else list(methods)
    require(bool(several), "methods", "none", "one or more")
    return several


def _choices(tune: str | Sweeps | Sequence[str | Sweeps]) -> tuple[Choices, Sweeps]:
    """Spaces that are ready, and the user's own."""
    ready: dict[str, Sequence[Mapping[str, object]]] = {}
    own: dict[str, Mapping[str, Sequence[object]]] = {}
    for one in [tune] if isinstance(tune, str | Mapping) else tune:
        if isinstance(one, Mapping):
            own |= one
            continue
        remedy = "Values of your own: knn.k=10,50 (in Python {'knn': {'k': [10, 50]}})"
        require(one == "openood", "tune", repr(one), "openood, or values to choose among", remedy)
        ready |= OPENOOD
    require(bool(ready or own), "tune", "nothing", "openood, or values to choose among")
    return ready, own
