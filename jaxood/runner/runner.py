"""The device side, once: mesh, compiled step, padding, prefetch and stream.

image set -> uint8 batches -> device: normalise, backbone, extractors -> host
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial, reduce
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxood.compiling import jit
from jaxood.context import Extractor
from jaxood.data.cached import cached_batches
from jaxood.data.images import Batch, ImageSet
from jaxood.data.shares import own_share
from jaxood.errors import UsageError, require
from jaxood.files import file_name, fingerprint
from jaxood.lanes import Parts, divided, in_lanes, lanes
from jaxood.models.backbone import Backbone
from jaxood.models.layers import with_kernels_laid_out
from jaxood.models.registry import LoadedModel
from jaxood.parallel import data_mesh, free_bytes, replicate, rounded_up, shard
from jaxood.processes import gathered_rows, gathered_values, own_name, require_agreed, share_of
from jaxood.room import announce, free_disk, free_memory
from jaxood.runner.batch_size import AUTO, DEFAULT, BatchSize, chosen, step_bytes
from jaxood.runner.columns import Chunk, Column, MemoryColumn, end_of
from jaxood.runner.features import Features, Skipped, joined
from jaxood.runner.step import TOP_CLASS, Extracted, ExtractionStep
from jaxood.runner.store import StoredColumn

IN_FLIGHT = 2  # batches on the device: one computes while the next is copied there
MOST_ROWS = 1 << 16  # images a step
CHUNK = 1024  # images between two writes of the store
CHUNK_SECONDS = 60.0  # or so much time, whatever comes first
OUTPUTS = "outputs"  # the column of what the model itself gives

Progress = Callable[[int, int], None]  # images done, images in all
SetProgress = Callable[[str], Progress]  # given what is worked on, what is told of each batch


class _Network:
    """A network without its weights, a static argument; hashed once, as it is large."""

    def __init__(self, graphdef, structure):
        self._parts = graphdef, structure
        self._hash = hash(self._parts)

    def __hash__(self):
        return self._hash

    def __eq__(self, other):
        return self is other or (isinstance(other, _Network) and self._parts == other._parts)

    def merged(self, weights):
        graphdef, structure = self._parts
        return nnx.merge(graphdef, jax.tree.unflatten(structure, weights))


@partial(jit, static_argnums=(0, 1, 2))
def _on_mesh(function: Callable, network: _Network, mesh: Mesh, weights, rows, shared):
    """Each device works on its rows, none needs those of another."""

    def on_each_device(weights, rows, shared):
        return function(network.merged(weights), *rows, *shared)

    return jax.shard_map(
        on_each_device,
        mesh=mesh,
        in_specs=(P(), P("data"), P()),
        out_specs=P("data"),
        check_vma=False,
    )(weights, rows, shared)


class Runner:
    """A model on the devices of this process; of several processes each extracts its share.

    Attributes:
      mesh: batches are split along it; every device holds the weights.
      cache_images: folder where images that were decoded are kept, for the next time.
    """

    def __init__(
        self,
        model: LoadedModel,
        mesh: Mesh | None = None,
        cache_images: Path | str | None = None,
    ):
        self.model = model
        self.cache_images = cache_images
        self.mesh = mesh or data_mesh()
        module = with_kernels_laid_out(model.module, self.mesh.devices.flat[0].platform)
        graphdef, state = nnx.split(module)
        weights, structure = jax.tree.flatten(state)
        self._network = _Network(graphdef, structure)
        self._weights = replicate(weights, self.mesh)
        self._announced: set[tuple[ExtractionStep, int]] = set()

    def rows(self, batch_size: int, images: int) -> int:
        """Images a step: `batch_size`, or less for few images; made to fill the mesh.

        Raises:
          UsageError: for a batch of none, or one that is out of all proportion.
        """
        whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
        holds = whole and 1 <= batch_size <= MOST_ROWS
        require(holds, "batch_size", batch_size, f"1 to {MOST_ROWS} images")
        return rounded_up(max(min(batch_size, images), 1), self.mesh)

    def divided(self, rows: Sequence[Any]) -> Parts:
        """`rows` for more than one `run`, laid out once."""
        parts = divided(tuple(rows), self._lanes(len(jax.tree.leaves(rows)[0])))
        return Parts(tuple(shard(part, self.mesh) for part in parts.rows))

    def run(
        self, function: Callable, rows: Sequence[Any] | Parts, shared: Sequence[Any] = ()
    ) -> Any:
        """`function(model, *rows, *shared)`, compiled, over the mesh; results stay on the devices.

        Args:
          function: hashable by what it computes; a row of its result is of the same row of `rows`.
          rows: pytrees of arrays, split along their first axis, which the mesh divides; or what
            `divided` made of them.
          shared: pytrees of arrays that every device gets whole.
        """
        shared = replicate(tuple(shared), self.mesh)

        def call(rows):
            return _on_mesh(function, self._network, self.mesh, self._weights, rows, shared)

        return in_lanes(call, rows if isinstance(rows, Parts) else self.divided(rows))

    def _lanes(self, count: int) -> int:
        """One for a model of the user's own: it may depend on the batch.

        And XLA may compute its convolutions by Eigen, which is wrong in two programs at once.
        """
        return lanes(self.mesh, count) if isinstance(self.model.module, Backbone) else 1

    def step(self, extractors: Sequence[Extractor] = ()) -> ExtractionStep:
        model = self.model
        return ExtractionStep(
            model.preprocessing, model.array_type, model.pooling, tuple(extractors)
        )

    def check(
        self,
        extractors: Sequence[Extractor],
        batch_size: BatchSize = DEFAULT,
        images: int = 1 << 30,
    ) -> int:
        """Traces the step, without computing: what a model lacks is said before the pass.

        Returns:
          Images a step: `batch_size`, or what "auto" stands for.

        Raises:
          UsageError: when an extractor and the model do not go together; when "auto" finds no room
            for one image.
        """
        if batch_size == AUTO:
            devices = self.mesh.devices.ravel().tolist()

            def needed(each: int) -> int:
                return self._step_bytes(self.step(extractors), each * len(devices))

            return min(gathered_values(chosen(needed, devices, images)))
        self._traced(extractors, self.rows(batch_size, images))
        return batch_size

    def _traced(self, extractors: Sequence[Extractor], size: int) -> Extracted:
        """The shapes that a step of so many images gives; of a part of them, where lanes are."""
        size //= self._lanes(size)
        return _on_mesh.compiled().eval_shape(*self._arguments(self.step(extractors), size))

    def _step_bytes(self, step: ExtractionStep, size: int) -> int:
        """Of each device. The program is compiled, and kept by JAX for when it is run."""
        parts = self._lanes(size)
        program = _on_mesh.compiled().lower(*self._arguments(step, size // parts)).compile()
        return parts * step_bytes(program, IN_FLIGHT)

    def _arguments(self, step: ExtractionStep, size: int) -> tuple:
        """Of `_on_mesh`, for a lane of so many images: shapes for what comes with them."""
        side = self.model.preprocessing.crop
        split = NamedSharding(self.mesh, P("data"))  # as `run` puts them: traced once for both
        rows = (
            jax.ShapeDtypeStruct((size, side, side, 3), np.uint8, sharding=split),
            jax.ShapeDtypeStruct((size,), np.int32, sharding=split),
        )
        shared = (replicate(jax.random.key(0), self.mesh),)
        return step, self._network, self.mesh, self._weights, rows, shared

    def stream(
        self,
        images: ImageSet,
        extractors: Sequence[Extractor] = (),
        *,
        batch_size: int = DEFAULT,
        start: int = 0,
        target: int | None = None,
        seed: int = 0,
    ) -> Iterator[tuple[Batch, Extracted]]:
        """Yields batches, and what was extracted of their rows, on the host.

        Args:
          batch_size: images a step over the whole mesh; rounded up to fill it.
          start: the first image.
          target: class that attributions explain; None: each image's top class.
          seed: of every draw, the same for all images.
        """
        size = self.rows(batch_size, len(images))
        step = self.step(extractors)
        targets = np.full(size, TOP_CLASS if target is None else target, np.int32)
        targets, key = shard(targets, self.mesh), replicate(jax.random.key(seed), self.mesh)
        in_flight: deque[tuple[Batch, Extracted]] = deque()
        with closing(self._batches(images, size, start)) as batches:
            for number, batch in enumerate(batches):
                if not number and (step, size) not in self._announced:
                    self._announce_step(step, size)
                    self._announced.add((step, size))
                in_flight.append((batch, self.run(step, (batch.images, targets), (key,))))
                if len(in_flight) == IN_FLIGHT:
                    yield _fetched(*in_flight.popleft())
            while in_flight:
                yield _fetched(*in_flight.popleft())

    def _announce_step(self, step: ExtractionStep, size: int) -> None:
        """Says what a step takes.

        Raises:
          UsageError: when the devices do not have as much.
        """
        announce(
            "batch_size",
            f"a step of {size} images",
            self._step_bytes(step, size),
            free_bytes(self.mesh.devices.ravel().tolist()),
            "of a device",
            "Use a smaller one, or auto",
        )

    def _batches(self, images: ImageSet, size: int, start: int) -> Generator[Batch, None, None]:
        preprocessing = self.model.preprocessing
        if self.cache_images is None:
            return images.batches(preprocessing, size, start)
        return cached_batches(images, self.cache_images, preprocessing, size, start)

    def extract(
        self,
        images: ImageSet,
        extractors: Sequence[Extractor] = (),
        *,
        batch_size: int = DEFAULT,
        target: int | None = None,
        seed: int = 0,
        store: Path | None = None,
        progress: Progress | None = None,
    ) -> Features:
        """One pass: pooled, logits and what `extractors` keep, for every image that can be decoded.

        Each of several processes makes it over its share of the images, with a store of its own;
        all get the features of all.

        Args:
          target, seed: see `stream`.
          store: folder for what is extracted. What is there is not computed again, whatever else
            it was computed with; new chunks are written as they come.

        Raises:
          UsageError: when not one image can be decoded.
        """
        asked = (self.model.identity(), [one.identity() for one in extractors])
        request = fingerprint(asked, len(images), batch_size, target, seed)
        require_agreed("arguments", request, "other ones")
        own, features = own_share(images), None
        if own is not None:
            store = None if store is None else store / own_name()
            features = self._extracted(own, extractors, batch_size, target, seed, store, progress)
        if jax.process_count() > 1:
            features = _of_all_processes(features, images)
        assert features is not None
        if not len(features):
            first = features.skipped[0]
            raise UsageError(
                "images",
                f"{len(images)} images in {images.name}, none of which can be decoded",
                "images",
                f"The first, {first.id}: {first.reason}",
            )
        return features

    def _extracted(self, images, extractors, batch_size, target, seed, store, progress) -> Features:
        """What `extract` gives, of images that this process works through."""
        by_key = {extractor.key: extractor for extractor in extractors}
        columns = self._columns(store, images, by_key, target, seed)
        with ExitStack() as stack:
            for column in columns.values():
                stack.callback(column.close)
            start = _resumed(columns, len(images))
            lacking = [name for name in columns if end_of(columns[name]) < len(images)]
            if progress:
                progress(start, len(images))
            if lacking:
                todo = [by_key[name] for name in lacking if name != OUTPUTS]
                size = self.rows(batch_size, len(images))
                kept = self._traced(todo, size)
                _announce(images, len(images) - start, kept, OUTPUTS in lacking, store)
                stream = self.stream(
                    images, todo, batch_size=batch_size, start=start, target=target, seed=seed
                )
                with closing(stream):  # type: ignore[type-var]  # a generator
                    _fill({name: columns[name] for name in lacking}, stream, images, progress)
            return _assembled(columns)

    def _columns(self, store, images, extractors, target, seed) -> dict[str, Column]:
        if store is None:
            return {name: MemoryColumn(len(images)) for name in (OUTPUTS, *extractors)}
        source = fingerprint(self.model.identity(), images.fingerprint())
        folder = store / f"{file_name(images.name)}-{source}"
        columns: dict[str, Column] = {OUTPUTS: StoredColumn(folder, OUTPUTS, source)}
        for name, extractor in extractors.items():
            drawn = seed if extractor.random else None
            identity = (source, extractor.identity(), target, drawn)
            columns[name] = StoredColumn(folder, name, identity)
        return columns


def _fetched(batch: Batch, on_device: Extracted) -> tuple[Batch, Extracted]:
    return batch, jax.device_get(on_device)


def skipped_of(batch: Batch, images: ImageSet) -> tuple[Skipped, ...]:
    """The images of a batch that are left out."""
    return tuple(
        Skipped(index, images.ids[index], reason) for index, reason in sorted(batch.reasons.items())
    )


def _rows_of(batch: Batch, extracted: Extracted, images: ImageSet) -> Features:
    valid = batch.valid
    return Features(
        np.asarray(extracted.pooled)[valid],
        np.asarray(extracted.logits)[valid],
        {key: np.asarray(array)[valid] for key, array in extracted.extras.items()},
        batch.indices[valid],
        skipped_of(batch, images),
    )


def _resumed(columns: Mapping[str, Column], count: int) -> int:
    """The image from which all columns that lack some go on; they end there."""
    lacking = [column for column in columns.values() if end_of(column) < count]
    start = min(map(end_of, lacking), default=count)
    while any(end_of(column) > start for column in lacking):
        for column in lacking:
            while end_of(column) > start:
                column.cut()
        start = min(map(end_of, lacking))
    return start


def _announce(
    images: ImageSet, count: int, kept: Extracted, outputs: bool, store: Path | None
) -> None:
    """Says what is about to be taken for the features of a set.

    Raises:
      UsageError: when there is not as much.
    """
    arrays = [*kept.extras.values(), *([kept.pooled, kept.logits] if outputs else [])]
    numbers = sum(int(np.prod(array.shape[1:])) for array in arrays)
    announce(
        "store" if store else "images",
        f"{count} images of {images.name}: {numbers} float32 values of each",
        count * (4 * numbers + 8 * len(arrays)),
        free_disk(store) if store else free_memory(),
        f"in {store}" if store else "of memory",
        "Use another folder" if store else "Keep features in a folder: store",
    )


def _fill(
    columns: Mapping[str, Column],
    stream: Iterable[tuple[Batch, Extracted]],
    images: ImageSet,
    progress: Progress | None,
) -> None:
    """Takes batches into columns that end at the same image, a chunk at a time."""
    pending: list[Features] = []
    first, since = end_of(next(iter(columns.values()))), time.monotonic()
    for batch, extracted in stream:
        pending.append(_rows_of(batch, extracted, images))
        end = int(batch.indices.max()) + 1
        if progress:
            progress(end, len(images))
        late = time.monotonic() - since > CHUNK_SECONDS
        if end < len(images) and end - first < CHUNK and not late:
            continue
        rows = joined(pending)
        chunk = Chunk(first, end, len(rows), rows.skipped)
        for name, column in columns.items():
            values = (
                {"pooled": rows.pooled, "logits": rows.logits}
                if name == OUTPUTS
                else {"values": rows.extras[name]}
            )
            column.append(chunk, values | {"indices": rows.indices})
        pending, first, since = [], end, time.monotonic()


def _of_all_processes(own: Features | None, images: ImageSet) -> Features:
    """The features of all images, from those of each process's share."""
    first = share_of(len(images)).start
    arrays: dict[str, np.ndarray] = {}
    skipped: tuple[Skipped, ...] = ()
    if own is not None:
        arrays = {"pooled": own.pooled, "logits": own.logits, "indices": own.indices + first}
        arrays |= {f"extras {key}": rows for key, rows in own.extras.items()}
        skipped = own.skipped
        row = sum(rows[:1].nbytes for rows in arrays.values())
        told = f"features of {images.name} from all processes"
        remedy = "Evaluate fewer methods at once, or smaller sets"
        announce("images", told, row * len(images), free_memory(), "of memory", remedy)
    found = gathered_rows(arrays)
    extras = {key.removeprefix("extras "): found[key] for key in found if key.startswith("extras ")}
    left_out = tuple(
        Skipped(index, images.ids[index], reason)
        for theirs in gathered_values([(first + image.index, image.reason) for image in skipped])
        for index, reason in theirs
    )
    return Features(found["pooled"], found["logits"], extras, found["indices"], left_out)


def _assembled(columns: Mapping[str, Column]) -> Features:
    """The rows of images that every column has.

    One may lack an image that others have: it was read at another time, when that failed.
    """
    found = {name: column.arrays() for name, column in columns.items()}
    skipped = {image for column in columns.values() for c in column.chunks for image in c.skipped}
    indices = found[OUTPUTS]["indices"]
    if any(not np.array_equal(arrays["indices"], indices) for arrays in found.values()):
        indices = reduce(np.intersect1d, [arrays["indices"] for arrays in found.values()])
        found = {
            name: {key: rows[np.isin(arrays["indices"], indices)] for key, rows in arrays.items()}
            for name, arrays in found.items()
        }
    outputs = found.pop(OUTPUTS)
    extras = {name: arrays["values"] for name, arrays in found.items()}
    left_out = {image.index: image for image in sorted(skipped)}
    return Features(outputs["pooled"], outputs["logits"], extras, indices, tuple(left_out.values()))
