"""Exact nearest neighbours by inner product, and the two detectors that rest on them.

    knn:      score(x) = k-th largest of <zbar_i, xbar>                 (Sun et al., ICML 2022)
    nnguide:  score(x) = E(x) * mean of the k largest <E(z_i) zbar_i, xbar>
                                                                (Park, Jung, Teoh, ICCV 2023)

with z_i the pooled features of the bank, x those of the image, bars for L2-normalised rows and
E = logsumexp of the (unnormalised) logits. The defaults are those of the NNGuide code: k = 10
with a bank of 1 % of the training set, which is also what Sun et al. use at 1 % (OpenOOD has
k = 50 with all of CIFAR). Sun et al. score minus the distance to the k-th neighbour; on the unit
sphere that is `-sqrt(2 - 2 * product)`, so the order is the same.

The search is a blocked matrix product with a running top-k. No approximation: among chunks of
adjacent bank rows, the k with the largest maxima hold the k best rows, so only those are sorted.
Equal products are taken in the order of the bank, however it is cut or shared out.
"""

import logging
import os
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from jaxood.errors import UsageError, choose
from jaxood.outputs import Head, ModelOutputs

QUERY_BLOCK = 1024
BANK_BLOCK = 4096
CHUNK = 16  # about sqrt(block / k) makes chunk maxima and their candidates equally few
AXIS = "bank"  # the mesh axis over which a bank is shared out


class Neighbours(NamedTuple):
    """The k best bank rows of each query, best first, equals in the order of the bank."""

    products: Float[Array, "n k"]
    indices: Int[Array, "n k"]


class Bank(NamedTuple):
    """What is searched.

    Attributes:
      rows: L2-normalised, for nnguide times the energy; float32 or bfloat16. A NumPy array stays
        in host memory and is searched in blocks, outside `jit`.
      size: how many rows count; the rest is padding for an even share over devices.
    """

    rows: Float[Array, "b c"]
    size: Int[Array, ""]


def _top(products: Float[Array, "n b"], k: int) -> Neighbours:
    """`lax.top_k`, sorting only chunks that can matter."""
    n, width = products.shape
    if width % CHUNK or width // CHUNK <= k:
        return Neighbours(*jax.lax.top_k(products, k))
    chunks = products.reshape(n, width // CHUNK, CHUNK)
    _, chosen = jax.lax.top_k(chunks.max(axis=-1), k)
    chosen = jnp.sort(chosen, axis=-1)  # so that equal products stay in the order of the bank
    candidates = jnp.take_along_axis(chunks, chosen[:, :, None], axis=1)
    best, place = jax.lax.top_k(candidates.reshape(n, k * CHUNK), k)
    chunk = jnp.take_along_axis(chosen, place // CHUNK, axis=-1)
    return Neighbours(best, chunk * CHUNK + place % CHUNK)


def _merge(first: Neighbours, second: Neighbours, k: int) -> Neighbours:
    products = jnp.concatenate([first.products, second.products], axis=-1)
    indices = jnp.concatenate([first.indices, second.indices], axis=-1)
    best, place = jax.lax.top_k(products, min(k, products.shape[-1]))
    return Neighbours(best, jnp.take_along_axis(indices, place, axis=-1))


def _even(total: int, largest: int) -> int:
    """The size of equal blocks, at most `largest` and a multiple of CHUNK where it can be."""
    size = -(-total // -(-total // largest))
    return min(total, -(-size // CHUNK) * CHUNK)


def _none_yet(n: int, k: int) -> Neighbours:
    return Neighbours(jnp.full((n, k), -jnp.inf), jnp.zeros((n, k), jnp.int32))


def _search(queries: Float[Array, "n c"], bank: Bank, k: int) -> Neighbours:
    """On one device: query blocks times bank blocks. A last block overlaps the one before it."""
    (n, _), (b, _) = queries.shape, bank.rows.shape
    query_block, bank_block = _even(n, QUERY_BLOCK), _even(b, BANK_BLOCK)
    k = min(k, b)

    def query_step(i, found):
        start = jnp.minimum(i * query_block, n - query_block)
        block = jax.lax.dynamic_slice_in_dim(queries, start, query_block)
        block = block.astype(bank.rows.dtype)

        def bank_step(j, best):
            first = jnp.minimum(j * bank_block, b - bank_block)
            rows = jax.lax.dynamic_slice_in_dim(bank.rows, first, bank_block)
            products = jax.lax.dot_general(
                block,
                rows,
                (((1,), (1,)), ((), ())),
                precision="highest",
                preferred_element_type=jnp.float32,
            )
            column = first + jnp.arange(bank_block)
            fresh = (column >= j * bank_block) & (column < bank.size)
            top = _top(jnp.where(fresh[None, :], products, -jnp.inf), min(k, bank_block))
            return _merge(best, top._replace(indices=top.indices + first), k)

        best = jax.lax.fori_loop(0, -(-b // bank_block), bank_step, _none_yet(query_block, k))
        return jax.tree.map(
            lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, start, 0),
            found,
            best,
        )

    return jax.lax.fori_loop(0, -(-n // query_block), query_step, _none_yet(n, k))


def _search_shared(queries: Float[Array, "n c"], bank: Bank, k: int, devices: int) -> Neighbours:
    """Each device searches its share; the best of the bests are the best."""
    share = bank.rows.shape[0] // devices

    def local(queries, rows, size):
        before = jax.lax.axis_index(AXIS) * share
        found = _search(queries, Bank(rows, size - before), k)
        found = found._replace(indices=found.indices + before)
        return jax.tree.map(lambda a: jax.lax.all_gather(a, AXIS, axis=1, tiled=True), found)

    whole, shared = PartitionSpec(), PartitionSpec(AXIS)
    gathered = jax.shard_map(
        local, in_specs=(whole, shared, whole), out_specs=whole, check_vma=False
    )(queries, bank.rows, bank.size)
    return _merge(gathered, Neighbours(*(a[:, :0] for a in gathered)), k)


@partial(jax.jit, static_argnames="k", donate_argnames="best")
def _search_and_merge(queries, rows, first, best, k):
    top = _search(queries, Bank(rows, jnp.asarray(rows.shape[0])), k)
    return _merge(best, top._replace(indices=top.indices + first), k)


def _search_from_host(queries: Float[Array, "n c"], bank: Bank, k: int, block: int) -> Neighbours:
    """The bank stays where it is (a memory map will do); the next block travels meanwhile."""
    size = int(bank.size)
    best = _none_yet(queries.shape[0], k)
    starts = range(0, size, block)
    ahead = jax.device_put(bank.rows[:block][:size])
    for first in starts:
        rows, end = ahead, first + block
        if end < size:
            ahead = jax.device_put(bank.rows[end : min(end + block, size)])
        best = _search_and_merge(queries, rows, first, best, k)
        jax.block_until_ready(best)  # else every block of the bank is on the device at once
    return best


def nearest(
    queries: Float[Array, "n c"], bank: Bank, k: int, host_block: int = 65536
) -> Neighbours:
    """The k bank rows with the largest inner product with each query; exact.

    Under `jax.set_mesh` of a mesh with an axis "bank" the rows are searched where `share` put
    them. Rows in a NumPy array are brought to the device `host_block` at a time.

    Args:
      queries: any scale; the products are with the rows as they are.
      k: at most `bank.size`.
    """
    if isinstance(bank.rows, np.ndarray):
        return _search_from_host(jnp.asarray(queries), bank, k, host_block)
    devices = dict(jax.sharding.get_abstract_mesh().shape).get(AXIS, 1)
    return _search_shared(queries, bank, k, devices) if devices > 1 else _search(queries, bank, k)


def share(bank: Bank, mesh: jax.sharding.Mesh) -> Bank:
    """Shares a bank out over the mesh's axis "bank"; score under `jax.set_mesh(mesh)`."""
    missing = -bank.rows.shape[0] % mesh.shape[AXIS]
    rows = np.pad(np.asarray(bank.rows), ((0, missing), (0, 0)))
    return Bank(
        jax.device_put(rows, NamedSharding(mesh, PartitionSpec(AXIS))),
        jax.device_put(bank.size, NamedSharding(mesh, PartitionSpec())),
    )


def memory_bytes(size: int, channels: int, dtype: str = "float32") -> int:
    """What a bank takes on the device that searches it, with the one block beside it."""
    item = jnp.dtype(dtype).itemsize
    block = min(size, BANK_BLOCK)
    return size * channels * item + block * channels * item + QUERY_BLOCK * block * 4


def free_bytes() -> int:
    """Free memory of the first device; of the machine where the device does not say."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _state_memory(name: str, size: int, channels: int, dtype: str) -> None:
    """Says what is about to be taken, aloud when it is much; refuses what cannot fit."""
    needed, free = memory_bytes(size, channels, dtype), free_bytes()
    line = f"a bank of {size} x {channels} {dtype} values, {needed / 1e9:.2f} GB with one block"
    if needed > free:
        raise UsageError(
            f"{name} bank",
            line,
            f"at most the {free / 1e9:.2f} GB that are free",
            f"Use a smaller part of the training set, {name}.dtype=bfloat16, or {name}.memory=host",
        )
    level = logging.WARNING if needed > free / 4 else logging.INFO
    logging.getLogger("jaxood").log(level, "%s: %s, of %.2f GB free", name, line, free / 1e9)


def _fit_bank(name: str, detector: "Knn | NNGuide", rows: np.ndarray) -> Bank:
    size, channels = rows.shape
    choose(f"{name}.dtype", detector.dtype, ("float32", "bfloat16"))
    choose(f"{name}.memory", detector.memory, ("device", "host"))
    if not 1 <= detector.k <= size:
        raise UsageError(
            f"{name}.k",
            detector.k,
            f"1 to {size}, the rows of the bank",
            "Use a smaller k or a larger part of the training set",
        )
    count = np.int32(size)
    if detector.memory == "host":
        return Bank(np.asarray(rows, jnp.dtype(detector.dtype)), count)
    _state_memory(name, size, channels, detector.dtype)
    return Bank(jnp.asarray(rows, detector.dtype), jnp.asarray(count))


def _unit_rows(pooled) -> np.ndarray:
    rows = np.asarray(pooled, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _products(state: Bank, pooled: Float[Array, "n c"], k: int) -> Float[Array, "n k"]:
    """With the normalised queries: their order is that of the queries as they are."""
    length = jnp.linalg.norm(pooled, axis=1, keepdims=True)
    return nearest(pooled, state, k).products / jnp.maximum(length, 1e-12)


@dataclass(frozen=True)
class Knn:
    """Inner product with the k-th nearest row of the bank.

    Attributes:
      dtype: of the bank; products are summed in float32 whatever it is.
      memory: "host" leaves the bank in the machine's memory and brings it to the device in
        blocks, for banks beyond the device's memory; such a state cannot be scored under `jit`.
    """

    k: int = 10
    dtype: Literal["float32", "bfloat16"] = "float32"
    memory: Literal["device", "host"] = "device"

    def fit(self, train: ModelOutputs, labels: Int[Array, " n"] | None, head: Head) -> Bank:
        return _fit_bank("knn", self, _unit_rows(train.pooled))

    def score(self, state: Bank, outputs: ModelOutputs, head: Head) -> Float[Array, " n"]:
        return _products(state, outputs.pooled, self.k)[:, -1]


@dataclass(frozen=True)
class NNGuide:
    """Energy times the mean product with the k nearest rows, which carry their own energies.

    Attributes: as of `Knn`.
    """

    k: int = 10
    dtype: Literal["float32", "bfloat16"] = "float32"
    memory: Literal["device", "host"] = "device"

    def fit(self, train: ModelOutputs, labels: Int[Array, " n"] | None, head: Head) -> Bank:
        energy = np.asarray(jax.nn.logsumexp(jnp.asarray(train.logits), axis=1))
        return _fit_bank("nnguide", self, _unit_rows(train.pooled) * energy[:, None])

    def score(self, state: Bank, outputs: ModelOutputs, head: Head) -> Float[Array, " n"]:
        guidance = _products(state, outputs.pooled, self.k).mean(axis=1)
        return jax.nn.logsumexp(outputs.logits, axis=1) * guidance
