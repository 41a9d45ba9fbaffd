"""The whole flow of an evaluation: one pass over each data set, then every method on small arrays.

image set -> uint8 batches -> device: normalise, backbone, extractors -> Features -> scores
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from jaxood.compiling import jit
from jaxood.data.images import ImageSet
from jaxood.data.suites import Suite
from jaxood.detectors.bank import draw_bank
from jaxood.detectors.methods import DETECTORS, Method
from jaxood.errors import UsageError
from jaxood.evaluation.metrics import evaluate as measure
from jaxood.evaluation.report import MethodResult
from jaxood.extraction import Extractor, ForwardContext
from jaxood.models.blocked import forward
from jaxood.models.registry import LoadedModel
from jaxood.outputs import Head, ModelOutputs
from jaxood.parallel import data_mesh, replicate, rounded_up, shard
from jaxood.preprocessing import Preprocessing
from jaxood.store import Features, FeatureStore, fingerprint, joined

IN_FLIGHT = 2  # batches on the device: one computes while the next is copied there
CHUNK = 1024  # images between two writes of the store
SCORE_ROWS = 64, 1024  # rows scored at once: few sizes, as a method is compiled for each

Progress = Callable[[int, int], None]  # images done, images in all


@partial(jit, static_argnums=(0, 1, 2, 3))
def forward_and_extract(
    graphdef,
    preprocessing: Preprocessing,
    dtype: str,
    extractors: tuple[tuple[str, Extractor], ...],
    state,
    images: UInt8[Array, "n h w 3"],
) -> tuple[Float[Array, "n c"], Float[Array, "n k"], dict[str, Float[Array, "n d"]]]:
    """The compiled step: the feature map lives and dies in here."""
    model = nnx.merge(graphdef, state)
    normalised = preprocessing.normalise(images, jnp.dtype(dtype))
    outputs = forward(model, normalised)
    pooling = getattr(model, "pooling", "mean")
    context = ForwardContext(normalised, outputs, model.head, model, pooling)
    extras = {name: extractor(context) for name, extractor in extractors}
    return jax.tree.map(
        lambda array: array.astype(jnp.float32), (outputs.pooled, outputs.logits, extras)
    )


def extract(
    model: LoadedModel,
    images: ImageSet,
    extractors: Mapping[str, Extractor] | None = None,
    *,
    batch_size: int = 32,
    mesh: Mesh | None = None,
    store: FeatureStore | None = None,
    progress: Progress | None = None,
) -> Features:
    """One pass: pooled, logits and what `extractors` keep, for every image that can be decoded.

    Args:
      batch_size: images a step over the whole mesh; rounded up to fill it.
      store: chunks that are there are not computed again, new ones are written as they come.

    Raises:
      UsageError: when not one image can be decoded.
    """
    chunks, first = store.load() if store else ([], 0)
    if progress:
        progress(first, len(images))
    pending: list[Features] = []
    rows = stream(model, images, extractors, batch_size=batch_size, mesh=mesh, start=first)
    for end, features in rows if first < len(images) else ():
        pending.append(features)
        if progress:
            progress(end, len(images))
        if end == len(images) or end - first >= CHUNK:
            chunks.append(joined(pending))
            pending = []
            if store:
                store.save(chunks[-1], first, end)
            first = end
    features = joined(chunks)
    if not len(features):
        first = next(iter(features.skipped.items()))
        raise UsageError(
            images.name,
            f"{len(images)} images, none of which can be decoded",
            "images",
            f"The first, {first[0]}: {first[1]}",
        )
    return features


def stream(
    model: LoadedModel,
    images: ImageSet,
    extractors: Mapping[str, Extractor] | None = None,
    *,
    batch_size: int = 32,
    mesh: Mesh | None = None,
    start: int = 0,
) -> Iterator[tuple[int, Features]]:
    """Yields, batch by batch, how many images are done and the features of the decodable ones."""
    mesh = mesh or data_mesh()
    batch_size = rounded_up(min(batch_size, len(images)), mesh)
    graphdef, state = nnx.split(model.module)
    step = partial(
        forward_and_extract,
        graphdef,
        model.preprocessing,
        model.dtype,
        tuple((extractors or {}).items()),
        replicate(state, mesh),
    )
    reported: set[str] = set()

    def fetched(batch, on_device) -> tuple[int, Features]:
        pooled, logits, extras = jax.device_get(on_device)
        new = {own: why for own, why in images.skipped.items() if own not in reported}
        new = {images.ids[i]: new[images.ids[i]] for i in batch.indices[~batch.valid] if i >= 0}
        reported.update(new)
        valid = batch.valid
        extras = {name: value[valid] for name, value in extras.items()}
        features = Features(pooled[valid], logits[valid], extras, batch.indices[valid], new)
        return int(batch.indices.max()) + 1, features

    in_flight: deque = deque()
    for batch in images.batches(model.preprocessing, batch_size, start):
        in_flight.append((batch, step(shard(batch.images, mesh))))
        if len(in_flight) == IN_FLIGHT:
            yield fetched(*in_flight.popleft())
    while in_flight:
        yield fetched(*in_flight.popleft())


def extraction_fingerprint(
    model: LoadedModel, images: ImageSet, extractors: Mapping[str, Extractor]
) -> str:
    """Changes with anything that the stored features depend on."""
    return fingerprint(
        model.name,
        model.weights_hash,
        model.preprocessing,
        model.dtype,
        images.fingerprint(),
        sorted(extractors.items()),
    )


@partial(jax.jit, static_argnums=0)
def _score_rows(method, state, outputs: ModelOutputs, head: Head) -> Float[Array, " n"]:
    return method.score(state, outputs, head)


def score(method, state, features: Features, head: Head, mesh: Mesh | None = None) -> np.ndarray:
    """Scores extracted features in blocks of one size; returns one score a row, on the host."""
    mesh = mesh or data_mesh()
    few, many = SCORE_ROWS
    block = rounded_up(few if len(features) <= few else many, mesh)
    state, head = replicate((state, head), mesh)
    wanted = {name: features.extras[name] for name in method.extractors}
    outputs = ModelOutputs(None, features.pooled, features.logits, wanted)
    scores = []
    for first in range(0, len(features), block):
        rows = jax.tree.map(lambda array: _block(array, first, block), outputs)  # noqa: B023
        scores.append(_score_rows(method, state, shard(rows, mesh), head))
    return np.concatenate(jax.device_get(scores))[: len(features)]


def _block(array: np.ndarray, first: int, size: int) -> np.ndarray:
    """Rows from `first` on, the last one repeated to fill `size`."""
    rows = array[first : first + size]
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


def fit_outputs(features: Features) -> ModelOutputs:
    """Extracted features as what `fit` takes; on the host, as a bank may outgrow a device."""
    return ModelOutputs(None, features.pooled, features.logits, features.extras)


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
      features: by set; the training images, or the bank drawn from them, under "train".
      sets: the image sets that the features are of.
      methods: by name.
      bank: places in the training set of the images that methods were fitted on.
    """

    results: list[MethodResult]
    features: dict[str, Features]
    sets: dict[str, ImageSet]
    methods: dict[str, Method]
    bank: np.ndarray | None


def evaluate(
    model: LoadedModel,
    suite: Suite,
    methods: Sequence[Method],
    *,
    batch_size: int = 32,
    bank_fraction: float | None = None,
    balanced_bank: bool = False,
    convention: str = "plain",
    seed: int = 0,
    folder: Path | None = None,
    progress: Callable[[str], Progress] | None = None,
) -> Evaluation:
    """Extracts every set of a suite once, then fits, scores and measures each method.

    Args:
      methods: each also stands against the same score without view and transforms, if that is here.
      bank_fraction: of the training images, drawn with `seed`, that methods are fitted on.
      balanced_bank: draws as many of each class.
      convention: of FPR95, see `jaxood.evaluation.metrics.FPR_CONVENTIONS`.
      folder: where extracted features are kept, for an interrupted run to go on.
      progress: given a set's name, returns what is told of each batch.

    Raises:
      UsageError: when the suite lacks what a method needs; before anything is computed.
    """
    bank = train = None
    if any(method.needs_train for method in methods):
        bank = bank_indices(suite, methods, bank_fraction, seed, balanced_bank)
        train = suite.train.subset(bank)
    sets = {"train": train} if train else {}
    sets |= {suite.id_test.name: suite.id_test} | suite.ood
    extractors = {key: one for method in methods for key, one in method.extractors.items()}
    mesh = data_mesh()

    features = {}
    for name, images in sets.items():
        store = None
        if folder:
            store = FeatureStore(folder, name, extraction_fingerprint(model, images, extractors))
        features[name] = extract(
            model,
            images,
            extractors,
            batch_size=batch_size,
            mesh=mesh,
            store=store,
            progress=progress(name) if progress else None,
        )

    head = model.module.head
    outputs = labels = None
    if train:
        outputs = fit_outputs(features["train"])
        labels = None if train.labels is None else train.labels[features["train"].indices]
    results = []
    for method in methods:
        state = method.fit(outputs, labels, head)
        scores = {
            name: score(method, state, own, head, mesh)
            for name, own in features.items()
            if name != "train"
        }
        known = scores[suite.id_test.name]
        measured = {name: measure(known, scores[name], convention, seed) for name in suite.ood}
        results.append(MethodResult(method.name, baseline(method.name), scores, measured))
    return Evaluation(results, features, sets, {method.name: method for method in methods}, bank)


def baseline(method: str) -> str | None:
    """The name of the same score without the view and the transforms of a method, if it has any."""
    last = method.rpartition("+")[2]
    score = last if last.partition("[")[0] in DETECTORS else "energy"
    return score if score != method else None


def bank_indices(
    suite: Suite,
    methods: Sequence[Method],
    fraction: float | None,
    seed: int,
    balanced: bool = False,
) -> np.ndarray:
    """Which training images methods are fitted on, chosen before any is read."""
    needy = next(method for method in methods if method.needs_train)
    if suite.train is None:
        raise UsageError(
            f"method {needy.name}", "no training images", "some to fit on", "Give --train-dir"
        )
    needy = next((method for method in methods if method.needs_labels), None)
    if needy and suite.train.labels is None:
        raise UsageError(
            f"method {needy.name}",
            "training images without classes",
            "a folder with a sub-folder for each class",
        )
    key = jax.random.key(seed)
    return draw_bank(len(suite.train), suite.train.labels, fraction, key, balanced)
