"""Records by index in the shards that TFDS writes, ArrayRecord or TFRecord; without TensorFlow.

A TFRecord is a length (8 bytes, little-endian), its checksum (4), the content, its checksum (4):
one pass over the lengths of a shard, which reads nothing between them, gives the position of each.
Checksums of TFRecords are not verified, as those of image files are not; ArrayRecord's are.
"""

import functools
import itertools
import os
import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxood.data.decode import UndecodableImage

OPEN = 64  # shards that are held open: a set may have more than a process may have open


class Shard(NamedTuple):
    """The records `first` to `end`, exclusive, of a file."""

    path: str
    first: int
    end: int


Reader = Callable[[int], bytes]  # the record at a position of a shard


class Records:
    """The records of shards, one after another.

    Args:
      open_shard: gives the reader of a file; one of `READERS`.
    """

    def __init__(self, shards: Sequence[Shard], open_shard: Callable[[str], Reader]):
        self._shards = shards
        self._ends = list(itertools.accumulate(shard.end - shard.first for shard in shards))
        self._reader = functools.lru_cache(OPEN)(open_shard)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def locate(self, index: int) -> tuple[str, int]:
        """The file of a record, and its position there."""
        row = bisect_right(self._ends, index)
        return self._shards[row].path, self._shards[row].end - (self._ends[row] - index)

    def __getitem__(self, index: int) -> bytes:
        """The content of a record; several threads may ask at a time.

        Raises:
          UndecodableImage: when it is not there, or damaged.
        """
        path, position = self.locate(index)
        try:
            return self._reader(path)(position)
        except Exception as error:  # array_record raises RuntimeError, ValueError, IndexError
            lines = str(error).strip().splitlines()
            reason = lines[0] if lines else type(error).__name__
            shown = f"record {position} of {os.path.basename(path)}"
            raise UndecodableImage(f"{shown} cannot be read: {reason}") from None


def open_array_record(path: str) -> Reader:
    """The reader of an ArrayRecord file."""
    from array_record.python.array_record_module import ArrayRecordReader

    # Without reading ahead: records are asked for one by one.
    options = "readahead_buffer_size:0"
    reader = ArrayRecordReader(path, options=options, file_reader_buffer_size=1 << 15)
    return lambda position: reader.read([position])[0]


class TfRecordFile:
    """The reader of a TFRecord file that is not compressed."""

    def __init__(self, path: str):
        self._path = path
        self._spans: list[tuple[int, int]] = []
        size, start = os.path.getsize(path), 0
        with open(path, "rb", buffering=0) as file:
            while len(header := file.read(8)) == 8:
                (length,) = struct.unpack("<Q", header)
                if length > size - start - 16:
                    break
                self._spans.append((start + 12, length))
                start += length + 16
                file.seek(start)

    def __call__(self, position: int) -> bytes:
        if position >= len(self._spans):
            raise EOFError(f"the file has {len(self._spans)} whole records")
        start, length = self._spans[position]
        with open(self._path, "rb", buffering=0) as file:
            file.seek(start)
            return file.read(length)


READERS: dict[str, Callable[[str], Reader]] = {
    "array_record": open_array_record,
    "tfrecord": TfRecordFile,
}
