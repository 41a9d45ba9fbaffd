"""Benchmarks, one a module: `add_arguments(parser)` and `run(args) -> dict` of figures."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable


def environment() -> dict:
    """Device and versions, so that a figure can be read later."""
    import jax

    return {
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "jax": importlib.metadata.version("jax"),
    }


def seconds(call: Callable[[], object], repeats: int = 5, warmup: int = 1) -> float:
    """Median wall time of `call`, which must wait for its own result."""
    for _ in range(warmup):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def seconds_in_turn(calls: dict[str, Callable[[], object]], repeats: int = 5) -> dict[str, float]:
    """Median wall time of each of `calls`, run A B A B... so that drift hits all alike."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: sorted(taken)[len(taken) // 2] for name, taken in times.items()}
