"""Exact search against float64, scikit-learn and faiss; the two detectors against plain loops."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxood.detectors import neighbours
from jaxood.detectors.neighbours import Bank, HostRows, Knn, NNGuide, nearest, share
from jaxood.errors import UsageError
from jaxood.heads import LinearHead
from jaxood.outputs import ModelOutputs
from jaxood.parallel import data_mesh, replicate, shard

pytestmark = pytest.mark.optimised

HEAD = LinearHead(jnp.zeros((4, 3)), jnp.zeros(3))


def draw(n, c, seed=0):
    return np.random.default_rng(seed).standard_normal((n, c)).astype(np.float32)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def bank_of(rows, dtype=jnp.float32):
    return Bank(jnp.asarray(rows, dtype), jnp.asarray(len(rows), jnp.int32))


def plain_nearest(queries, rows, k):
    """All products in float64, a stable sort: equal products in the order of the bank."""
    products = queries.astype(np.float64) @ rows.astype(np.float64).T
    indices = np.argsort(-products, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(products, indices, axis=1), indices


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks that small arrays cross, so that every path of the search runs."""
    monkeypatch.setattr(neighbours, "blocks", lambda: neighbours.Blocks(32, 256))
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.parametrize(
    ("n", "size"), [(1, 7), (31, 1000), (32, 256), (33, 257), (100, 256), (100, 1000)]
)
def test_equals_float64_search(small_blocks, n, size):
    queries, rows = draw(n, 24), unit(draw(size, 24, seed=1))
    found = jax.jit(nearest, static_argnums=2)(queries, bank_of(rows), 7)
    products, indices = plain_nearest(queries, rows, 7)
    np.testing.assert_allclose(found.products, products, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.indices, indices)


def test_full_blocks_equal_float64_search():
    queries, rows = draw(1025, 32), unit(draw(9001, 32, seed=1))
    found = jax.jit(nearest, static_argnums=2)(queries, bank_of(rows), 10)
    products, indices = plain_nearest(queries, rows, 10)
    np.testing.assert_allclose(found.products, products, rtol=1e-4, atol=1e-5)
    assert np.mean(np.asarray(found.indices) == indices) > 0.9999  # near ties within rounding


def test_equal_products_come_in_the_order_of_the_bank(small_blocks):
    tied(700)


def test_equal_products_of_a_wide_block_come_in_the_order_of_the_bank():
    tied(9001)


def tied(size):
    rows = np.random.default_rng(2).integers(-2, 3, (size, 5)).astype(np.float32)
    queries = np.random.default_rng(3).integers(-2, 3, (40, 5)).astype(np.float32)
    products, indices = plain_nearest(queries, rows, 12)
    found = nearest(queries, bank_of(rows), 12)
    np.testing.assert_array_equal(found.products, products)
    np.testing.assert_array_equal(found.indices, indices)


def test_padding_of_a_bank_that_was_shared_is_not_searched():
    """Products with all rows are negative, those with padding would be 0."""
    rows, queries = unit(np.abs(draw(30, 8))), -np.abs(draw(3, 8, seed=1))
    state = Knn(k=5).restored(Bank(np.pad(rows, ((0, 34), (0, 0))), np.int32(30)))
    expected, _ = plain_nearest(queries, rows, 5)
    np.testing.assert_allclose(nearest(queries, state, 5).products, expected, rtol=1e-5)


def test_equals_sklearn():
    from sklearn.neighbors import NearestNeighbors

    queries, rows = unit(draw(50, 16)), unit(draw(5000, 16, seed=1))
    found = nearest(queries, bank_of(rows), 5)
    model = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(rows)
    distances, indices = model.kneighbors(queries)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(2 - 2 * np.asarray(found.products), distances**2, atol=1e-5)


def test_equals_faiss():
    faiss = pytest.importorskip("faiss")
    queries, rows = draw(50, 16), unit(draw(5000, 16, seed=1))
    index = faiss.IndexFlatIP(16)
    index.add(rows)
    products, indices = index.search(queries, 10)
    found = nearest(queries, bank_of(rows), 10)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.products, products, atol=1e-5)


@pytest.mark.cpu
@pytest.mark.parametrize("size", [5, 64, 1001])
def test_shared_bank_gives_the_same(small_blocks, size):
    queries, rows = draw(33, 8), draw(size, 8, seed=1)
    mesh = neighbours.device_mesh()
    whole = jax.jit(nearest, static_argnums=2)(queries, bank_of(rows), 5)
    shared = Bank(share(rows, mesh), np.int32(size))
    parts = jax.jit(nearest, static_argnums=(2, 3))(queries, shared, 5, mesh)
    shares = {shard.data.shape[0] for shard in shared.rows.addressable_shards}
    assert shares == {16 * -(-size // 128)}
    np.testing.assert_array_equal(parts.indices, whole.indices)
    np.testing.assert_allclose(parts.products, whole.products, rtol=1e-5)


def test_bank_in_host_memory_gives_the_same(small_blocks, tmp_path):
    queries, rows = draw(33, 8), draw(1001, 8, seed=1)
    np.save(tmp_path / "rows.npy", rows)
    mapped = HostRows(np.load(tmp_path / "rows.npy", mmap_mode="r"))
    whole = nearest(queries, bank_of(rows), 70)
    parts = jax.jit(nearest, static_argnums=2)(queries, Bank(mapped, np.int32(1001)), 70)
    np.testing.assert_array_equal(parts.indices, whole.indices)
    np.testing.assert_allclose(parts.products, whole.products, rtol=1e-5, atol=1e-6)


def test_compiled_search_does_not_keep_host_rows_alive():
    rows = HostRows(draw(50, 8))
    alive = weakref.ref(rows.rows)
    jax.jit(nearest, static_argnums=2)(draw(2, 8), Bank(rows, np.int32(50)), 3)
    del rows
    gc.collect()
    assert alive() is None


def test_bfloat16_bank_sums_in_float32():
    queries, rows = draw(64, 2048), unit(draw(3000, 2048, seed=1))
    found = nearest(queries, bank_of(rows, jnp.bfloat16), 10)
    assert found.products.dtype == jnp.float32
    # The products of the rounded values: nothing but the rounding of the inputs is lost.
    rounded = [np.asarray(a).astype(jnp.bfloat16).astype(np.float32) for a in (queries, rows)]
    np.testing.assert_allclose(found.products, plain_nearest(*rounded, 10)[0], rtol=1e-4)
    np.testing.assert_allclose(found.products, plain_nearest(queries, rows, 10)[0], rtol=0.02)


def test_search_holds_the_bank_and_one_block():
    size, channels = 12811, 256
    compiled = (
        jax.jit(nearest, static_argnums=2)
        .lower(
            jax.ShapeDtypeStruct((3000, channels), jnp.float32),
            Bank(
                jax.ShapeDtypeStruct((size, channels), jnp.float32),
                jax.ShapeDtypeStruct((), jnp.int32),
            ),
            10,
        )
        .compile()
    )
    bank = 4 * size * channels
    peak = bank + compiled.memory_analysis().temp_size_in_bytes
    assert peak < 1.3 * neighbours.memory_bytes(size, channels)


@pytest.mark.cpu
def test_a_bank_of_all_of_imagenet(monkeypatch):
    """1,281,167 x 2,048 float32 values, 10.5 GB: refused on one small device, 1.3 GB on each of 8.

    Zeros that nobody writes to take no memory; the compiler's account needs shapes alone.
    """
    size, channels, queries, k = 1_281_167, 2048, 1024, 10
    monkeypatch.setattr(neighbours, "free_bytes", lambda devices: 8 * 10**9)
    bank = Bank(np.zeros((size, channels), np.float32), np.int32(size))
    with pytest.raises(UsageError, match=r"knn bank: .* 10.66 GB a device, wanted .* 8.00"):
        Knn().restored(bank)
    assert isinstance(Knn(memory="host").restored(bank).rows, HostRows)

    mesh = neighbours.device_mesh()
    everywhere, parts = (NamedSharding(mesh, P(*axes)) for axes in ((), mesh.axis_names))
    shared = Bank(
        jax.ShapeDtypeStruct((-(-size // 128) * 128, channels), jnp.float32, sharding=parts),
        jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere),
    )
    sought = jax.ShapeDtypeStruct((queries, channels), jnp.float32, sharding=everywhere)
    search = jax.jit(nearest, static_argnums=(2, 3))
    account = search.lower(sought, shared, k, mesh).compile().memory_analysis()
    assert mesh.size == 8
    part = 4 * channels * (-(-size // 128) * 16)
    assert account.argument_size_in_bytes == part + 4 * queries * channels + 4
    assert part < 1.32e9 and account.temp_size_in_bytes < 0.25e9


def outputs_of(n, seed=0):
    pooled, logits = jnp.asarray(draw(n, 4, seed)), jnp.asarray(3 * draw(n, 3, seed + 1))
    return ModelOutputs(None, pooled, pooled, logits)


def test_knn_is_the_product_with_the_kth_neighbour():
    train, test = outputs_of(60), outputs_of(20, seed=5)
    detector = Knn(k=3)
    scores = jax.jit(detector.score)(detector.fit(train, None, HEAD), test, HEAD)
    bank, images = unit(np.asarray(train.pooled, np.float64)), np.asarray(test.pooled, np.float64)
    expected = [sorted(bank @ (x / np.linalg.norm(x)))[-3] for x in images]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_nnguide_by_plain_loops():
    train, test = outputs_of(60), outputs_of(20, seed=5)
    detector = NNGuide(k=4)
    scores = jax.jit(detector.score)(detector.fit(train, None, HEAD), test, HEAD)

    def energy(logits):
        return np.log(np.sum(np.exp(np.asarray(logits, np.float64))))

    for i, score in enumerate(scores):
        x = unit(np.asarray(test.pooled[i : i + 1], np.float64))[0]
        scaled = [
            energy(train.logits[j]) * (z / np.linalg.norm(z)) @ x
            for j, z in enumerate(np.asarray(train.pooled, np.float64))
        ]
        expected = energy(test.logits[i]) * np.mean(sorted(scaled)[-4:])
        np.testing.assert_allclose(score, expected, rtol=1e-5)


@pytest.mark.parametrize("detector", [Knn, NNGuide])
@pytest.mark.parametrize(
    ("memory", "dtype"),
    [("device", "float32"), ("device", "bfloat16"), ("shared", "float32"), ("host", "bfloat16")],
)
def test_where_the_bank_lies_does_not_matter(detector, memory, dtype):
    train, test = outputs_of(61), outputs_of(24, seed=5)
    expected = detector(k=3).score(detector(k=3).fit(train, None, HEAD), test, HEAD)
    other = detector(3, dtype, memory)
    state = other.fit(train, None, HEAD)
    assert state.rows.dtype == jnp.dtype(dtype)
    mesh = data_mesh()
    scores = jax.jit(other.score)(state, shard(test, mesh), replicate(HEAD, mesh))
    tolerance = {"rtol": 1e-5} if dtype == "float32" else {"rtol": 0.03, "atol": 0.02}
    np.testing.assert_allclose(scores, expected, **tolerance)


def test_k_beyond_the_bank_is_refused():
    with pytest.raises(UsageError, match=r"knn\.k: got 61, wanted 1 to 60, the rows of the bank"):
        Knn(k=61).fit(outputs_of(60), None, HEAD)
    with pytest.raises(UsageError, match=r"nnguide\.k: got 0"):
        NNGuide(k=0).fit(outputs_of(60), None, HEAD)


def test_bank_that_cannot_fit_is_refused_before_it_is_taken(monkeypatch, caplog):
    monkeypatch.setattr(neighbours, "free_bytes", lambda devices: 1000)
    with pytest.raises(UsageError, match=r"bank of 60 x 4 float32 values, .* knn\.dtype=bfloat16"):
        Knn().fit(outputs_of(60), None, HEAD)
    needed = neighbours.memory_bytes(60, 4)
    monkeypatch.setattr(neighbours, "free_bytes", lambda devices: 2 * needed)
    Knn().fit(outputs_of(60), None, HEAD)
    assert "60 x 4 float32 values" in caplog.text
