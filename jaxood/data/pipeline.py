"""Images decoded in parallel and batched in their order, by threads."""

import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from jaxtyping import UInt8

from jaxood.data.decode import UndecodableImage, silence_pil
from jaxood.data.images import Batch, padded
from jaxood.files import printable

THREADS = 2 * (os.cpu_count() or 1)  # decoders release the interpreter's lock; two hide reads
AHEAD = 3  # batches that are being decoded, so that no thread waits for the end of one


def decoded_batches(
    load: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    count: int,
    side: int,
    batch_size: int,
    start: int = 0,
) -> Generator[Batch, None, None]:
    """Batches of the images from `start` up to `count`, the last one padded.

    Args:
      load: gives the image at an index, of `side` by `side` pixels, or raises UndecodableImage; it
        is called by several threads.
    """
    silence_pil()

    def loaded(images: UInt8[np.ndarray, "n h w 3"], row: int, index: int) -> str:
        """Puts an image into its row; why it could not be, or nothing."""
        try:
            images[row] = load(index)
        except UndecodableImage as error:
            images[row] = 0
            return printable(str(error))
        return ""

    coming: deque[tuple[int, UInt8[np.ndarray, "n h w 3"], list[Future[str]]]] = deque()
    threads = ThreadPoolExecutor(THREADS, "decode")
    try:
        for first in range(start, count, batch_size):
            rows = min(batch_size, count - first)
            images = np.empty((rows, side, side, 3), np.uint8)
            reasons = [threads.submit(loaded, images, row, first + row) for row in range(rows)]
            coming.append((first, images, reasons))
            if len(coming) == AHEAD:
                yield _finished(*coming.popleft(), batch_size)
        while coming:
            yield _finished(*coming.popleft(), batch_size)
    finally:
        threads.shutdown(cancel_futures=True)  # an image that is begun is waited for


def _finished(
    first: int,
    images: UInt8[np.ndarray, "n h w 3"],
    reasons: list[Future[str]],
    batch_size: int,
) -> Batch:
    return padded(images, [reason.result() for reason in reasons], first, batch_size)
