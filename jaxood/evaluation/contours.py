"""What a score says of every point of a plane in which the training data are two moons.

The network is a multilayer perceptron, trained here; its last hidden layer gives the features.
Its units are sines: beyond the data, rectified ones would go on in straight lines, with the same
direction however far, so that no cosine between features could tell far from near.

A classifier is sure of itself wherever its logits are large, data or no data; the similarity to
the nearest training features knows where data lie, but not how sure the classifier is there;
NNGuide multiplies the two (Park, Jung, Teoh, ICCV 2023).
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxood.detectors.methods import parse_method
from jaxood.errors import UsageError
from jaxood.evaluation.metrics import threshold_at
from jaxood.evaluation.plots import BLUE, ORANGE, save
from jaxood.outputs import LinearHead, ModelOutputs

WIDTH = 64  # of the hidden layers
STEPS = 2000
LEARNING_RATE = 3e-3
POINTS = 1000  # a moon pair for training, as many more for the threshold
NOISE = 0.1  # standard deviation; a moon has radius 1
EDGE = 1.5  # of the picture, beyond the data
SIDE = 300  # points of the grid along an axis
TPR = 0.95


def two_moons(seed: int) -> tuple[Float[np.ndarray, "n 2"], Int[np.ndarray, " n"]]:
    """Twice `POINTS` noisy points on two interleaved half circles, and which of them."""
    from sklearn.datasets import make_moons

    points, labels = make_moons(2 * POINTS, noise=NOISE, random_state=seed)
    return points.astype(np.float32), labels


def train(points: Float[Array, "n 2"], labels: Int[Array, " n"], seed: int) -> list[LinearHead]:
    """The layers of the network, fitted to all points at once with Adam."""
    import optax

    keys = jax.random.split(jax.random.key(seed), 3)
    sizes = (2, WIDTH, WIDTH, 2)
    layers = [
        LinearHead(jax.random.normal(key, (a, b)) * jnp.sqrt(2 / a), jnp.zeros(b))
        for key, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]
    optimizer = optax.adam(LEARNING_RATE)

    def loss(layers):
        logits = forward(layers, points).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(carry, _):
        layers, state = carry
        updates, state = optimizer.update(jax.grad(loss)(layers), state)
        return (optax.apply_updates(layers, updates), state), None

    start = layers, optimizer.init(layers)
    with jax.numpy_dtype_promotion("standard"):  # optax's bias correction promotes
        return jax.jit(lambda: jax.lax.scan(step, start, length=STEPS)[0][0])()


def forward(layers: Sequence[LinearHead], points: Float[Array, "n 2"]) -> ModelOutputs:
    hidden = points
    for layer in layers[:-1]:
        hidden = jnp.sin(layer(hidden))
    return ModelOutputs(None, hidden, layers[-1](hidden))


def draw_contours(folder: Path, methods: Sequence[str], seed: int = 0) -> list[Path]:
    """Draws one picture a method and, of several, one with all of them side by side.

    The line encloses the points that score at least as high as 95 % of held-out data; a good
    score draws it close around the moons.

    Raises:
      UsageError: an unknown method, or one that needs more than features and logits.
    """
    parsed = [parse_method(text) for text in dict.fromkeys(methods)]
    for method in parsed:
        if method.extractors:
            wanted = "methods that need features and logits only"
            raise UsageError("--method", f"{method.name}, which needs a feature map", wanted)
    points, labels = two_moons(seed)
    layers = train(jnp.asarray(points[:POINTS]), jnp.asarray(labels[:POINTS]), seed)
    low, high = points.min(axis=0) - EDGE, points.max(axis=0) + EDGE
    axes = [np.linspace(a, b, SIDE, dtype=np.float32) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    known, held_out, plane = (
        forward(layers, jnp.asarray(part)) for part in (points[:POINTS], points[POINTS:], grid)
    )

    panels = {}
    for method in parsed:
        state = method.fit(known, labels[:POINTS], layers[-1])
        score = jax.jit(method.score)
        threshold = threshold_at(np.asarray(score(state, held_out, layers[-1])), TPR)
        values = np.asarray(score(state, plane, layers[-1])).reshape(SIDE, SIDE)
        panels[method.name] = values, threshold

    groups = {name: [name] for name in panels}
    if len(panels) > 1:
        groups["all"] = list(panels)
    paths = []
    for name, shown in groups.items():
        paths.append(folder / f"contours-{name}.png")
        picture = _picture(axes, {one: panels[one] for one in shown}, points, labels)
        save(picture, paths[-1])
    return paths


def _picture(axes, panels, points, labels):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(panels), 4.4), layout="constrained")
    shown = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (name, (values, threshold)) in zip(shown, panels.items(), strict=True):
        filled = panel.contourf(*axes, values, levels=20, cmap="cividis")
        panel.contour(*axes, values, levels=[threshold], colors="white", linewidths=2)
        for label, colour in enumerate((BLUE, ORANGE)):
            own = points[:POINTS][labels[:POINTS] == label]
            panel.scatter(*own.T, s=5, color=colour, edgecolors="white", linewidths=0.2)
        accepted = np.mean(values >= threshold)
        panel.set(title=f"{name}: takes {accepted:.0%} of the plane as in distribution")
        panel.set(xticks=[], yticks=[], aspect="equal")
        figure.colorbar(filled, ax=panel, shrink=0.8, label="score (higher: more ID)")
    return figure
