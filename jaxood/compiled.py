"""Compiled programs, kept in a folder from one process to the next: JAX's persistent cache.

JAX writes its entries in place and, of some compressions, checks nothing, so entries are looked at
before they are used: one that is not whole, or no longer what it was, is removed. They are machine
code: whoever may write to the folder may run code. Each kind of processor has its own folder. What
XLA tried out on a GPU is kept in a folder in there, one small file an operation, so that a program
that was not finished goes on from them.
"""

import contextlib
import hashlib
import os
import platform
import warnings
from collections.abc import Iterator
from pathlib import Path

from jaxood.files import fingerprint, make_folder, write_whole

LEAST_SECONDS = 0.1  # of compilation: quicker programs are not kept
LARGEST = 1 << 30  # bytes in the folder; the oldest entries go first
DIGEST = ".sha256"


@contextlib.contextmanager
def kept_compiled(folder: Path) -> Iterator[None]:
    """Within, what is compiled is taken from `folder`, and kept there for later processes.

    Nothing is changed where JAX has been told of a cache already, as by $JAX_COMPILATION_CACHE_DIR;
    and nothing is kept where the folder cannot be written to.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    folder = folder / fingerprint(platform.machine(), _processor())
    chosen = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": LEAST_SECONDS,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in chosen}
    if before["jax_compilation_cache_dir"] or not _prepared(folder):
        yield
        return
    try:
        _configure(chosen)
        compilation_cache.reset_cache()  # it may have found that there is none
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation")
            yield
    finally:
        _configure(before)
        compilation_cache.reset_cache()


def _prepared(folder: Path) -> bool:
    """Whether the folder can be written to; what is wrong in it is removed."""
    with contextlib.suppress(OSError):  # of a disk, or as another process removes the same
        make_folder(folder)
        _remove_damaged(folder)
    return os.access(folder, os.W_OK)


def _configure(values: dict[str, object]) -> None:
    import jax

    for name, value in values.items():
        jax.config.update(name, value)


def _processor() -> str:
    """What this machine's processor can do: a program for another may crash."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # another system
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _remove_damaged(folder: Path) -> None:
    """Removes entries that are not whole or have changed, and the oldest of too many."""
    entries = [path for path in folder.iterdir() if path.name.endswith("-cache")]
    entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    room = LARGEST
    for path in entries:
        content, seal = path.read_bytes(), path.with_name(path.name + DIGEST)
        digest = hashlib.sha256(content).hexdigest().encode()
        room -= len(content)
        sealed = seal.exists()
        good = seal.read_bytes() == digest if sealed else _whole(content)
        if room < 0 or not good:
            path.unlink()
            seal.unlink(missing_ok=True)
        elif not sealed:
            write_whole(seal, digest)


def _whole(content: bytes) -> bool:
    from jax._src.compilation_cache import decompress_executable

    try:
        return bool(decompress_executable(content))
    except Exception:  # whatever the compression raises
        return False
