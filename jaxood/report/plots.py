"""ROC curves and score histograms as PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxood.metrics.ood import TPR, threshold_at
from jaxood.report.figures import BLUE, ORANGE, write_figure
from jaxood.report.tables import MethodResult

MOST_CURVES = 8  # in one panel; more cannot be told apart
FINEST = 2000  # squares a side of a panel: a fifth of a pixel
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
            false, true = thinned(*roc_points(result.scores.id, result.scores.ood[name]))
            label = f"{result.method} ({100 * result.metrics[name].auroc:.1f})"
            panel.plot(100 * false, 100 * true, label=label, linewidth=1.6)
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
            # Tails of a few extreme scores would squeeze everything else into one bar.
            low, high = np.quantile(np.concatenate([known, foreign]), [0.002, 0.998])
            bins = np.linspace(low, high if high > low else low + 1, 41)
            for scores, colour, label in ((known, BLUE, id_name), (foreign, ORANGE, name)):
                counts, _ = np.histogram(np.clip(scores, bins[0], bins[-1]), bins)
                shares = 100 / len(scores) * counts
                panel.stairs(shares, bins, fill=True, color=colour, alpha=0.55, label=label)
            panel.axvline(threshold_at(known, TPR), color="0.2", linewidth=1, linestyle="--")
            panel.set(xlabel=f"{result.method} score (higher: more ID)", yticks=[])
            panel.legend(fontsize=8)
        row[0].set_ylabel("share of images")
    write_figure(path, figure)


def thinned(
    false: Float[np.ndarray, " t"], true: Float[np.ndarray, " t"]
) -> tuple[Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """The points of a rising curve that can be told apart: no more than one a fifth of a pixel."""
    squares = np.floor(FINEST * false) + np.floor(FINEST * true) * (FINEST + 1)
    kept = np.append(np.diff(squares) != 0, True)
    kept[0] = True
    return false[kept], true[kept]


def roc_points(
    known: Float[np.ndarray, " n"], foreign: Float[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """FPR and TPR at every distinct score, from (0, 0) to (1, 1)."""
    thresholds = np.unique(np.concatenate([known, foreign]))[::-1]

    def reached(scores):
        kept = 1 - np.searchsorted(np.sort(scores), thresholds) / len(scores)
        return np.concatenate([[0.0], kept])

    return reached(foreign), reached(known)
