"""ROC curves and score histograms."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxood.metrics.ood import TPR, threshold_at
from jaxood.report.figures import BLUE, ORANGE, line, write_figure
from jaxood.report.tables import MethodResult

MOST_CURVES = 8  # in one panel; more cannot be told apart
MOST_POINTS = 4000  # of a curve: one a fifth of a pixel of a panel
BINS = 40
MOST_HISTOGRAMS = 12  # rows of the histogram sheet


def draw_roc(path: Path, results: Sequence[MethodResult], id_name: str) -> None:
    """A panel an OOD set, a curve a method: the best by mean AUROC, where they are many."""
    from matplotlib.figure import Figure

    best = sorted(results, key=lambda result: -result.mean("auroc"))[:MOST_CURVES]
    sets = list(results[0].metrics)
    figure = Figure(figsize=(4.2 * len(sets), 4.6), layout="constrained")
    if len(best) < len(results):
        figure.suptitle(f"the best {len(best)} of {len(results)} methods, by mean AUROC")
    panels = figure.subplots(1, len(sets), squeeze=False)[0]
    for panel, name in zip(panels, sets, strict=True):
        for result in best:
            false, true = thinned(
                *roc_points(result.scores.id, result.scores.ood[name]), MOST_POINTS
            )
            label = f"{result.method} ({100 * result.metrics[name].auroc:.1f})"
            style = line([one.method for one in results], result.method)
            panel.plot(100 * false, 100 * true, label=label, linewidth=1.6, **style)
        panel.plot([0, 100], [0, 100], color="0.75", linewidth=0.8, zorder=0)
        panel.axhline(100 * TPR, color="0.75", linewidth=0.8, linestyle=":", zorder=0)
        panel.set(title=name, xlabel="OOD taken as ID (FPR, %)", xlim=(-1, 101), ylim=(-1, 101))
        panel.set_aspect("equal")
        panel.legend(title="method (AUROC)", loc="lower right", fontsize=8, title_fontsize=8)
    panels[0].set_ylabel(f"{id_name} kept (TPR, %)")
    write_figure(path, figure)


def draw_histograms(path: Path, results: Sequence[MethodResult], id_name: str) -> None:
    """A row a method, a panel an OOD set: both score densities and the threshold of 95 % TPR."""
    from matplotlib.figure import Figure

    shown = results[:MOST_HISTOGRAMS]
    sets = list(results[0].metrics)
    figure = Figure(figsize=(4.2 * len(sets), 2.6 * len(shown)), layout="constrained")
    if len(shown) < len(results):
        figure.suptitle(f"the first {len(shown)} of {len(results)} methods")
    panels = figure.subplots(len(shown), len(sets), squeeze=False)
    for row, result in zip(panels, shown, strict=True):
        known = result.scores.id
        for panel, name in zip(row, sets, strict=True):
            foreign = result.scores.ood[name]
            edges, *shares = bars(known, foreign)
            for share, colour in zip(shares, (BLUE, ORANGE), strict=True):
                panel.stairs(100 * share, edges, fill=True, color=colour, alpha=0.55)
            panel.axvline(threshold_at(known, TPR), color="0.2", linewidth=1, linestyle="--")
            panel.set(xlabel=f"{result.method} score (higher: more ID)")
        row[0].set_ylabel("images, %")
    for panel, name in zip(panels[0], sets, strict=True):
        panel.set_title(name)
    told = id_name, "OOD set above", f"threshold: {100 * TPR:.0f} % of {id_name} are kept"
    drawn = [*panels[0, 0].patches, *panels[0, 0].lines]
    figure.legend(drawn, told, loc="outside lower center", ncols=len(sets), fontsize=9)
    write_figure(path, figure)


def bars(
    known: Float[np.ndarray, " n"], foreign: Float[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, " e"], Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """Edges of the bars of a histogram, and the share of ID and of OOD images in each.

    Tails beyond the outermost 0.2 % are counted in the bars at the ends: a few extreme scores would
    squeeze everything else into one bar.
    """
    low, high = np.quantile(np.concatenate([known, foreign]), [0.002, 0.998])
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    known_share, foreign_share = (
        np.histogram(np.clip(scores, edges[0], edges[-1]), edges)[0] / len(scores)
        for scores in (known, foreign)
    )
    return edges, known_share, foreign_share


def thinned(
    x: Float[np.ndarray, " t"], y: Float[np.ndarray, " t"], most: int
) -> tuple[Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """At most so many points of a rising curve, evenly along it, both ends among them."""
    if len(x) <= most:
        return x, y
    along = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], most)))
    return x[kept], y[kept]


def roc_points(
    known: Float[np.ndarray, " n"], foreign: Float[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """FPR and TPR at every distinct score, from (0, 0) to (1, 1)."""
    thresholds = np.unique(np.concatenate([known, foreign]))[::-1]

    def reached(scores):
        kept = 1 - np.searchsorted(np.sort(scores), thresholds) / len(scores)
        return np.concatenate([[0.0], kept])

    return reached(foreign), reached(known)
