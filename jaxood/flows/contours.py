"""What scores say of every point of a plane in which the training data are two moons.

A classifier is sure of itself wherever its logits are large, data or no data; the similarity to
the nearest training features knows where data lie, but not how sure the classifier is there;
NNGuide multiplies the two (Park, Jung, Teoh, ICCV 2023).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxood.demo.moons import POINTS, forward, train, two_moons
from jaxood.errors import UsageError, require_seed
from jaxood.flows.request import MethodSource, parsed
from jaxood.metrics.ood import threshold_at
from jaxood.report.contours import Panel, draw_contours
from jaxood.report.figures import check_format

EDGE = 1.5  # of the picture, beyond the data
SIDE = 300  # points of the grid along an axis
TPR = 0.95


@dataclass(frozen=True)
class ContoursResult:
    """What `contours` found.

    Attributes:
      axes: x and y of the grid.
      panels: scores of the grid and the threshold, by method.
      points, labels: what the methods were fitted on.
    """

    axes: tuple[Float[np.ndarray, " x"], Float[np.ndarray, " y"]]
    panels: Mapping[str, Panel]
    points: Float[np.ndarray, "n 2"]
    labels: Int[np.ndarray, " n"]

    def __str__(self) -> str:
        return "\n".join(
            f"{name}: takes {np.mean(panel.values >= panel.threshold):.0%} of the plane"
            " as in distribution"
            for name, panel in self.panels.items()
        )

    def save(self, folder: Path | str, *, figures: str = "png") -> Path:
        """Draws one picture a method and, of several, one with all of them side by side.

        Args:
          figures: their format: "png", "svg" or "pdf".
        """
        check_format(figures)
        groups = {name: [name] for name in self.panels}
        if len(groups) > 1:
            groups["all"] = list(self.panels)
        for name, shown in groups.items():
            panels = {method: self.panels[method] for method in shown}
            path = Path(folder) / f"contours-{name}.{figures}"
            draw_contours(path, self.axes, panels, self.points, self.labels)
        return Path(folder)


def contours(
    methods: MethodSource | Sequence[MethodSource] = ("energy", "knn", "nnguide"),
    *,
    seed: int = 0,
) -> ContoursResult:
    """Scores every point of the plane around two moons.

    The threshold is the one that 95 % of held-out points reach; a good score draws its line close
    around the moons.

    Args:
      methods: those that need only features and logits.
      seed: of data and network.

    Raises:
      UsageError: an unknown method, or one that needs an image.
    """
    require_seed("seed", seed)
    chosen = parsed(methods)
    for method in chosen:
        if method.extractors:
            wanted = "methods that need features and logits only"
            raise UsageError("methods", f"{method.name}, which needs a feature map", wanted)
    points, labels = two_moons(seed)
    layers = train(jnp.asarray(points[:POINTS]), jnp.asarray(labels[:POINTS]), seed)
    low, high = points.min(axis=0) - EDGE, points.max(axis=0) + EDGE
    x, y = (np.linspace(a, b, SIDE, dtype=np.float32) for a, b in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    known, held_out, plane = (
        forward(layers, jnp.asarray(part)) for part in (points[:POINTS], points[POINTS:], grid)
    )
    panels = {}
    for method in chosen:
        state = method.fit_state(known, labels[:POINTS], layers[-1])
        score = jax.jit(method.score)
        threshold = threshold_at(np.asarray(score(state, held_out, layers[-1])), TPR)
        values = np.asarray(score(state, plane, layers[-1])).reshape(SIDE, SIDE)
        panels[method.name] = Panel(values, threshold)
    return ContoursResult((x, y), panels, points[:POINTS], labels[:POINTS])
