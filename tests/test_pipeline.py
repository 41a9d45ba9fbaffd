"""One pass: the same features whatever the batch, the devices or an interruption."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxood import pipeline
from jaxood.data.images import Arrays
from jaxood.detectors.methods import parse_method
from jaxood.errors import UsageError
from jaxood.models.digits_cnn import digits_cnn, initialise
from jaxood.models.registry import LoadedModel
from jaxood.parallel import data_mesh
from jaxood.pipeline import extract, extraction_fingerprint, fit_outputs, score
from jaxood.preprocessing import Preprocessing
from jaxood.purification import SpatialPurification
from jaxood.store import FeatureStore

EXTRACTORS = {"sfp": SpatialPurification(coalitions=16)}


@pytest.fixture(scope="module")
def model():
    module = digits_cnn(6)
    initialise(module, jax.random.key(0))
    preprocessing = Preprocessing(8, 8, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2))
    return LoadedModel(module, preprocessing, "digits_cnn", "digits", "hash")


def pictures(count=45, name="pictures"):
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return Arrays(images, np.arange(count) % 6, name)


@dataclass
class Faulty(Arrays):
    """Every seventh image cannot be decoded; the reader dies before image `dies_at`."""

    dies_at: int = 10**9
    asked_from: int = -1

    def batches(self, preprocessing, batch_size, start=0):
        self.asked_from = start
        for batch in super().batches(preprocessing, batch_size, start):
            if batch.indices.max() >= self.dies_at:
                raise KeyboardInterrupt
            bad = (batch.indices % 7 == 0) & batch.valid
            for index in batch.indices[bad]:
                self.skipped[self.ids[index]] = f"broken {index}"
            yield batch._replace(valid=batch.valid & ~bad)


def faulty(**options):
    own = pictures()
    return Faulty(own.images, own.labels, own.name, **options)


def assert_same(left, right, tolerance=1e-5):
    np.testing.assert_array_equal(left.indices, right.indices)
    assert left.skipped == right.skipped
    for one, other in zip(jax.tree.leaves(left[:3]), jax.tree.leaves(right[:3]), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def test_features_are_the_models(model):
    images = pictures()
    features = extract(model, images, EXTRACTORS, batch_size=16)
    values = images.images.astype(np.float64) / 255
    normalised = (values - [0.5, 0.4, 0.3]) / [0.5, 0.25, 0.2]
    outputs = model.module(jnp.asarray(normalised, jnp.float32))
    np.testing.assert_allclose(features.pooled, outputs.pooled, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features.logits, outputs.logits, rtol=1e-4, atol=1e-5)
    assert features.extras["sfp"].shape == features.pooled.shape


@pytest.mark.parametrize("batch_size", [1, 7, 8, 9, 45, 64])
@pytest.mark.parametrize("devices", [1, 8])
def test_neither_batch_nor_devices_matter(model, batch_size, devices):
    reference = extract(
        model, faulty(), EXTRACTORS, batch_size=45, mesh=data_mesh(jax.devices()[:1])
    )
    assert len(reference) == 45 - 7
    mesh = data_mesh(jax.devices()[:devices])
    own = extract(model, faulty(), EXTRACTORS, batch_size=batch_size, mesh=mesh)
    assert_same(own, reference)


def test_undecodable_images_are_left_out_and_named(model):
    features = extract(model, faulty(), batch_size=10)
    bad = list(range(0, 45, 7))
    np.testing.assert_array_equal(features.indices, np.setdiff1d(np.arange(45), bad))
    assert features.skipped == {f"pictures/{index}": f"broken {index}" for index in bad}


def test_the_last_batch_does_not_compile_again(model):
    before = pipeline.forward_and_extract.compiled()._cache_size()
    extract(model, pictures(45), batch_size=24)
    assert pipeline.forward_and_extract.compiled()._cache_size() == before + 1
    extract(model, pictures(31), batch_size=24)
    assert pipeline.forward_and_extract.compiled()._cache_size() == before + 1


def test_an_interrupted_pass_goes_on(model, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "CHUNK", 16)
    store = FeatureStore(tmp_path, "own set/1", "abc")
    with pytest.raises(KeyboardInterrupt):
        extract(model, faulty(dies_at=40), EXTRACTORS, batch_size=8, store=store)
    images, seen = faulty(), []
    resumed = extract(
        model,
        images,
        EXTRACTORS,
        batch_size=8,
        store=store,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert images.asked_from == 32 and seen[0] == (32, 45) and seen[-1] == (45, 45)
    assert_same(resumed, extract(model, faulty(), EXTRACTORS, batch_size=8), tolerance=1e-6)

    images = faulty()
    again = extract(model, images, EXTRACTORS, batch_size=8, store=store)
    assert images.asked_from == -1  # nothing is read when all is there
    assert_same(again, resumed, tolerance=0)


def test_a_damaged_chunk_is_computed_again(model, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "CHUNK", 16)
    store = FeatureStore(tmp_path, "set", "abc")
    whole = extract(model, pictures(), batch_size=8, store=store)
    second = sorted(store.folder.iterdir())[1]
    second.write_bytes(second.read_bytes()[:100])
    assert_same(extract(model, pictures(), batch_size=8, store=store), whole, tolerance=1e-6)


def test_fingerprint_covers_what_features_depend_on(model):
    from dataclasses import replace

    images = pictures()
    own = extraction_fingerprint(model, images, EXTRACTORS)
    assert own == extraction_fingerprint(model, pictures(), dict(EXTRACTORS))
    others = [
        extraction_fingerprint(replace(model, weights_hash="other"), images, EXTRACTORS),
        extraction_fingerprint(replace(model, dtype="bfloat16"), images, EXTRACTORS),
        extraction_fingerprint(
            replace(model, preprocessing=Preprocessing(9, 8)), images, EXTRACTORS
        ),
        extraction_fingerprint(model, pictures(44), EXTRACTORS),
        extraction_fingerprint(model, images, {}),
        extraction_fingerprint(model, images, {"sfp": SpatialPurification(seed=1)}),
    ]
    assert len({own, *others}) == 7


def test_nothing_decodable_is_one_line(model):
    images = Faulty(pictures().images[:1], None, "pictures")
    with pytest.raises(UsageError, match="1 images, none of which can be decoded.*broken 0"):
        extract(model, images)


@pytest.mark.parametrize("rows", [1, 7, 9, 40])
def test_scores_do_not_depend_on_blocks(model, rows, monkeypatch):
    features = extract(model, pictures(), EXTRACTORS, batch_size=16)
    head = model.module.head
    method = parse_method("sfp+knn", {"knn": {"k": 3}})
    outputs = fit_outputs(features)
    state = method.fit(outputs, None, head)
    expected = method.score(state, outputs, head)
    monkeypatch.setattr(pipeline, "SCORE_ROWS", (rows, rows))
    for devices in (1, 8):
        own = score(method, state, features, head, data_mesh(jax.devices()[:devices]))
        np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-6)
