"""Benchmarks, one a module: `add_arguments(parser)` and `run(args) -> dict` of figures."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable

PAUSE = 0.3


def environment() -> dict:
    """Device and versions, so that a figure can be read later."""
    import jax

    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.local_device_count(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "jax": importlib.metadata.version("jax"),
    }


def seconds(call: Callable[[], object], repeats: int = 5, warmup: int = 1) -> float:
    """Median wall time of `call`, which must wait for its result."""
    for _ in range(warmup):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def seconds_in_turn(
    calls: dict[str, Callable[[], object]],
    repeats: int = 5,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median time of each of `calls`, run A B A B... so that drift hits all alike.

    A pause goes before each: torch's threads wait for more work for 0.2 s, on a core that the
    next call needs.
    """
    for call in list(calls.values()) * warmup:
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            time.sleep(PAUSE)
            start = clock()
            call()
            times[name].append(clock() - start)
    return {name: sorted(taken)[len(taken) // 2] for name, taken in times.items()}


def dispatched(call: Callable[[], object], count: int) -> None:
    """`count` calls as a run has them: one is in flight while the last is waited for."""
    import jax

    last = None
    for _ in range(count):
        last, before = call(), last
        jax.block_until_ready(before)
    jax.block_until_ready(last)


def random_model(architecture: str):
    """A model with random weights: as costly as a trained one, its activations of order one."""
    import jax
    import numpy as np

    from jaxood.models.loading import abstract_model, fill, parameters
    from jaxood.models.registry import ARCHITECTURES, LoadedModel

    tag_name, tag = next(iter(ARCHITECTURES[architecture].tags.items()))
    module = abstract_model(architecture, tag.num_classes)
    shapes = {path: leaf.shape for path, leaf in parameters(module).items()}
    generator = np.random.default_rng(0)

    def draw(path: str) -> jax.Array:
        shape = shapes[path]
        if len(shape) < 2:
            return jax.numpy.zeros(shape)
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        return jax.numpy.asarray(generator.normal(0, scale, shape), "float32")

    return LoadedModel(fill(module, draw), tag.preprocessing, architecture, tag_name, "random")
