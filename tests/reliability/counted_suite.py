"""A suite in memory that writes down which images are read, and where a process is to fail."""

import os
import signal
from dataclasses import dataclass

import numpy as np

from jaxood.data.images import Arrays
from jaxood.data.suite import Suite
from jaxood.detectors import scoring
from jaxood.runner import runner

runner.CHUNK = 16
scoring.SCORE_ROWS = 8, 16  # so that processes have blocks to share
COUNTS = {"train": 60, "known": 41, "foreign": 90, "few": 1}


@dataclass(frozen=True, eq=False)
class Counted(Arrays):
    """The first two pixels of an image are its number."""

    def batches(self, preprocessing, batch_size, start=0):
        for batch in super().batches(preprocessing, batch_size, start):
            numbers = 256 * batch.images[:, 0, 0, 0].astype(int) + batch.images[:, 0, 1, 0]
            named = [f"{self.name}:{number}" for number in numbers[batch.valid]]
            if os.environ.get("KILLED_AT") in named:
                os.kill(os.getpid(), signal.SIGKILL)
            if os.environ.get("FULL_AT") in named:
                raise OSError(28, "No space left on device")
            with open(os.environ["READ"], "a") as file:
                file.write("".join(f"{name}\n" for name in named))
            broken = (numbers % 7 == 3) & batch.valid
            reasons = {int(index): "broken" for index in batch.indices[broken]}
            yield batch._replace(valid=batch.valid & ~broken, reasons=reasons)


def images(name: str) -> Counted:
    count = COUNTS[name]
    generator = np.random.default_rng(count)
    pixels = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 1, 0] = np.divmod(np.arange(count), 256)
    return Counted(pixels, np.arange(count) % 6, name)


def suite() -> Suite:
    ood = {name: images(name) for name in ("foreign", "few")}
    return Suite("counted", images("train"), images("known"), ood)
