"""report.html of attributions: each photograph, its classes, and its maps under a slider."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxood.report.html import (
    Cell,
    Number,
    comparison,
    figure,
    page,
    paragraph,
    run_section,
    side_by_side,
    table,
)


class Explained(NamedTuple):
    """An image and what was found of it.

    Attributes:
      predicted: its top classes: "name" and "probability".
      target: the class that the maps explain, in the same form.
      picture: as the model sees it.
      heats: a map in colours, by method.
    """

    id: str
    predicted: Sequence[Mapping[str, Any]]
    target: Mapping[str, Any]
    picture: UInt8[np.ndarray, "h w 3"]
    heats: Mapping[str, UInt8[np.ndarray, "h w 3"]]


def attribution_page(
    title: str, notes: Sequence[str], images: Iterable[Explained], about: Mapping[str, object]
) -> str:
    """The document.

    Args:
      about: the manifest.
    """
    parts = [paragraph(line) for line in notes]
    for number, one in enumerate(images):
        maps = [figure(comparison(one.picture, heat), name) for name, heat in one.heats.items()]
        explained = f"the maps explain {one.target['name']}"
        rows: list[list[Cell]] = [
            [str(entry["name"]), _percent(entry["probability"])] for entry in one.predicted
        ]
        classes = table(["class", "probability"], rows, f"classes-{number}")
        parts.append(f"<section><h2>{escape(one.id)}</h2>{paragraph(explained)}")
        parts.append(f"{side_by_side([*maps, classes])}</section>")
    return page(title, [*parts, run_section(about)])


def _percent(value: float) -> Number:
    return Number(value, f"{100 * value:.1f} %")
