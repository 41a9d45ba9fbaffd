"""Files that are whole or absent, and short names for what they were made from."""

import contextlib
import errno
import glob
import hashlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from jaxood.errors import UsageError

COMMAND_FILE = "command.toml"  # beside a result: the command that made it

_partials: set[Path] = set()


def fingerprint(*parts: object) -> str:
    """A short hash of values that have a faithful `repr`."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def file_name(text: str) -> str:
    """Text as part of a file's name: other signs than letters and digits become "_"; cut short."""
    kept = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text)
    return kept[:80]


def printable(path: Path | str) -> str:
    """A path as valid UTF-8 without control characters, whatever bytes the file system gave."""
    text = str(path)
    if text.isprintable():
        return text
    text = text.encode("utf-8", "backslashreplace").decode()
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", text)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, where they are not there.

    Raises:
      OSError: when it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except RecursionError:  # hundreds of folders in each other
        reason = os.strerror(errno.ENAMETOOLONG)
        raise OSError(errno.ENAMETOOLONG, reason, os.fspath(folder)) from None


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place when all went well.

    A reader, or a next run, sees the whole file or none of it. The folder is made; what a process
    that was killed left of the file is removed.

    Raises:
      OSError: when it cannot be written, or something else than a file is there.
    """
    make_folder(path.parent)
    if path.exists() and not path.is_file():  # root could put a file in the place of /dev/null
        raise OSError(errno.EEXIST, "not a regular file", os.fspath(path))
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        host, _, process = left.name.split(".")[-2].rpartition("-")
        if host == _host() and not _runs(process):
            left.unlink(missing_ok=True)
    partial = path.with_name(f".{path.name}.{_host()}-{os.getpid()}.partial")
    _partials.add(partial)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
        _partials.discard(partial)


def remove_partials() -> None:
    """Removes what this process has begun to write: before it ends without unwinding."""
    for partial in list(_partials):
        partial.unlink(missing_ok=True)


def _host() -> str:
    """This machine: others may share the disk, and number their processes as they like."""
    return file_name(socket.gethostname()).replace(".", "_")


def _runs(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Holds a folder against other runs that ask for it; it is made, and removed if left empty.

    Raises:
      UsageError: when another process holds it.
    """
    if os.name == "nt":  # no such locks
        yield
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


def _lock(handle: int, folder: Path) -> None:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        wanted = "a folder that no other run is writing to"
        raise UsageError("output", folder, wanted) from None
    except OSError:  # a file system without locks
        pass


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all; makes its folder."""
    with whole_file(path) as partial:
        partial.write_bytes(content)


def cache_dir(chosen: Path | str | None = None) -> Path:
    """`chosen`, else $JAXOOD_CACHE, else $XDG_CACHE_HOME/jaxood, else ~/.cache/jaxood."""
    if chosen is not None:
        return Path(chosen)
    if os.environ.get("JAXOOD_CACHE"):
        return Path(os.environ["JAXOOD_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jaxood"
