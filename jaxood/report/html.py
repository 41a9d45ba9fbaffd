"""One self-contained HTML file: what it needs of style, script and pictures lies inside it."""

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxood.report.manifest import plain

THUMBNAIL, COMPARED = 132, 300  # pixels of the longer side
QUALITY = 85
LONG = 60  # letters of a cell that is broken into lines


@dataclass(frozen=True)
class Number:
    """A table cell: a value to sort by, None the last, shown as `text`."""

    value: int | float | None
    text: str
    best: bool = False


Cell = str | Number


def page(title: str, parts: Iterable[str]) -> str:
    """A whole document."""
    style, script = (
        resources.files("jaxood.report").joinpath(name).read_text("utf-8")
        for name in ("page.css", "page.js")
    )
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    )
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{escape(title)}</title>",
            f"<style>{style}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *parts,
            f"<script>{script}</script></body></html>\n",
        ]
    )


def section(title: str, *parts: str) -> str:
    """A heading, and what stands below it."""
    return "\n".join([f"<section><h2>{escape(title)}</h2>", *parts, "</section>"])


def run_section(about: Mapping[str, object]) -> str:
    """The manifest, for who wants it."""
    told = escape(json.dumps(plain(about), indent=2))
    details = f"<details><summary>manifest.json</summary><pre>{told}</pre></details>"
    return section("This run", details)


def paragraph(text: str, kind: str = "note") -> str:
    return f'<p class="{kind}">{escape(text)}</p>'


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], identity: str) -> str:
    """A table that sorts by the column whose head is clicked; texts left, numbers right.

    Args:
      identity: the element's id.
    """
    rows = [list(row) for row in rows]
    texts = [bool(rows) and isinstance(cell, str) for cell in rows[0]] if rows else []
    heads = "".join(
        f"<th{_kind(text)}>{escape(name)}</th>" for name, text in zip(head, texts, strict=True)
    )
    lines = ["".join(map(_cell, row)) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<div class="wide"><table id="{identity}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _kind(text: bool) -> str:
    return ' class="text"' if text else ""


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        kind = "text long" if len(cell) > LONG else "text"
        return f'<td class="{kind}">{escape(cell)}</td>'
    best = ' class="best"' if cell.best else ""
    value = "" if cell.value is None else repr(cell.value)
    return f'<td{best} data-value="{value}">{escape(cell.text)}</td>'


def figure(drawing: str, caption: str, kind: str = "") -> str:
    """A drawing (SVG, an image) above its caption."""
    kind = f' class="{kind}"' if kind else ""
    return f"<figure{kind}>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def side_by_side(parts: Iterable[str]) -> str:
    return f'<div class="row">{"".join(parts)}</div>'


def comparison(picture: UInt8[np.ndarray, "h w 3"], above: UInt8[np.ndarray, "h w 3"]) -> str:
    """A picture, another above it, and a slider for how much of that one is seen."""
    slider = '<input type="range" value="60" aria-label="share of the map">'
    images = image(picture, COMPARED) + image(above, COMPARED)
    return f'<div class="compare"><div>{images}</div>{slider}</div>'


def image(picture: UInt8[np.ndarray, "h w 3"], side: int = THUMBNAIL) -> str:
    """A picture as part of the page, made small."""
    small = Image.fromarray(picture)
    small.thumbnail((side, side))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=QUALITY)
    return (
        f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}">'
    )
