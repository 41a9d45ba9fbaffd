"""The row step: an image of which something was replaced -> the probability of the class.

A row is five numbers: two pictures of an image (itself, and baselines: `pictures`), a table with
one rank a pixel, and an interval of ranks. Pixels whose rank lies in the interval come from the
second picture, all others from the first:

    x = (1 - r) source + r fill,   r = clip(stop - rank, 0, 1) where rank >= start, else 0

Whole ranks are replaced or not; a table of ranks in [0, 1], with start 0 and stop 1, blends: that
is how a map is laid over an image. All rows of an image, whoever asks for them, are one stream of
full batches through one compiled step; rows that are asked for twice are computed once.
"""

from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from jaxood.context import Model
from jaxood.errors import choose
from jaxood.models.blocked import forward_of
from jaxood.parallel import replicate, rounded_up
from jaxood.perturbation.pictures import BASELINES, IMAGE, pictures
from jaxood.perturbation.regions import Regions
from jaxood.perturbation.subject import Map, Subject
from jaxood.runner.runner import Runner

TIES, ORDERS, NOISE = range(3)  # what an image's draws are for
IN_FLIGHT = 3  # steps on the device: few, since whoever interrupts a run waits for them


class Rows(NamedTuple):
    """Altered images; see above.

    Attributes:
      source, fill: indices of pictures.
      table: index of a table of ranks.
    """

    source: Shaped[np.ndarray, " r"]
    fill: Shaped[np.ndarray, " r"]
    table: Shaped[np.ndarray, " r"]
    start: Shaped[np.ndarray, " r"]
    stop: Shaped[np.ndarray, " r"]


class Scene:
    """One image while rows are asked for: its pictures and tables, each made once.

    Attributes:
      pictures: their names.
      tables: ranks of pixels.
    """

    def __init__(self, subject: Subject, seed: int = 0):
        self.subject, self.seed = subject, seed
        self.pictures: list[str] = [IMAGE]
        self.tables: list[Map] = []
        self._known: dict[Hashable, int] = {}

    @property
    def pixels(self) -> int:
        height, width = self.subject.size
        return height * width

    def table(self, key: Hashable, make: Callable[[], np.ndarray]) -> int:
        """The index of a table; equal keys mean equal tables."""
        if key not in self._known:
            self._known[key] = len(self.tables)
            self.tables.append(make().astype(np.float32, copy=False))
        return self._known[key]

    def ranks(self, method: str) -> int:
        """A table of pixels in the order of falling relevance, ties by a draw."""

        def make() -> np.ndarray:
            relevance = self.subject.maps[method].ravel()
            order = np.argsort(self.subject.rng(self.seed, TIES).random(len(relevance)))
            order = order[np.argsort(-relevance[order], kind="stable")]
            ranks = np.empty(len(relevance), int)
            ranks[order] = np.arange(len(relevance))
            return ranks.reshape(self.subject.size)

        return self.table(("ranks", method), make)

    def region_ranks(self, method: str, regions: Regions) -> int:
        """The same for regions, by the sum of the map over each; ties in reading order."""

        def make() -> np.ndarray:
            order = np.argsort(-regions.sums(self.subject.maps[method]), kind="stable")
            ranks = np.empty(len(order), int)
            ranks[order] = np.arange(len(order))
            return ranks[regions.labels]

        return self.table(("regions", method, regions.side), make)

    def permutation(self, regions: Regions, draw: int, number: int) -> Int[np.ndarray, " f"]:
        """A random order of regions: the rank of each; `number` counts those of a draw."""
        purpose = ORDERS, draw, number, regions.side
        return self.subject.rng(self.seed, *purpose).permutation(regions.count)

    def random_ranks(self, regions: Regions, draw: int, count: int) -> list[int]:
        """Tables of the first so many of these orders."""

        def make(key: tuple[str, int, int, int]) -> np.ndarray:
            return self.permutation(regions, draw, key[-1]).astype(np.float32)[regions.labels]

        keys = [("random", regions.side, draw, number) for number in range(count)]
        new = [key for key in keys if key not in self._known]
        with ThreadPoolExecutor() as pool:  # NumPy draws without Python's lock
            made = dict(zip(new, pool.map(make, new), strict=True))
        return [self.table(key, partial(made.__getitem__, key)) for key in keys]

    def picture(self, name: str) -> int:
        """The index of a picture, "image" or one of `BASELINES`."""
        if name not in self.pictures:
            self.pictures.append(choose("baseline", name, BASELINES))
        return self.pictures.index(name)

    def rows(self, source: str, fill: str, table, stop, start=0) -> Rows:
        """Rows of two pictures; tables and intervals are numbers or arrays of one length."""
        shape = np.broadcast_shapes(*map(np.shape, (table, start, stop)), (1,))
        columns = self.picture(source), self.picture(fill), table, start, stop
        return Rows(*(np.broadcast_to(column, shape) for column in columns))


@dataclass(frozen=True)
class RowStep:
    """Replaces, classifies.

    Attributes:
      dtype: of the images that the backbone takes.
    """

    dtype: str

    def __call__(
        self,
        model: Model,
        rows: Float[Array, "b 5"],
        pictures: Float[Array, "k h w 3"],
        tables: Float[Array, "t h w"],
        target: Int[Array, ""],
    ) -> Float[Array, " b"]:
        """The probability of the target in each row."""

        def image(source, fill, table, start, stop):
            ranks = tables[table]
            share = jnp.where(ranks >= start, jnp.clip(stop - ranks, 0.0, 1.0), 0.0)[..., None]
            mixed = (1 - share) * pictures[source] + share * pictures[fill]
            return mixed.astype(self.dtype)

        columns = *rows[:, :3].astype(jnp.int32).T, *rows[:, 3:].T
        outputs = forward_of(model, image, columns)[0]
        return jax.nn.softmax(outputs.logits.astype(jnp.float32))[:, target]


def probabilities(
    runner: Runner,
    scene: Scene,
    rows: Rows,
    batch_size: int = 32,
    told: Callable[[float], None] = lambda share: None,
) -> Float[np.ndarray, " r"]:
    """The probability of the subject's class in each row, rows that are the same computed once.

    Args:
      batch_size: rows a step over the whole mesh.
      told: which share of all that is to be computed was, since the last call.
    """
    distinct, back = _distinct(rows, scene)
    size = rounded_up(batch_size, runner.mesh)
    model, subject = runner.model, scene.subject
    key = jax.random.key(subject.rng(scene.seed, NOISE).integers(1 << 32, dtype=np.uint32))
    named = pictures(tuple(scene.pictures), model.preprocessing, subject.image, key)
    tables = np.stack(scene.tables) if scene.tables else np.zeros((1, *subject.size), np.float32)
    shared = replicate((named, tables, np.int32(subject.target)), runner.mesh)
    step, found = RowStep(model.array_type), []
    in_flight: deque[Array] = deque()

    def fetch() -> None:
        found.append(jax.device_get(in_flight.popleft()))
        told(size / -(-len(distinct) // size * size))

    for first in range(0, len(distinct), size):
        chosen = np.resize(distinct[first : first + size], (size, 5)).astype(np.float32)
        in_flight.append(runner.run(step, (chosen,), shared))
        if len(in_flight) == IN_FLIGHT:
            fetch()
    while in_flight:
        fetch()
    return np.concatenate(found).astype(np.float64)[back]


def _distinct(rows: Rows, scene: Scene) -> tuple[Float[np.ndarray, "d 5"], Int[np.ndarray, " r"]]:
    """The rows that differ, and which of them each row is."""
    source, fill, table, start, stop = np.stack(rows).astype(np.float64)
    last = np.array([ranks.max() for ranks in scene.tables])[table.astype(int)]
    everything = (start <= 0) & (stop >= last + 1)
    # One picture, whatever the table.
    whole = everything | (stop <= np.maximum(start, 0)) | (source == fill)
    source = np.where(everything, fill, source)
    others = (np.where(whole, 0, column) for column in (table, start, stop))
    columns = source, np.where(whole, source, fill), *others
    distinct, back = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    return distinct, back
