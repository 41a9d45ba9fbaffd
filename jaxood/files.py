"""Files that are whole or absent, and short names for what they were made from."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


def fingerprint(*parts: object) -> str:
    """A short hash of values that have a faithful `repr`."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def file_name(text: str) -> str:
    """Text as part of a file's name: other signs than letters and digits become "_"; cut short."""
    kept = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text)
    return kept[:80]


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place when all went well.

    A reader, or a next run, sees the whole file or none of it.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
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
