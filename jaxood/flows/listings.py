"""What there is, with what each needs: for people, and for pages made from it."""

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jaxood.attribution.registry import ATTRIBUTIONS
from jaxood.context import Attribution, View
from jaxood.data.suites import descriptions
from jaxood.detectors.contract import Detector, Transform
from jaxood.detectors.registry import DETECTORS, TRANSFORMS, VIEWS
from jaxood.models.registry import model_rows
from jaxood.perturbation.measure import Measure
from jaxood.perturbation.measures import MEASURES
from jaxood.spelling import parameters_of


@dataclass(frozen=True)
class Entry:
    """One name that may stand in a command or a call.

    Attributes:
      kind: "view", "transform", "score", "attribution", "measure", "suite" or
        "model".
      needs: what it asks for beyond the logits.
      parameters: with their defaults.
      paper: where it comes from.
    """

    name: str
    kind: str
    summary: str
    needs: tuple[str, ...] = ()
    parameters: tuple[tuple[str, Any], ...] = ()
    paper: str = ""


def list_detectors(pattern: str = "*") -> list[Entry]:
    """Views, transforms and scores, of which methods are composed, whose names match.

    Args:
      pattern: as in a shell: "*nn*".
    """
    entries = [_part("view", cls) for cls in VIEWS.values()]
    entries += [_part("transform", cls) for cls in TRANSFORMS.values()]
    entries += [_part("score", cls) for cls in DETECTORS.values()]
    return _matching(entries, pattern)


def list_attributions(pattern: str = "*") -> list[Entry]:
    """Attributions whose names match."""
    return _matching((_part("attribution", cls) for cls in ATTRIBUTIONS.values()), pattern)


def list_measures(pattern: str = "*") -> list[Entry]:
    """Measures of faithfulness whose names match."""
    return _matching((_measure(cls) for cls in MEASURES.values()), pattern)


def list_suites(pattern: str = "*") -> list[Entry]:
    """Suites whose names match."""
    entries = (Entry(name, "suite", text) for name, text in descriptions().items())
    return _matching(entries, pattern)


def list_models(pattern: str = "*") -> list[Entry]:
    """Architectures with the weight tags published for them: "resnet50.a1_in1k"."""
    entries = (
        Entry(
            f"{row.architecture}.{row.tag}",
            "model",
            f"{row.parameters / 1e6:.2f} M parameters, input {row.input}, feature map "
            + "x".join(map(str, row.feature_map))
            + (f", top-1 {row.top1:.1f} %" if row.top1 else ""),
            parameters=(
                ("checkpoints", row.checkpoints),
                ("source", row.source),
                ("layers", row.layers),
            ),
        )
        for row in model_rows()
    )
    return _matching(entries, pattern)


def _matching(entries: Iterable[Entry], pattern: str) -> list[Entry]:
    return [entry for entry in entries if fnmatch.fnmatchcase(entry.name, pattern)]


def _part(kind: str, part: type[Detector | Transform | View | Attribution]) -> Entry:
    lines = (part.__doc__ or "").strip().splitlines()
    return Entry(
        part.name,
        kind,
        lines[0] if lines else "",
        _needs(part),
        tuple(parameters_of(part).items()),
        part.paper,
    )


def _measure(kind: type[Measure]) -> Entry:
    needs = ["attributions"] if kind.again else ["maps"]
    return Entry(
        kind.name,
        "measure",
        (kind.__doc__ or "").strip().splitlines()[0],
        (*needs, "boxes or masks") if kind.places else tuple(needs),
        tuple(parameters_of(kind).items()),
        kind.paper,
    )


def _needs(part: type) -> tuple[str, ...]:
    made = part()
    if isinstance(made, View | Attribution):
        return ("images",)
    split = "training" if made.fits_on == "train" else "validation"
    needs = [f"{split} images"] if made.needs_train else []
    needs += ["labels"] if made.needs_labels else []
    view = made.view if isinstance(made, Detector) else None
    needs += ["images"] if made.extractors or view is not None else []
    return (*needs, *(depth for depth in made.reads if depth != "logits"))
