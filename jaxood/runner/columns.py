"""What a pass gives of a set, as it comes: columns of arrays, a row an image, chunk by chunk."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from jaxood.runner.features import Skipped

Arrays = Mapping[str, np.ndarray]  # by name; all have as many rows


class Chunk(NamedTuple):
    """The images of a set from `first` up to `end`; undecodable ones have no row."""

    first: int
    end: int
    rows: int
    skipped: tuple[Skipped, ...]


@runtime_checkable
class Column(Protocol):
    """Rows of the images that there are, from the first one on."""

    @property
    def chunks(self) -> Sequence[Chunk]: ...

    def append(self, chunk: Chunk, arrays: Arrays) -> None:
        """Takes the rows of the images that follow."""
        ...

    def cut(self) -> None:
        """Forgets the last chunk."""
        ...

    def arrays(self) -> Arrays:
        """All rows."""
        ...

    def close(self) -> None:
        """Nothing is appended any more; arrays that were given stay valid."""
        ...


def end_of(column: Column) -> int:
    """The first image that is not there."""
    return column.chunks[-1].end if column.chunks else 0


def row_count(column: Column) -> int:
    return sum(chunk.rows for chunk in column.chunks)


class MemoryColumn:
    """In memory, which is taken once, for all images."""

    def __init__(self, images: int):
        self.chunks: list[Chunk] = []
        self._images = images
        self._arrays: dict[str, np.ndarray] = {}

    def append(self, chunk: Chunk, arrays: Arrays) -> None:
        first = row_count(self)
        for name, rows in arrays.items():
            if name not in self._arrays:
                self._arrays[name] = np.empty((self._images, *rows.shape[1:]), rows.dtype)
            self._arrays[name][first : first + chunk.rows] = rows
        self.chunks.append(chunk)

    def cut(self) -> None:
        self.chunks.pop()

    def arrays(self) -> Arrays:
        return {name: array[: row_count(self)] for name, array in self._arrays.items()}

    def close(self) -> None:
        pass
