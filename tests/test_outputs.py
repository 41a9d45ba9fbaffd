import tracemalloc

import numpy as np
import pytest

from jaxood.outputs import top_classes


@pytest.mark.parametrize("rows", [0, 1, 4096, 10_000])
def test_top_classes_of_a_mapped_file_without_a_copy_of_it(rows, tmp_path):
    logits = np.random.default_rng(0).normal(size=(rows, 50)).astype(np.float32)
    np.save(tmp_path / "logits.npy", logits)
    mapped = np.load(tmp_path / "logits.npy", mmap_mode="r" if rows else None)
    tracemalloc.start()
    found = top_classes(mapped)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(found) == [max(range(50), key=row.__getitem__) for row in logits]
    assert peak < 1_100_000  # of 2,000,000 bytes
