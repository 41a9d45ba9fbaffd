"""Curves and histograms as SVG: sharp at any size, and small enough to stand in a page."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np
from jaxtyping import Float

from jaxood.metrics.ood import TPR, threshold_at
from jaxood.report.faithfulness import MeanCurve
from jaxood.report.figures import BLUE, ORANGE, line
from jaxood.report.plots import BINS, bars, roc_points, thinned

MOST_POINTS = 200  # of a curve: a point every two pixels
SIDE = 320  # of the drawing area
LEFT, TOP, BELOW = 44, 10, 40
PATTERNS = {"-": "", "--": "6 4", "-.": "7 3 2 3", ":": "2 3"}  # of matplotlib's dashes

Style = Mapping[str, str]  # "color" and "linestyle"


def roc(curves: Mapping[str, tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]]) -> str:
    """ROC curves in per cent, OOD taken as ID against ID kept.

    Args:
      curves: ID and OOD scores by method; a curve tells its method where the pointer rests on it.
    """
    lines = [
        _line([0.0, 1.0], [0.0, 1.0], "axis"),
        _line([0.0, 1.0], [TPR, TPR], "axis dashed"),
    ]
    for name, (known, foreign) in curves.items():
        false, true = thinned(*roc_points(known, foreign), MOST_POINTS)
        style = line(list(curves), name)
        drawn = _line(false, true, "curve", style["color"], style["linestyle"])
        lines.append(f"<g><title>{escape(name)}</title>{drawn}</g>")
    ticks = {value: f"{100 * value:.0f}" for value in (0, 0.25, 0.5, 0.75, 1)}
    return _svg(lines, ticks, ticks, "OOD taken as ID (FPR, %)", "ID kept (TPR, %)")


def histogram(
    known: Float[np.ndarray, " n"], foreign: Float[np.ndarray, " m"], names: tuple[str, str]
) -> str:
    """Shares of images by score (`bars`), and the threshold that 95 % of ID images reach.

    Args:
      names: of the ID set and the OOD set.
    """
    edges, *shares = bars(known, foreign)
    most = max(share.max() for share in shares)
    drawn = []
    for share, colour, name in zip(shares, (BLUE, ORANGE), names, strict=True):
        x = np.repeat(np.linspace(0, 1, BINS + 1), 2)
        y = np.concatenate([[0], np.repeat(share / most, 2), [0]])
        drawn.append(f"<g><title>{escape(name)}</title>{_line(x, y, 'bars', colour)}</g>")
    low, high = edges[0], edges[-1]
    at = (threshold_at(known, TPR) - low) / (high - low)
    drawn.append(_line([at, at], [0.0, 1.0], "axis dashed"))
    ticks = {value: f"{low + value * (high - low):.4g}" for value in (0, 0.5, 1)}
    return _svg(drawn, ticks, {0: "0", 1: f"{100 * most:.0f} %"}, "score (higher: more ID)", "")


def curves(
    x: Sequence[float], found: Mapping[str, MeanCurve], styles: Mapping[str, Style], x_label: str
) -> str:
    """Curves with intervals over shares of something; each tells its name to the pointer.

    Args:
      x: shares, shown in per cent.
      styles: by name, see `jaxood.report.figures.line`.
    """
    from matplotlib.ticker import MaxNLocator

    across = np.asarray(x, float)
    ticks = MaxNLocator(5).tick_values(
        min(float(one.low.min()) for one in found.values()),
        max(float(one.high.max()) for one in found.values()),
    )
    low, tall, right = ticks[0], ticks[-1] - ticks[0], float(across.max()) or 1.0
    across = across / right
    bands, lines = [], []
    for name, one in found.items():
        colour, dashes = styles[name]["color"], styles[name]["linestyle"]
        bottom, middle, top = ((part - low) / tall for part in (one.low, one.mean, one.high))
        around = np.concatenate([across, across[::-1]]), np.concatenate([top, bottom[::-1]])
        bands.append(_line(*around, "band", colour))
        drawn = _line(across, middle, "curve", colour, dashes)
        lines.append(f"<g><title>{escape(name)}</title>{drawn}</g>")
    x_ticks = {value: f"{100 * value * right:.3g}" for value in (0, 0.25, 0.5, 0.75, 1)}
    y_ticks = {(value - low) / tall: f"{round(value, 12) + 0.0:.3g}" for value in ticks}
    return _svg([*bands, *lines], x_ticks, y_ticks, x_label, "")


def legend(styles: Mapping[str, Style]) -> str:
    """Names beside a piece of their line."""
    entries = []
    for name, style in styles.items():
        how = _style("curve", style["color"], style["linestyle"])
        drawn = f'<polyline {how} points="0,4 36,4"/>'
        entries.append(f'<span><svg viewBox="0 0 36 8">{drawn}</svg>{escape(name)}</span>')
    return f'<div class="legend">{"".join(entries)}</div>'


def _style(kind: str, colour: str, dashes: str) -> str:
    """Attributes of a line."""
    told = f"--colour:{colour}" if colour else ""
    if PATTERNS[dashes]:
        told += f";stroke-dasharray:{PATTERNS[dashes]}"
    return f'class="{kind}"' + (f' style="{told}"' if told else "")


def _line(
    x: Iterable[float], y: Iterable[float], kind: str, colour: str = "", dashes: str = "-"
) -> str:
    """Points in the unit square as a polyline."""
    points = " ".join(
        f"{LEFT + SIDE * a:.1f},{TOP + SIDE * (1 - b):.1f}" for a, b in zip(x, y, strict=True)
    )
    return f'<polyline {_style(kind, colour, dashes)} points="{points}"/>'


def _svg(drawn: Sequence[str], x_ticks, y_ticks, x_label: str, y_label: str) -> str:
    base = TOP + SIDE
    texts = [f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{SIDE}" height="{SIDE}"/>']
    for value, text in x_ticks.items():
        texts.append(
            f'<text x="{LEFT + SIDE * value:.1f}" y="{base + 14}" class="middle">{text}</text>'
        )
    for value, text in y_ticks.items():
        y = TOP + SIDE * (1 - value) + 4
        texts.append(f'<text x="{LEFT - 5}" y="{y:.1f}" class="end">{text}</text>')
    middle = LEFT + SIDE / 2, TOP + SIDE / 2
    texts.append(f'<text x="{middle[0]}" y="{base + 32}" class="middle">{escape(x_label)}</text>')
    texts.append(
        f'<text transform="translate(11 {middle[1]}) rotate(-90)" class="middle">'
        f"{escape(y_label)}</text>"
    )
    size = f"0 0 {LEFT + SIDE + 16} {base + BELOW}"
    return f'<svg viewBox="{size}" role="img">{"".join(drawn)}{"".join(texts)}</svg>'
