"""Files that are not as they were written."""

from collections.abc import Iterable, Iterator

import numpy as np


def flipped(
    content: bytes, indices: Iterable[int], generator: np.random.Generator
) -> Iterator[bytes]:
    """The content with one bit flipped, in each of these bytes in turn."""
    for index in indices:
        changed = bytearray(content)
        changed[index] ^= 1 << int(generator.integers(8))
        yield bytes(changed)
