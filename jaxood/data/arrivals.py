"""Images that come one after the other: paths or an archive in a pipe, a watched folder."""

import io
import os
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

from jaxood.data.files import EXTENSIONS, ImageFiles, images_below
from jaxood.data.images import ImageSet, Pictures
from jaxood.errors import UsageError
from jaxood.files import printable

TAR_MAGIC = slice(257, 262), b"ustar"
POLL = 1.0  # seconds between two looks at a folder
SETTLED = 1.0  # seconds since a file was written, before it is read


def from_stream(stream: io.BufferedReader, most: int) -> Iterator[ImageSet]:
    """Images of a pipe: a tar archive of them, or paths, one a line; up to `most` at once.

    What is there is not held back for what may come.
    """
    where, magic = TAR_MAGIC
    if stream.peek(512)[where] == magic:
        yield from _from_tar(stream, most)
        return
    rest = b""
    while part := stream.read1():
        *lines, rest = (rest + part).split(b"\n")
        yield from _paths(lines, most)
    yield from _paths([rest], most)


def new_in(folders: Sequence[Path | str]) -> Iterator[ImageSet]:
    """Images in folders and below them, and then those that are put there, without end.

    Raises:
      UsageError: for what is no folder.
    """
    for folder in folders:
        if not os.path.isdir(folder):
            raise UsageError("images", printable(folder), "a folder to watch")
    return _watched(folders)


def _watched(folders: Sequence[Path | str]) -> Iterator[ImageSet]:
    seen: set[str] = set()
    while True:
        latest = time.time() - SETTLED
        found = [
            os.path.join(folder, path) for folder in folders for path in images_below(str(folder))
        ]
        fresh = [path for path in found if path not in seen and _written(path) <= latest]
        if fresh:
            seen.update(fresh)
            yield ImageFiles("", tuple(fresh), "images")
        time.sleep(POLL)


def _paths(lines: Sequence[bytes], most: int) -> Iterator[ImageFiles]:
    paths = [os.fsdecode(line.strip()) for line in lines if line.strip()]
    for first in range(0, len(paths), most):
        yield ImageFiles("", tuple(paths[first : first + most]), "images")


def _from_tar(stream: io.BufferedReader, most: int) -> Iterator[Pictures]:
    names: list[str] = []
    contents: list[bytes] = []
    source = _Ending(stream)
    try:
        with tarfile.open(fileobj=cast(IO[bytes], source), mode="r|") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                if file is None or os.path.splitext(member.name)[1].lower() not in EXTENSIONS:
                    continue
                contents.append(file.read())
                names.append(printable(member.name))
                if len(names) == most:
                    yield Pictures(contents, "images", names=tuple(names))
                    names, contents = [], []
    except tarfile.TarError:
        source.end = b""
    if names:
        yield Pictures(contents, "images", names=tuple(names))
    if source.end != bytes(tarfile.BLOCKSIZE):
        got = "a tar archive that is damaged or ends early"
        raise UsageError("images", got, "a whole one", "What came before was judged")


class _Ending:
    """A stream of which the last block is remembered: an archive that was cut just ends."""

    def __init__(self, stream: io.BufferedReader):
        self._stream, self.end = stream, b""

    def read(self, size: int) -> bytes:
        found = self._stream.read(size)
        self.end = (self.end + found)[-tarfile.BLOCKSIZE :]
        return found


def _written(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:  # gone again
        return float("inf")
