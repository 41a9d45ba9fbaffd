"""Exact nearest neighbours by inner product, and the two detectors that rest on them.

    knn:      score(x) = k-th largest of <zbar_i, xbar>                 (Sun et al., ICML 2022)
    nnguide:  score(x) = E(x) * mean of the k largest <E(z_i) zbar_i, xbar>
                                                                (Park, Jung, Teoh, ICCV 2023)

with z_i the features of the bank, x those of the image, bars for L2-normalised rows and
E = logsumexp of the (unnormalised) logits. The defaults are those of the NNGuide code: k = 10
with a bank of 1 % of the training set, which is also what Sun et al. use at 1 % (OpenOOD has
k = 50 with all of CIFAR). nnguide reads pooled features, before a norm that belongs to the head, as
that code does; knn penultimate ones, as Sun et al. and OpenOOD do, or pooled ones
(`knn[features=pooled]`), as the NNGuide code does. Sun et al. score minus the
distance to the k-th neighbour; on the unit sphere that is `-sqrt(2 - 2 * product)`, so the order is
the same.

The search is a blocked matrix product with a running top-k. No approximation: among chunks of
adjacent bank rows, the k with the largest maxima hold the k best rows, so only those are sorted.
A loop copies the block of the bank that it takes out, once for all queries; a bank of one block is
not copied. Equal products are taken in the order of the bank, however it is cut or shared out.
"""

import math
import weakref
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from jaxood.detectors.contract import Depth, Detector
from jaxood.errors import choose, require
from jaxood.lanes import LANES, lanes
from jaxood.outputs import AnyArray
from jaxood.parallel import data_mesh, free_bytes
from jaxood.room import announce

CHUNK = 16  # rows of which blocks and shares have a whole number


class Blocks(NamedTuple):
    """How many rows are multiplied at once."""

    queries: int
    bank: int


# Not 16,384: rows so far apart share the sets of a CPU's cache.
CPU_BLOCKS = Blocks(512, 16_320)
# Beside those of a CPU an H100 takes 0.74 of the time in float32, 0.59 in bfloat16.
ACCELERATOR_BLOCKS = Blocks(2048, 65_536)


def blocks() -> Blocks:
    """Those of the default backend."""
    return CPU_BLOCKS if jax.default_backend() == "cpu" else ACCELERATOR_BLOCKS


class Neighbours(NamedTuple):
    """The k best bank rows of each query, best first, equals in the order of the bank."""

    products: Float[Array, "n k"]
    indices: Int[Array, "n k"]


class Bank(NamedTuple):
    """What is searched.

    Attributes:
      rows: [b, c] L2-normalised, for nnguide times the energy; float32 or bfloat16.
      size: how many of them count; the rest is padding, which only `share` makes.
    """

    rows: "AnyArray | HostRows"
    size: Int[AnyArray, ""]


class _Handle:
    """A hashable name for an array, which does not keep it alive in the caches of `jit`."""

    def __init__(self, rows: np.ndarray):
        self.rows = weakref.ref(rows)


@jax.tree_util.register_pytree_node_class
class HostRows:
    """Rows that stay in host memory (a memory map will do), fetched in blocks from inside `jit`.

    A pytree without leaves: nothing that places or traces arrays moves them.
    """

    def __init__(self, rows: np.ndarray, handle: _Handle | None = None):
        self.rows = rows
        self.shape, self.dtype = rows.shape, rows.dtype
        self._handle = handle or _Handle(rows)

    def block(self, first: Int[Array, ""], size: int) -> Float[Array, "size c"]:
        handle = self._handle  # all that the compiled program may hold on to

        def fetch(first):
            return handle.rows()[int(first) : int(first) + size]

        block = jax.ShapeDtypeStruct((size, self.shape[1]), self.dtype)
        return jax.pure_callback(fetch, block, first)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.rows, dtype, copy=copy)

    def tree_flatten(self):
        return (), self._handle

    @classmethod
    def tree_unflatten(cls, handle, _):
        return cls(handle.rows(), handle)


def _top(products: Float[Array, "n b"], k: int) -> Neighbours:
    """`lax.top_k`, sorting only chunks that can matter, and of these in turn."""
    n, width = products.shape
    chunk = 2 ** round(math.log2(max(width / k, 1)) / 2)  # about as many candidates as maxima
    whole = width // chunk
    if chunk < 4:
        return Neighbours(*jax.lax.top_k(products, k))
    window = (1, chunk)  # leaves out a last, shorter one
    maxima = jax.lax.reduce_window(products, -jnp.inf, jax.lax.max, window, window, "valid")
    chosen = jax.lax.top_k(maxima, k)[1]
    chosen = jnp.sort(chosen, axis=-1)  # so that equal products stay in the order of the bank
    columns = (chosen[:, :, None] * chunk + jnp.arange(chunk)[None, None]).reshape(n, k * chunk)
    rest = jnp.tile(jnp.arange(whole * chunk, width), (n, 1))
    columns = jnp.concatenate([columns, rest], axis=1)
    best = _top(jnp.take_along_axis(products, columns, axis=1), k)
    return best._replace(indices=jnp.take_along_axis(columns, best.indices, axis=1))


def _merge(first: Neighbours, second: Neighbours, k: int) -> Neighbours:
    products = jnp.concatenate([first.products, second.products], axis=-1)
    indices = jnp.concatenate([first.indices, second.indices], axis=-1)
    best, column = jax.lax.top_k(products, k)
    return Neighbours(best, jnp.take_along_axis(indices, column, axis=-1))


def _even(total: int, largest: int) -> int:
    """The size of equal blocks, at most `largest` and a multiple of CHUNK where it can be."""
    size = -(-total // -(-total // largest))
    return min(total, -(-size // CHUNK) * CHUNK)


def _search(queries: Float[AnyArray, "n c"], bank: Bank, k: int, padded: bool) -> Neighbours:
    """On one device: bank blocks times query blocks. A last block overlaps the one before it."""
    (n, c), (b, _) = queries.shape, bank.rows.shape
    query_block, bank_block = _even(n, blocks().queries), _even(b, blocks().bank)
    k, parts = min(k, b), -(-n // query_block)
    queries = jnp.pad(queries.astype(bank.rows.dtype), ((0, parts * query_block - n), (0, 0)))
    sought = queries.reshape(parts, query_block, c)

    def bank_step(j, found):
        first = jnp.minimum(j * bank_block, b - bank_block)
        if isinstance(bank.rows, HostRows):
            rows = bank.rows.block(first, bank_block)
        else:
            rows = jax.lax.dynamic_slice_in_dim(bank.rows, first, bank_block)

        def query_step(block_and_best):
            block, best = block_and_best
            products = jax.lax.dot_general(
                block,
                rows,
                (((1,), (1,)), ((), ())),
                precision="highest",
                preferred_element_type=jnp.float32,
            )
            if padded:
                there = first + jnp.arange(bank_block) < bank.size
                products = jnp.where(there[None, :], products, -jnp.inf)
            top = _top(products, min(k, bank_block))
            indices = top.indices + first
            # What an overlap gives again is in `best`, or is not among the k best.
            fresh = jnp.where(indices < j * bank_block, -jnp.inf, top.products)
            return _merge(best, Neighbours(fresh, indices), k)

        return jax.lax.map(query_step, (sought, found))

    shape = (parts, query_block, k)
    none = Neighbours(jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32))
    found = jax.lax.fori_loop(0, -(-b // bank_block), bank_step, none)
    return jax.tree.map(lambda part: part.reshape(-1, k)[:n], found)


def nearest(
    queries: Float[AnyArray, "n c"], bank: Bank, k: int, mesh: Mesh | None = None
) -> Neighbours:
    """The k bank rows with the largest inner product with each query; exact, jit-able.

    Args:
      queries: any scale; the products are with the rows as they are.
      k: at most `bank.size`.
      mesh: with one axis, over which the rows are shared out (see `share`): each device searches
        its share, and the best of the bests are the best.
    """
    if mesh is None:
        return _search(queries, bank, k, padded=False)
    (axis,), devices = mesh.axis_names, mesh.size
    rows = jnp.pad(cast(jax.Array, bank.rows), ((0, -bank.rows.shape[0] % devices), (0, 0)))
    part = rows.shape[0] // devices

    def local(queries, rows, size):
        before = jax.lax.axis_index(axis) * part
        found = _search(queries, Bank(rows, size - before), k, padded=True)
        bits = jax.lax.bitcast_convert_type(found.products, jnp.int32)
        packed = jnp.stack([bits, found.indices + before], axis=-1)
        packed = jax.lax.all_gather(packed, axis, axis=1, tiled=True)
        products = jax.lax.bitcast_convert_type(packed[:, :, 0], jnp.float32)
        return Neighbours(products, packed[:, :, 1])

    gathered = jax.shard_map(
        local, mesh=mesh, in_specs=(P(), P(axis), P()), out_specs=P(), check_vma=False
    )(queries, rows, bank.size)
    best, column = jax.lax.top_k(gathered.products, k)
    return Neighbours(best, jnp.take_along_axis(gathered.indices, column, axis=-1))


def device_mesh() -> Mesh:
    """All devices of this process, to share a bank over."""
    return Mesh(jax.local_devices(), ("bank",))


def share(rows: Float[np.ndarray, "b c"], mesh: Mesh) -> Float[Array, "rows c"]:
    """Rows of zeros make the shares equal, whole chunks; each device then holds its share only."""
    rows = np.pad(rows, ((0, -len(rows) % (CHUNK * mesh.size)), (0, 0)))
    return jax.device_put(rows, NamedSharding(mesh, P(*mesh.axis_names)))


def memory_bytes(size: int, channels: int, dtype: str = "float32", searches: int = 1) -> int:
    """What a bank takes on the device, and one block for each search that is made at once."""
    item = jnp.dtype(dtype).itemsize
    block = min(size, blocks().bank)
    beside = block * channels * item + blocks().queries * block * 4
    return size * channels * item + searches * beside


def _announce(name: str, memory: str, shape: tuple[int, int], dtype: str) -> None:
    """Says what is about to be taken, aloud when it is much; refuses what cannot fit."""
    devices = len(jax.local_devices()) if memory == "shared" else 1
    announce(
        f"{name} bank",
        f"a bank of {shape[0]} x {shape[1]} {dtype} values",
        memory_bytes(-(-shape[0] // devices), shape[1], dtype, lanes(data_mesh(), LANES)),
        free_bytes(jax.local_devices()),
        "a device",
        "Use a smaller part of the training set, "
        f"{name}.dtype=bfloat16, {name}.memory=shared or {name}.memory=host",
    )


@dataclass(frozen=True)
class _NeighbourDetector(Detector):
    """What both detectors share: their parameters, and where the bank lies.

    Attributes:
      dtype: of the bank; products are summed in float32 whatever it is.
      memory: of the bank. "device": a copy on each; "shared": each device holds and searches its
        part; "host": the machine's memory, from which blocks travel to the device, for banks
        beyond the memory of all devices.
    """

    State: ClassVar[type] = Bank
    needs_train: ClassVar[bool] = True

    k: int = 10
    dtype: Literal["float32", "bfloat16"] = "float32"
    memory: Literal["device", "shared", "host"] = "device"

    def __post_init__(self):
        choose(f"{self.name}.dtype", self.dtype, ("float32", "bfloat16"))
        choose(f"{self.name}.memory", self.memory, ("device", "shared", "host"))

    def _bank(self, rows: Float[np.ndarray, "b c"]) -> Bank:
        rows = rows.astype(jnp.dtype(self.dtype), copy=False)
        return self.restored(Bank(rows, np.asarray(len(rows), np.int32)))

    def restored(self, state: Bank) -> Bank:
        """Puts rows that are on the host where `memory` says."""
        rows, size = np.asarray(state.rows), int(state.size)
        require(
            1 <= self.k <= size <= len(rows),
            f"{self.name}.k",
            self.k,
            f"1 to {min(size, len(rows))}, the rows of the bank",
            "Use another k, or a larger part of the training set",
        )
        rows = rows[:size]
        if self.memory == "host":
            return Bank(HostRows(rows), jnp.asarray(state.size))
        _announce(self.name, self.memory, (rows.shape[0], rows.shape[1]), self.dtype)
        shared = self.memory == "shared"
        placed = share(rows, device_mesh()) if shared else jnp.asarray(rows)
        return Bank(placed, jnp.asarray(state.size))

    def _products(self, state: Bank, features: Float[AnyArray, "n c"]) -> Float[Array, "n k"]:
        """With the normalised queries: their order is that of the queries as they are."""
        mesh = device_mesh() if self.memory == "shared" else None
        length = jnp.linalg.norm(features, axis=1, keepdims=True)
        return nearest(features, state, self.k, mesh).products / jnp.maximum(length, 1e-12)


def _unit_rows(features: Float[AnyArray, "b c"]) -> Float[np.ndarray, "b c"]:
    rows = np.asarray(features, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class Knn(_NeighbourDetector):
    """Inner product with the k-th nearest row of the bank.

    Attributes:
      features: which are compared. Where no norm belongs to the head both are the same.
    """

    name: ClassVar[str] = "knn"
    paper: ClassVar[str] = "Sun, Ming, Zhu, Li, ICML 2022"

    features: Literal["penultimate", "pooled"] = "penultimate"

    def __post_init__(self):
        super().__post_init__()
        choose("knn.features", self.features, ("penultimate", "pooled"))

    @property
    def reads(self) -> tuple[Depth, ...]:
        return (self.features,)

    def fit(self, train, labels, head):
        return self._bank(_unit_rows(getattr(train, self.features)))

    def score(self, state, outputs, head):
        return self._products(state, getattr(outputs, self.features))[:, -1]


@dataclass(frozen=True)
class NNGuide(_NeighbourDetector):
    """Energy times the mean product with the k nearest rows, each times its energy."""

    name: ClassVar[str] = "nnguide"
    paper: ClassVar[str] = "Park, Jung, Teoh, ICCV 2023"
    reads: ClassVar[tuple[Depth, ...]] = ("pooled", "logits")

    def fit(self, train, labels, head):
        energy = np.asarray(jax.nn.logsumexp(jnp.asarray(train.logits), axis=1))
        return self._bank(_unit_rows(train.pooled) * energy[:, None])

    def score(self, state, outputs, head):
        guidance = self._products(state, outputs.pooled).mean(axis=1)
        return jax.nn.logsumexp(outputs.logits, axis=1) * guidance
