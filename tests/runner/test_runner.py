"""One pass: the same features whatever the batch, the devices or an interruption."""

import shutil
import tracemalloc
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from damage import flipped

from jaxood.attribution.registry import attribution
from jaxood.context import Extractor
from jaxood.data.images import Arrays
from jaxood.detectors.rankfeat import RankFeat
from jaxood.detectors.sfp import SpatialPurification
from jaxood.errors import UsageError
from jaxood.models.digits_cnn import digits_cnn, initialise
from jaxood.models.registry import LoadedModel
from jaxood.parallel import data_mesh
from jaxood.preprocessing import Preprocessing
from jaxood.runner import runner as module
from jaxood.runner.columns import Chunk, MemoryColumn
from jaxood.runner.features import Skipped
from jaxood.runner.runner import Runner
from jaxood.runner.store import StoredColumn

pytestmark = pytest.mark.optimised

SFP = SpatialPurification(coalitions=16)
EXTRACTORS = (SFP,)


@pytest.fixture(scope="module")
def model():
    network = digits_cnn(6)
    initialise(network, jax.random.key(0))
    preprocessing = Preprocessing(8, 8, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2))
    return LoadedModel(network, preprocessing, "digits_cnn", "digits", "hash")


def pictures(count=45, name="pictures"):
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return Arrays(images, np.arange(count) % 6, name)


@dataclass(frozen=True, eq=False)
class Faulty(Arrays):
    """Every seventh image cannot be decoded; the reader dies before image `dies_at`."""

    dies_at: int = 10**9
    asked_from: list[int] = field(default_factory=list)

    def batches(self, preprocessing, batch_size, start=0):
        self.asked_from.append(start)
        for batch in super().batches(preprocessing, batch_size, start):
            if batch.indices.max() >= self.dies_at:
                raise KeyboardInterrupt
            bad = (batch.indices % 7 == 0) & batch.valid
            reasons = {int(index): f"broken {index}" for index in batch.indices[bad]}
            yield batch._replace(valid=batch.valid & ~bad, reasons=reasons)


def faulty(**options):
    images = pictures()
    return Faulty(images.images, images.labels, images.name, **options)


def assert_same(left, right, tolerance=1e-5):
    np.testing.assert_array_equal(left.indices, right.indices)
    assert left.skipped == right.skipped
    for one, other in zip(jax.tree.leaves(left[:3]), jax.tree.leaves(right[:3]), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def test_features_are_the_models(model):
    images = pictures()
    features = Runner(model).extract(images, EXTRACTORS, batch_size=16)
    values = images.images.astype(np.float64) / 255
    normalised = (values - [0.5, 0.4, 0.3]) / [0.5, 0.25, 0.2]
    outputs = model.module(jnp.asarray(normalised, jnp.float32))
    np.testing.assert_allclose(features.pooled, outputs.pooled, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features.logits, outputs.logits, rtol=1e-4, atol=1e-5)
    assert features.extras[SFP.key].shape == features.pooled.shape


@pytest.mark.parametrize("batch_size", [1, 7, 8, 9, 45, 64])
@pytest.mark.parametrize("devices", [1, 8])
def test_neither_batch_nor_devices_matter(model, batch_size, devices):
    one = Runner(model, data_mesh(jax.devices()[:1]))
    reference = one.extract(faulty(), EXTRACTORS, batch_size=45)
    assert len(reference) == 45 - 7
    several = Runner(model, data_mesh(jax.devices()[:devices]))
    assert_same(several.extract(faulty(), EXTRACTORS, batch_size=batch_size), reference)


def test_undecodable_images_are_left_out_and_named(model):
    features = Runner(model).extract(faulty(), batch_size=10)
    bad = list(range(0, 45, 7))
    np.testing.assert_array_equal(features.indices, np.setdiff1d(np.arange(45), bad))
    expected = tuple(Skipped(i, f"pictures/{i}", f"broken {i}") for i in bad)
    assert features.skipped == expected


def test_the_last_batch_does_not_compile_again(model):
    runner = Runner(model)
    before = module._on_mesh.compiled()._cache_size()
    runner.extract(pictures(45), batch_size=24)
    assert module._on_mesh.compiled()._cache_size() == before + 1
    runner.extract(pictures(31), batch_size=24)
    assert module._on_mesh.compiled()._cache_size() == before + 1


def test_an_interrupted_pass_goes_on(model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 16)
    runner = Runner(model)
    with pytest.raises(KeyboardInterrupt):
        runner.extract(faulty(dies_at=40), EXTRACTORS, batch_size=8, store=tmp_path)
    images, seen = faulty(), []
    resumed = runner.extract(
        images,
        EXTRACTORS,
        batch_size=8,
        store=tmp_path,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert images.asked_from == [32] and seen[0] == (32, 45) and seen[-1] == (45, 45)
    assert_same(resumed, runner.extract(faulty(), EXTRACTORS, batch_size=8), tolerance=1e-6)

    images = faulty()
    again = runner.extract(images, EXTRACTORS, batch_size=8, store=tmp_path)
    assert images.asked_from == []  # nothing is read when all is there
    assert_same(again, resumed, tolerance=0)
    assert again.skipped == resumed.skipped


def test_progress_is_kept_by_time_as_well(model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        Runner(model).extract(faulty(dies_at=40), batch_size=8, store=tmp_path)
    images = faulty()
    Runner(model).extract(images, batch_size=8, store=tmp_path)
    assert images.asked_from == [32]


def test_what_is_stored_serves_every_run_that_asks_for_no_more(model, tmp_path):
    runner, both = Runner(model), (SFP, RankFeat())
    whole = runner.extract(faulty(), both, batch_size=8, store=tmp_path)
    for extractors in ((), (SFP,), (RankFeat(),), both[::-1]):
        images = faulty()
        found = runner.extract(images, extractors, batch_size=8, store=tmp_path)
        assert images.asked_from == []
        assert set(found.extras) == {extractor.key for extractor in extractors}
        for key, rows in found.extras.items():
            np.testing.assert_array_equal(rows, whole.extras[key])
        np.testing.assert_array_equal(found.logits, whole.logits)


def test_a_run_that_asks_for_more_computes_only_what_is_new(model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 16)
    runner = Runner(model)
    with pytest.raises(KeyboardInterrupt):
        runner.extract(faulty(dies_at=40), (SFP,), batch_size=8, store=tmp_path)
    runner.extract(faulty(), (), batch_size=8, store=tmp_path)  # sfp is still at 32
    stored = {path: path.read_bytes() for path in tmp_path.rglob("outputs-*/*")}
    images = faulty()
    found = runner.extract(images, (SFP, RankFeat()), batch_size=8, store=tmp_path)
    assert images.asked_from == [0]  # RankFeat has nothing yet
    assert {path.name for path in stored} == {
        "chunks.jsonl",
        "pooled.bin",
        "logits.bin",
        "indices.bin",
    }
    assert all(path.read_bytes() == content for path, content in stored.items())
    assert_same(found, runner.extract(faulty(), (SFP, RankFeat()), batch_size=8), tolerance=1e-6)


def change(path, edit):
    path.write_bytes(edit(path.read_bytes()))


DAMAGE = {
    "a changed row": ("logits.bin", lambda rows: rows[:-900] + b"?" + rows[-899:]),
    "no file": ("pooled.bin", None),
    "half a file": ("pooled.bin", lambda rows: rows[: len(rows) // 2]),
    "another file": ("indices.bin", lambda rows: rows[8:] + rows[:8]),
    "a changed line": ("chunks.jsonl", lambda text: text.replace(b'"end": 32', b'"end": 40')),
    "no second line": ("chunks.jsonl", lambda text: b"".join(text.splitlines(True)[::2])),
    "half a line": ("chunks.jsonl", lambda text: text[:-1]),
    "no line": ("chunks.jsonl", lambda text: b""),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_computed_again(model, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(module, "CHUNK", 16)
    runner = Runner(model)
    whole = runner.extract(pictures(), batch_size=8, store=tmp_path)
    name, edit = DAMAGE[damage]
    (path,) = tmp_path.rglob(name)
    path.unlink() if edit is None else change(path, edit)
    found = runner.extract(pictures(), batch_size=8, store=tmp_path)
    assert_same(found, whole, tolerance=1e-6)
    images = faulty()
    runner.extract(images, batch_size=8, store=tmp_path)
    assert images.asked_from == []


def column_of(tmp_path, identity="these"):
    return StoredColumn(tmp_path, "outputs", identity)


def chunks_in(tmp_path):
    with closing(column_of(tmp_path)) as column:
        return column.chunks


def test_any_flipped_bit_is_noticed(tmp_path, caplog):
    generator = np.random.default_rng(0)
    column = column_of(tmp_path)
    arrays = {"pooled": generator.standard_normal((20, 6), np.float32), "indices": np.arange(20)}
    column.append(Chunk(0, 21, 20, (Skipped(20, "a.png", "empty"),)), arrays)
    for path in sorted(column.folder.iterdir()):
        content = path.read_bytes()
        caplog.clear()
        for changed in flipped(content, generator.integers(0, len(content), 100), generator):
            path.write_bytes(changed)
            assert chunks_in(tmp_path) == []
        assert len(caplog.messages) == 100
        assert "is damaged from image 0 on: computed again" in caplog.messages[0]
        path.write_bytes(content)
    column.close()
    with closing(column_of(tmp_path)) as again:
        assert again.chunks == column.chunks
        for name, rows in again.arrays().items():
            np.testing.assert_array_equal(rows, arrays[name])


def test_a_chunk_is_only_taken_where_it_was_written(tmp_path):
    column, other = column_of(tmp_path), column_of(tmp_path, "others")
    for one in (column, other):
        one.append(Chunk(0, 4, 4, ()), {"indices": np.arange(4)})
    column.append(Chunk(4, 8, 4, ()), {"indices": np.arange(4, 8)})
    change(column.folder / "chunks.jsonl", lambda text: text.splitlines(True)[0] * 2)
    assert [chunk.end for chunk in chunks_in(tmp_path)] == [4]
    change(column.folder / "chunks.jsonl", lambda _: (other.folder / "chunks.jsonl").read_bytes())
    assert chunks_in(tmp_path) == []
    column.close()
    other.close()


def test_chunks_without_a_row(tmp_path):
    column = column_of(tmp_path)
    for first in (0, 4):
        skipped = tuple(
            Skipped(index, f"{index}.png", "empty") for index in range(first, first + 4)
        )
        column.append(Chunk(first, first + 4, 0, skipped), {"pooled": np.empty((0, 3), np.float32)})
    column.close()
    with closing(column_of(tmp_path)) as again:
        assert again.chunks == column.chunks and again.arrays()["pooled"].shape == (0, 3)


def test_a_pass_goes_on_when_its_store_is_removed(model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 16)

    def removed(done, total):
        if done == 24:
            shutil.rmtree(tmp_path / "store")

    found = Runner(model).extract(
        pictures(), EXTRACTORS, batch_size=8, store=tmp_path / "store", progress=removed
    )
    assert_same(found, Runner(model).extract(pictures(), EXTRACTORS, batch_size=8), tolerance=0)


@pytest.mark.parametrize("stored", [True, False])
def test_rows_are_held_once(tmp_path, stored):
    """16 MB in chunks of 1 MB: on disk they are mapped, and stay when the files are removed."""
    column = column_of(tmp_path) if stored else MemoryColumn(16 * 1024)
    rows = np.arange(256 * 1024, dtype=np.float32).reshape(1024, 256)
    tracemalloc.start()
    for chunk in range(16):
        column.append(Chunk(1024 * chunk, 1024 * chunk + 1024, 1024, ()), {"values": rows + chunk})
    column.close()
    if stored:
        column = column_of(tmp_path)
    values = column.arrays()["values"]
    column.close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (2.5e6 if stored else 19e6)
    shutil.rmtree(tmp_path)
    np.testing.assert_array_equal(values, np.concatenate([rows + chunk for chunk in range(16)]))


def test_a_column_that_lacks_an_image_that_others_have(model, tmp_path):
    """It was read at another time, when the image could not be."""
    runner = Runner(model)
    whole = runner.extract(pictures(), (SFP,), batch_size=8)

    class Once(Arrays):
        def batches(self, *arguments):
            for batch in super().batches(*arguments):
                bad = batch.indices == 9
                yield batch._replace(
                    valid=batch.valid & ~bad, reasons={9: "busy"} if bad.any() else {}
                )

    images = pictures()
    runner.extract(Once(images.images, images.labels, images.name), batch_size=8, store=tmp_path)
    found = runner.extract(images, (SFP,), batch_size=8, store=tmp_path)
    there = np.delete(np.arange(45), 9)
    np.testing.assert_array_equal(found.indices, there)
    np.testing.assert_allclose(found.logits, whole.logits[there], rtol=1e-5)
    np.testing.assert_allclose(found.extras[SFP.key], whole.extras[SFP.key][there], rtol=1e-5)
    assert [image.reason for image in found.skipped] == ["busy"]


def test_what_does_not_fit_is_refused_before_the_pass(model, tmp_path, monkeypatch):
    images = faulty()
    monkeypatch.setattr(module, "free_disk", lambda folder: 10_000)
    monkeypatch.setattr(module, "free_memory", lambda: 20_000)
    runner = Runner(model)
    with pytest.raises(
        UsageError, match="store: got 45 images of pictures: 70 float32 values of ea"
    ):
        runner.extract(images, batch_size=8, store=tmp_path)
    with pytest.raises(UsageError, match="images: got 45.*, 0.00 GB of memory, wanted.*: store"):
        runner.extract(images, (SFP,), batch_size=8)
    assert images.asked_from == []


def test_another_columns_rows_are_not_taken(model, tmp_path):
    runner = Runner(model)
    extractors = (RankFeat(), SFP)
    whole = runner.extract(pictures(), extractors, batch_size=8, store=tmp_path)
    for name in ("values.bin", "chunks.jsonl"):
        rank, sfp = (next(tmp_path.rglob(f"{one}-*/{name}")) for one in ("rankfeat", "sfp*"))
        sfp.write_bytes(rank.read_bytes())
        found = runner.extract(pictures(), extractors, batch_size=8, store=tmp_path)
        assert_same(found, whole, tolerance=1e-6)


@dataclass(frozen=True)
class Mean(Extractor):
    name: ClassVar[str] = "mean"

    def __call__(self, context):
        return context.images.mean(axis=(1, 2))


def test_stored_features_depend_on_all_that_made_them(model, tmp_path):
    """Each of these must read the images again: its store is empty."""

    def asked(changed, images=None, extractors=(Mean(),), **options):
        images = images or faulty()
        Runner(changed).extract(images, extractors, batch_size=8, store=tmp_path, **options)
        return images.asked_from

    assert asked(model) == [0] and asked(model) == []
    assert asked(model, seed=1) == []  # Mean draws nothing
    assert asked(replace(model, weights_hash="other")) == [0]
    assert asked(replace(model, name="other")) == [0]
    assert replace(model, dtype="bfloat16").identity() != model.identity()
    assert asked(replace(model, preprocessing=Preprocessing(9, 8))) == [0]
    assert asked(model, Faulty(faulty().images[:44], None, "pictures")) == [0]
    Mean.version = 2
    assert asked(model) == [0]
    Mean.version = 1
    assert asked(model, extractors=(SFP,)) == [0]
    assert asked(model, extractors=(SFP,), seed=1) == [0]  # its coalitions are drawn
    assert asked(model, extractors=(replace(SFP, coalitions=32),)) == [0]
    assert asked(model, extractors=(replace(SFP, keep_fraction=0.5),)) == [0]
    assert asked(model, extractors=(attribution("grad-cam"),)) == [0]
    assert asked(model, extractors=(attribution("grad-cam"),), target=1) == [0]


def test_the_seed_reaches_the_coalitions(model):
    runner, values = Runner(model), attribution("banzhaf", coalitions=16)
    zero, one = (runner.extract(pictures(), (values,), seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(zero.logits, one.logits)
    maps = [found.extras[values.key] for found in (zero, one)]
    assert np.abs(maps[0] - maps[1]).max() > 1e-6 * np.abs(maps[0]).max()


def test_one_forward_pass_for_any_number_of_extractors(model):
    """Counted in the compiled program: the stem's convolutions, on one device and step."""
    names = ("banzhaf", "shapley", "hirescam", "layercam", "grad-cam")
    several = tuple(attribution(name) for name in names)

    def stems(extractors):
        runner = Runner(model, data_mesh(jax.devices()[:1]))
        images = jax.ShapeDtypeStruct((4, 8, 8, 3), np.uint8)
        target = jax.ShapeDtypeStruct((4,), np.int32)
        step = runner.step(extractors)
        traced = jax.make_jaxpr(lambda *rows: step(model.module, *rows, jax.random.key(0)))
        # Three convolutions forward, for a CPU as well; the last layer's gradient goes through mean
        # and head only.
        return str(traced(images, target)).count("conv_general_dilated[")

    assert stems(()) == stems(several[:1]) == stems(several) == 6


def test_a_method_that_the_model_cannot_serve_is_refused_before_the_pass(model):
    images = faulty()
    token = Runner(replace(model, pooling="class token"))
    with pytest.raises(UsageError, match="method sfp: got a model that classifies its class token"):
        token.check(EXTRACTORS, 8, len(images))
    other = Runner(replace(model, pooling="other"))
    with pytest.raises(UsageError, match="method rankfeat: got a model whose pooled features are"):
        other.check((RankFeat(),), 8, len(images))
    assert images.asked_from == []


def test_nothing_decodable_is_one_line(model):
    images = Faulty(pictures().images[:1], None, "pictures")
    with pytest.raises(UsageError, match="1 images in pictures, none of which.*broken 0"):
        Runner(model).extract(images)


def test_closing_a_stream_closes_the_reader(model):
    closed = []

    class Watched(Faulty):
        def batches(self, *arguments):
            try:
                yield from super().batches(*arguments)
            finally:
                closed.append(True)

    images = Watched(pictures().images, None, "pictures")
    stream = Runner(model).stream(images, batch_size=8)
    next(stream)
    stream.close()
    assert closed == [True]
