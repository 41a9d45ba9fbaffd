"""ROAD: how fast the class goes when the pixels that a map calls relevant are removed.

At each fraction x the pixels that a map ranks first are removed and imputed, and the probability
of the class is read off the model again (Rong et al., ICML 2022, https://arxiv.org/abs/2202.00449).
MoRF removes the most relevant first: a faithful map makes it fall fast, a small area is good.
LeRF removes the least relevant first: a large area is good. Combined is (LeRF - MoRF) / 2. The area
is the trapezoid rule over the fractions that were asked for, x always the fraction removed.

Every (image, map, order) is a row; rows flow through one compiled step in batches of one size, all
fractions of a batch one after the other. The noise of a row is drawn once: each fraction takes it
turned round by another number of values, so that no pixel has the same twice.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8, UInt32

from jaxood.context import Model
from jaxood.errors import UsageError, choose, require
from jaxood.models.blocked import forward
from jaxood.models.registry import LoadedModel
from jaxood.parallel import rounded_up
from jaxood.perturbation.imputation import IMPUTATIONS, add_noise, draw_noise
from jaxood.perturbation.measure import Better, Finding, Laboratory, Measure
from jaxood.perturbation.removal import CONVENTIONS, removal_order
from jaxood.perturbation.statistics import area
from jaxood.perturbation.subject import Subject, image_number, require_map
from jaxood.preprocessing import Preprocessing
from jaxood.runner.runner import Runner

ORDERS = ("morf", "lerf")
MOST_STEPS = 10_000
GOLDEN = 0.6180339887498949  # its multiples lie far apart, modulo 1


@dataclass(frozen=True)
class RoadSettings:
    """How pixels are removed and filled in.

    Attributes:
      fractions: of the pixels to remove, rising, in [0, 1).
      convention: see `removal`.
      imputation: a name of `IMPUTATIONS`.
      noise: standard deviation of what is added to removed pixels, in the values imputed.
      before_normalisation: imputes values in [0, 1] and normalises afterwards, as ROAD's authors
        do; otherwise the normalised image is imputed, as SOFA's notebooks do.
    """

    fractions: tuple[float, ...] = tuple(i / 50 for i in range(50))
    convention: str = "exact"
    imputation: str = "linear"
    noise: float = 0.01
    before_normalisation: bool = False

    def __post_init__(self):
        rising = all(a < b for a, b in zip(self.fractions, self.fractions[1:], strict=False))
        if not self.fractions or not rising or self.fractions[0] < 0 or self.fractions[-1] >= 1:
            raise UsageError("fractions", self.fractions, "rising numbers from 0 to less than 1")
        choose("convention", self.convention, CONVENTIONS)
        choose("imputation", self.imputation, IMPUTATIONS)
        if not self.noise >= 0:
            raise UsageError("noise", self.noise, "a number of at least 0")


class Explained(NamedTuple):
    """An image and a map to be tested on it.

    Attributes:
      target: class whose probability is followed.
      map: of the image's size, higher means more relevant.
    """

    id: str
    image: UInt8[np.ndarray, "h w 3"]
    target: int
    method: str
    map: Float[np.ndarray, "h w"]


class Curves(NamedTuple):
    """What became of one image under one map; MoRF first, then LeRF.

    Attributes:
      confidence: probability of the target class.
      agrees: whether the target is the top class.
      iterations, residual: the most that an imputation took and left.
    """

    id: str
    method: str
    target: int
    confidence: Float[np.ndarray, "2 t"]
    agrees: Bool[np.ndarray, "2 t"]
    iterations: int
    residual: float

    def areas(self, fractions: tuple[float, ...]) -> tuple[float, float, float]:
        """MoRF, LeRF and combined."""
        morf, lerf = (float(area(curve, fractions)) for curve in self.confidence)
        return morf, lerf, (lerf - morf) / 2


class Rows(NamedTuple):
    """A batch on the device; see `Explained` and `removal_order`.

    Attributes:
      noise: of all values in a row, twice, so that it begins anywhere; none where none is added.
    """

    images: Float[Array, "b h w 3"]
    ranks: Int[Array, "b h w"]
    counts: Int[Array, "b t"]
    noise: Float[Array, "b n"]
    target: Int[Array, " b"]


@dataclass(frozen=True)
class Preparation:
    """Puts pixels in order; the values to impute are normalised or in [0, 1]."""

    settings: RoadSettings
    preprocessing: Preprocessing

    def __call__(
        self,
        model: Model | None,
        images: UInt8[Array, "b h w 3"],
        maps: Float[Array, "b h w"],
        least_first: Bool[Array, " b"],
        numbers: UInt32[Array, " b"],
        target: Int[Array, " b"],
        key: PRNGKeyArray,
    ) -> Rows:
        settings = self.settings
        if settings.before_normalisation:
            values = images.astype(jnp.float32) / 255
        else:
            values = self.preprocessing.normalise(images)
        keys = jax.vmap(partial(jax.random.fold_in, key))(numbers)
        ties, noise = (
            jax.vmap(lambda key: jax.random.fold_in(key, i))(keys)  # noqa: B023
            for i in (0, 1)
        )
        order = removal_order(maps, least_first, settings.fractions, settings.convention, ties)
        drawn = jnp.zeros((len(values), 0))
        if settings.noise:
            drawn = jnp.tile(draw_noise(values, noise).reshape(len(values), -1), (1, 2))
        return Rows(values, *order, drawn, target)


def perturb(settings: RoadSettings, rows: Rows, index: Int[Array, ""]):
    """Imputed images at the fraction of that index: with noise, and what the imputation gave."""
    removed = rows.ranks < rows.counts[:, index][:, None, None]
    imputed = IMPUTATIONS[settings.imputation](rows.images, removed)
    if not settings.noise:
        return imputed.images, imputed
    # By the fraction, not its index among the others: the same noise whatever else is asked for.
    turns = np.round(np.asarray(settings.fractions) * 1e6) * GOLDEN % 1
    count = rows.noise.shape[1] // 2
    first = count - jnp.asarray(turns * count, jnp.int32)[index]
    noise = jax.lax.dynamic_slice_in_dim(rows.noise, first, count, axis=1)
    noise = settings.noise * noise.reshape(rows.images.shape)
    return add_noise(imputed.images, removed, noise), imputed


@dataclass(frozen=True)
class RoadStep:
    """Removes, imputes, classifies.

    Attributes:
      dtype: of the images that the backbone takes.
    """

    settings: RoadSettings
    preprocessing: Preprocessing
    dtype: str

    def __call__(self, model: Model, rows: Rows, index):
        """Target probability, agreement with the top class, iterations and residual."""
        images, imputed = perturb(self.settings, rows, index)
        if self.settings.before_normalisation:
            mean, std = (jnp.asarray(v) for v in (self.preprocessing.mean, self.preprocessing.std))
            images = (images - mean[None, None, None]) / std[None, None, None]
        outputs = forward(model, images.astype(self.dtype))[0]
        logits = outputs.logits.astype(jnp.float32)
        probability = jnp.take_along_axis(jax.nn.softmax(logits), rows.target[:, None], 1)[:, 0]
        agrees = logits.argmax(axis=1) == rows.target
        return probability, agrees, imputed.iterations, imputed.residual


def road_curves(
    runner: Runner,
    explained: Iterable[Explained],
    settings: RoadSettings,
    *,
    batch_size: int = 32,
    seed: int = 0,
    draw: int = 0,
    progress: Callable[[int], None] = lambda images: None,
) -> Iterator[Curves]:
    """MoRF and LeRF of each map, in the order given, a batch at a time.

    Args:
      batch_size: perturbed images a step over the whole mesh.
      seed: of noise and of ties; an image's depend on its id and on nothing else.
      draw: another number draws others, under the same seed.
      progress: told how many perturbed images were classified since the last call.

    Raises:
      UsageError: for a map that is not finite, not of the image's size, or that removes all
        pixels at a fraction (only ties can do that, under the notebook's convention).
    """
    model = runner.model
    size = rounded_up(max(batch_size, 2), runner.mesh)
    pairs = max(size // 2, 1)
    key = jax.random.key(seed)
    key = jax.random.fold_in(key, draw) if draw else key
    prepare = Preparation(settings, model.preprocessing)
    step = RoadStep(settings, model.preprocessing, model.array_type)
    explained = iter(explained)
    while items := list(islice(explained, pairs)):
        for item in items:
            require_map(item.id, item.image.shape[:2], item.method, item.map)
        filled = [items[min(i, len(items) - 1)] for i in range(pairs)]
        rows = runner.run(prepare, _in_both_orders(filled, size), (key,))
        _require_kept(items, settings, jax.device_get(rows.counts))
        parts = runner.divided((rows,))
        found = []
        for index in range(len(settings.fractions)):
            found.append(runner.run(step, parts, (np.int32(index),)))
            if len(found) > 1:  # one step in flight while the last one is waited for
                jax.block_until_ready(found[-2])
                progress(2 * len(items))
        columns = [np.stack(column, axis=1) for column in zip(*jax.device_get(found), strict=True)]
        progress(2 * len(items))
        for i, item in enumerate(items):
            probability, agrees, iterations, residual = (
                column[2 * i : 2 * i + 2] for column in columns
            )
            yield Curves(
                item.id,
                item.method,
                item.target,
                probability,
                agrees,
                int(iterations.max()),
                float(residual.max()),
            )


def _in_both_orders(items: Sequence[Explained], size: int) -> tuple[np.ndarray, ...]:
    """Images, maps, whether the least relevant goes first, numbers and targets of `size` rows."""
    twice = [item for item in items for _ in ORDERS]
    twice += twice[-1:] * (size - len(twice))
    return (
        np.stack([item.image for item in twice]),
        np.stack([item.map for item in twice]).astype(np.float32),
        np.arange(size) % 2 == 1,
        np.array([image_number(item.id) for item in twice], np.uint32),
        np.array([item.target for item in twice], np.int32),
    )


def _require_kept(items, settings: RoadSettings, counts: Int[np.ndarray, "b t"]) -> None:
    for i, item in enumerate(items):
        pixels = item.map.size
        for order, removed in zip(ORDERS, counts[2 * i : 2 * i + 2], strict=True):
            if removed.max() >= pixels:
                fraction = settings.fractions[int(np.argmax(removed >= pixels))]
                raise UsageError(
                    f"map {item.method} of {item.id}",
                    f"all {pixels} pixels removed at fraction {fraction:g} of {order}: they are "
                    "tied at the threshold",
                    "at least one pixel kept",
                    "Use the convention exact, or lower fractions.",
                )


_perturb = partial(jax.jit, static_argnums=0)(perturb)
_prepared = partial(jax.jit, static_argnums=0)(lambda prepare, *rows: prepare(None, *rows))


def perturbed_images(
    model: LoadedModel, items: Sequence[Explained], settings: RoadSettings, seed: int = 0
) -> UInt8[np.ndarray, "r t h w 3"]:
    """What the model saw, as pictures: MoRF and LeRF of each item, at every fraction."""
    key = jax.random.key(seed)
    prepare = Preparation(settings, model.preprocessing)
    rows = _prepared(prepare, *_in_both_orders(items, 2 * len(items)), key)
    shown = []
    for index in range(len(settings.fractions)):
        images, _ = _perturb(settings, rows, np.int32(index))
        shown.append(jax.device_get(images))
    values = np.stack(shown, axis=1)
    if not settings.before_normalisation:
        scale, shift = model.preprocessing.std, model.preprocessing.mean
        values = values * np.asarray(scale, np.float32) + np.asarray(shift, np.float32)
    return np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)


@dataclass(frozen=True)
class Road(Measure):
    """The class while pixels are removed and imputed, MoRF and LeRF: areas under the curves.

    Attributes:
      steps: fractions 0, 1/steps ... of the pixels are removed; `fractions`: these instead.
      convention, imputation, noise, before_normalisation: see `RoadSettings`.
      draw: another number draws other noise, under the same seed.
    """

    name: ClassVar[str] = "road"
    paper: ClassVar[str] = "Rong et al., ICML 2022"
    version: ClassVar[int] = 4  # the imputation takes other steps
    columns: ClassVar[Mapping[str, Better]] = {"morf": "low", "lerf": "high"}

    steps: int = 50
    convention: str = "exact"
    imputation: str = "linear"
    noise: float = 0.01
    before_normalisation: bool = False
    fractions: tuple[float, ...] | None = None
    draw: int = 0

    def __post_init__(self):
        require(self.draw >= 0, "draw", self.draw, "at least 0")
        require(1 <= self.steps <= MOST_STEPS, "steps", self.steps, f"1 to {MOST_STEPS}")
        self.settings  # noqa: B018 (is checked)

    @property
    def settings(self) -> RoadSettings:
        chosen = self.fractions
        return RoadSettings(
            tuple(step / self.steps for step in range(self.steps)) if chosen is None else chosen,
            self.convention,
            self.imputation,
            self.noise,
            self.before_normalisation,
        )

    @property
    def axis(self) -> Sequence[float]:
        """The fraction of the pixels that is removed."""
        return self.settings.fractions

    def work(self, maps: int) -> int:
        return len(ORDERS) * len(self.axis) * maps

    def findings(self, laboratory: Laboratory, subjects: Sequence[Subject]) -> Iterator[Finding]:
        """Beside the columns, values hold iterations and residual, and curves the agreement."""
        items = (
            Explained(subject.id, subject.image, subject.target, method, given)
            for subject in subjects
            for method, given in subject.maps.items()
        )
        rows = len(ORDERS) * sum(len(subject.maps) for subject in subjects)
        batches = max(-(-rows // laboratory.batch_size), 1)
        for curves in road_curves(
            laboratory.runner,
            items,
            self.settings,
            batch_size=2 * -(-rows // (2 * batches)),  # all alike, none of them half full
            seed=laboratory.seed,
            draw=self.draw,
            progress=laboratory.told,
        ):
            morf, lerf, _ = curves.areas(self.settings.fractions)
            solved = {"iterations": curves.iterations, "residual": curves.residual}
            told = dict(zip(ORDERS, curves.confidence.tolist(), strict=True))
            agrees = zip(ORDERS, curves.agrees.astype(int).tolist(), strict=True)
            told |= {f"{order} agrees": row for order, row in agrees}
            yield Finding(
                curves.id,
                curves.method,
                self.key,
                curves.target,
                {"morf": morf, "lerf": lerf, **solved},
                told,
            )


def curves_of(finding: Finding) -> Curves:
    """The curves that a finding of `Road` holds."""
    return Curves(
        finding.id,
        finding.method,
        finding.target,
        np.array([finding.curves[order] for order in ORDERS], np.float32),
        np.array([finding.curves[f"{order} agrees"] for order in ORDERS], bool),
        int(finding.values["iterations"]),
        finding.values["residual"],
    )
