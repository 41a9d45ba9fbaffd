"""Several processes, on one host or many, that do one run together: `jax.distributed`.

Every process runs the same program. Each works through a contiguous share of every image set on its
own devices; what the shares gave is then gathered on all. Fitting and measuring are done by each
process on the same arrays, as one process alone would do it: small work beside the pass, that takes
no longer for being done several times and needs no word between processes. Images are scored in
shares again, block by block as one process does it, and the scores gathered. Every process has the
result; only writing and printing are left to the first.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from jaxtyping import UInt8

from jaxood.errors import UsageError, require
from jaxood.files import printable, remove_partials

LOST_AFTER = 100  # seconds
FAREWELL = 10.0  # seconds that the first process waits for the others to end, after an error
BLOCK = 1 << 28  # bytes, of all processes together, that a device holds while arrays are gathered
FOREVER = 10**9  # milliseconds
WORD = "jaxood/word"  # what ends the run: an error, or nothing when all is done


@contextlib.contextmanager
def distributed(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    lost_after: int = LOST_AFTER,
) -> Iterator[None]:
    """Within, `evaluate`, `fit`, `detect`, `attribute`, `road` and `faithfulness` share their work.

    To be entered by every process before any device is used, with the same program inside; every
    process gets the same results. Leaving it waits for all. An error in any process ends all, with
    its line: those that did not raise it end at once, without unwinding, with exit code 1, or 2
    for a UsageError. A process that dies is missed after `lost_after` seconds; JAX then ends the
    others, and says which it was.

    Args:
      coordinator: "HOST:PORT" of the first process. On a TPU pod, under SLURM or Open MPI nothing
        has to be given; elsewhere all three.
      processes: how many there are.
      process: the number of this one, from 0.

    Raises:
      UsageError: when only some are given, there is no such cluster, the coordinator is not
        reached, or a device is in use already.
    """
    _check(coordinator, processes, process)
    require(lost_after >= 1, "lost_after", lost_after, "at least 1 second")
    if jax.config.jax_cpu_collectives_implementation is None:  # type: ignore[attr-defined]
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator, processes, process, heartbeat_timeout_seconds=lost_after
        )
    except (ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        wanted = "a TPU pod, SLURM, or coordinator, processes and process of a network"
        raise UsageError("distributed", reason, wanted) from None
    watch = threading.Thread(target=_watch, daemon=True)
    watch.start()
    try:
        gathered(b"")  # whether all reach each other
        yield
        _client().wait_at_barrier("jaxood/end", FOREVER)
    except BaseException as error:
        _tell(error, watch)
        raise
    if is_first():
        _client().key_value_set(WORD, "{}")
    watch.join()
    jax.distributed.shutdown()


def _check(coordinator: str | None, processes: int | None, process: int | None) -> None:
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    lacking = [name for name, value in given.items() if value is None]
    if len(lacking) == len(given):
        return
    if lacking:
        there = ", ".join(f"{name} {value}" for name, value in given.items() if value is not None)
        wanted = "coordinator, processes and process, or none of them"
        raise UsageError(lacking[0], f"nothing beside {there}", wanted)
    assert coordinator is not None and processes is not None and process is not None
    host, _, port = coordinator.rpartition(":")
    whole = bool(host) and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16
    require(whole, "coordinator", coordinator, "HOST:PORT of the first process")
    require(processes >= 1, "processes", processes, "at least 1")
    require(0 <= process < processes, "process", process, f"0 to {processes - 1}")


def is_first() -> bool:
    """Whether this process writes and prints; alone, it does."""
    return jax.process_index() == 0


def own_name() -> str:
    """Of this process among several, for files of its own; "" where it is alone."""
    count = jax.process_count()
    return f"process-{jax.process_index()}-of-{count}" if count > 1 else ""


def share_of(count: int) -> range:
    """The indices that this process works through, of `count`."""
    index, processes = jax.process_index(), jax.process_count()
    return range(count * index // processes, count * (index + 1) // processes)


def gathered(content: bytes) -> list[bytes]:
    """What every process gave, by its number."""
    _, parts = _gathered(np.frombuffer(content, np.uint8))
    return [part.tobytes() for part in parts]


def gathered_values(value: Any) -> list[Any]:
    """The same of values that JSON has."""
    return [json.loads(content) for content in gathered(json.dumps(value).encode())]


def gathered_rows(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows of all processes one after the other, bit by bit.

    Args:
      arrays: by name; a process without rows may give none.
    """
    kinds = {name: (str(rows.dtype), rows.shape[1:]) for name, rows in arrays.items()}
    found = {}
    for name, (kind, shape) in dict(
        entry for theirs in gathered_values(kinds) for entry in theirs.items()
    ).items():
        rows = np.ascontiguousarray(arrays.get(name, np.empty((0, *shape), kind)))
        whole, _ = _gathered(rows.reshape(-1).view(np.uint8))
        found[name] = whole.view(kind).reshape(-1, *shape)
    return found


def require_agreed(argument: str, value: str, got: str) -> None:
    """Raises UsageError, on every process, unless all have the same value.

    Args:
      got: what is not the same.
    """
    values = gathered(value.encode())
    others = [index for index, other in enumerate(values) if other != values[0]]
    if others:
        told = f"{got} on process {others[0]} than on process 0"
        raise UsageError(argument, told, "the same on all")


def _gathered(
    content: UInt8[np.ndarray, " n"],
) -> tuple[UInt8[np.ndarray, " m"], list[UInt8[np.ndarray, " _"]]]:
    """What all gave in one array, and each part of it. Every process must call it."""
    count = jax.process_count()
    if count == 1:
        return content, [content]
    size = np.frombuffer(len(content).to_bytes(8, "little"), np.uint8)
    sizes = _allgather(size).view("<u8")[:, 0].astype(int).tolist()
    whole = np.empty(sum(sizes), np.uint8)
    ends = np.cumsum(sizes).tolist()
    parts = [whole[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    first, most = 0, max(sizes)
    while first < most:
        # Few sizes, as each is compiled for.
        width = min(BLOCK // count, 1 << (most - first - 1).bit_length())
        own = content[first : first + width]
        block = _allgather(np.pad(own, (0, width - len(own))))
        for part, rows in zip(parts, block, strict=True):
            there = part[first : first + width]
            there[:] = rows[: len(there)]
        first += width
    return whole, parts


def _allgather(content: UInt8[np.ndarray, " n"]) -> UInt8[np.ndarray, "p n"]:
    from jax.experimental.multihost_utils import process_allgather

    try:
        return process_allgather(content)
    except JaxRuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ConnectionError(f"another process cannot be reached: {reason}") from None


def _client():
    from jax._src import distributed

    return distributed.global_state.client


def _tell(error: BaseException, watch: threading.Thread) -> None:
    """Gives an error to all; the first process, through which they hear it, ends after them.

    Where another process has told of one before, this may have come of it: that one is the last.
    """
    usage = isinstance(error, UsageError)
    line = str(error).strip().partition("\n")[0] or "no word"
    line = line if usage else f"{type(error).__name__}: {line}"
    word = {"process": jax.process_index(), "code": 2 if usage else 1, "line": printable(line)}
    try:
        _client().key_value_set(WORD, json.dumps(word))
    except JaxRuntimeError:
        watch.join(FAREWELL)  # it ends this process
    else:
        _part()


def _watch() -> None:
    """Ends this process when another has told of an error."""
    with contextlib.suppress(JaxRuntimeError):  # the connection is gone: JAX ends this process
        word = json.loads(_client().blocking_key_value_get(WORD, FOREVER))
        if word and word["process"] != jax.process_index():
            _end(**word)


def _end(process: int, code: int, line: str) -> NoReturn:
    remove_partials()
    os.write(2, f"process {process}: {line}\n".encode())
    _part()
    os._exit(code)


def _part() -> None:
    """Says that this process ends; the first one waits for the others."""
    client, index = _client(), jax.process_index()
    with contextlib.suppress(JaxRuntimeError):  # one is gone
        if index:
            client.key_value_set(f"jaxood/ended/{index}", "")
            return
        until = time.monotonic() + FAREWELL
        for other in range(1, jax.process_count()):
            left = max(1, round(1000 * (until - time.monotonic())))
            client.blocking_key_value_get(f"jaxood/ended/{other}", left)
        time.sleep(1.0)  # from their word to their end
