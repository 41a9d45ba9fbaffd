"""One mesh over all devices: batches split along "data", everything else on each device."""

from collections.abc import Sequence
from typing import TypeVar

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxood.room import free_memory

Tree = TypeVar("Tree")


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the one axis "data" over `devices` (default: all of this process)."""
    devices = jax.local_devices() if devices is None else devices
    return Mesh(list(devices), ("data",))


def rounded_up(count: int, mesh: Mesh) -> int:
    """`count`, or the next number that divides evenly over the mesh."""
    return -(-count // mesh.size) * mesh.size


def shard(tree: Tree, mesh: Mesh) -> Tree:
    """Puts arrays on the mesh, split along their first axis."""
    return jax.device_put(tree, NamedSharding(mesh, P("data")))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Puts arrays on every device of the mesh; what is shared out over devices stays so."""
    everywhere = NamedSharding(mesh, P())

    def put(leaf):
        if isinstance(leaf, jax.Array):
            if leaf.sharding == everywhere or not leaf.is_fully_replicated:
                return leaf  # at once: a call of `device_put` takes 0.1 ms
        return jax.device_put(leaf, everywhere)

    return jax.tree.map(put, tree)


def free_bytes(devices: Sequence[jax.Device]) -> int:
    """Free memory of each device; where one does not say, its part of the machine's."""
    found = []
    for device in devices:
        stats = device.memory_stats()
        if stats and "bytes_limit" in stats:
            found.append(stats["bytes_limit"] - stats["bytes_in_use"])
        else:
            found.append(free_memory() // len(devices))
    return min(found)
