"""Images decoded in parallel and batched in their order, by tf.data."""

import os
from collections.abc import Callable, Generator

import numpy as np
from jaxtyping import UInt8

from jaxood.data.decode import UndecodableImage, silence_pil
from jaxood.data.images import Batch, padded
from jaxood.files import printable

THREADS = 2 * (os.cpu_count() or 1)  # PIL releases the interpreter's lock: two a core hide reads


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
    from jaxood.data.tensorflow import tf

    silence_pil()

    def loaded(index):
        try:
            return load(int(index)), b""
        except UndecodableImage as error:
            empty = np.zeros((side, side, 3), np.uint8)
            return empty, printable(str(error)).encode()

    def load_tensors(index):
        image, reason = tf.numpy_function(loaded, [index], [tf.uint8, tf.string])
        return tf.ensure_shape(image, (side, side, 3)), tf.ensure_shape(reason, ())

    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False  # its thread holds the end of a set back, up to a minute
    options.threading.private_threadpool_size = THREADS
    dataset = (
        tf.data.Dataset.range(start, count)
        .map(load_tensors, num_parallel_calls=THREADS)
        .batch(batch_size)
        .prefetch(2)
        .with_options(options)
    )
    iterator = dataset.as_numpy_iterator()
    try:
        for first in range(start, count, batch_size):
            images, reasons = next(iterator)
            yield padded(images, [reason.decode() for reason in reasons], first, batch_size)
    finally:
        del iterator  # here and now: its threads would outlive the interpreter
