"""What is checked of a user's model at the door: each way to be wrong is one line that says so."""

import jax.numpy as jnp
import pytest
from flax import nnx

import jaxood
from jaxood.models.contract import ModelFacts
from jaxood.models.digits_cnn import digits_cnn
from jaxood.models.loading import own_model
from jaxood.models.vit import vit

SMALL = jaxood.Preprocessing(8, 8)


class TwoCells(nnx.Module):
    """Channels are means over the halves of the image, two cells high and one wide."""

    preprocessing = SMALL

    def __init__(self):
        self.kernel = nnx.Param(jnp.array([[1.0, -1.0], [0.5, 0.0], [-2.0, 1.0]]))

    @property
    def head(self):
        return jaxood.LinearHead(self.kernel[...], jnp.array([0.5, 0.0]))

    def map_of(self, images):
        return images.reshape(len(images), 2, 4, 1, 8, 3).mean(axis=(2, 4))

    def pool(self, feature_map):
        return feature_map.mean(axis=(1, 2))

    def __call__(self, images):
        feature_map = self.map_of(images)
        return jaxood.model_outputs(self.head, self.pool(feature_map), feature_map)


class Changed(TwoCells):
    """As above, but for what `change` makes of the outputs."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def __call__(self, images):
        return self.change(super().__call__(images))


def test_facts_of_a_model_that_pools_by_the_mean():
    assert jaxood.check_model(TwoCells(), SMALL) == ModelFacts("mean", (2, 1, 3), 3, 2)


class Largest(TwoCells):
    pooling = "mean"  # what it says of itself is not asked

    def pool(self, feature_map):
        return feature_map.max(axis=(1, 2))


class Wider(TwoCells):
    def __call__(self, images):
        outputs = super().__call__(images)
        wider = jnp.concatenate([outputs.feature_map, outputs.feature_map], axis=-1)
        return outputs._replace(feature_map=wider)


class ByAFewPercent(TwoCells):
    def pool(self, feature_map):
        return 1.02 * feature_map.mean(axis=(1, 2))


@pytest.mark.parametrize("build", [Largest, Wider, ByAFewPercent])
def test_pooling_is_measured(build):
    assert jaxood.check_model(build(), SMALL).pooling == "other"
    assert jaxood.load_model(build).pooling == "other"


def test_a_feature_map_may_be_missing():
    facts = jaxood.check_model(Changed(lambda outputs: outputs._replace(feature_map=None)), SMALL)
    assert facts == ModelFacts("other", None, 3, 2)


class NormHead(TwoCells):
    @property
    def head(self):
        shift = jnp.array([0.1, 0.0, -0.1])
        return jaxood.NormLinearHead(jnp.ones(3), shift, self.kernel[...], jnp.zeros(2))


def test_a_head_with_a_norm_needs_its_penultimate_features():
    assert jaxood.check_model(NormHead(), SMALL).pooling == "mean"

    class Forgotten(NormHead):
        def __call__(self, images):
            outputs = super().__call__(images)
            return outputs._replace(penultimate=outputs.pooled)

    with pytest.raises(jaxood.UsageError, match="penultimate features that the head does not make"):
        jaxood.check_model(Forgotten(), SMALL)


def test_our_networks_say_how_they_pool():
    tokens = vit(5, image_size=32, depth=1, width=8, heads=2)
    side = jaxood.Preprocessing(32, 32)
    assert jaxood.check_model(tokens, side) == ModelFacts("class token", (2, 2, 8), 8, 5)
    assert jaxood.check_model(digits_cnn(6), SMALL) == ModelFacts("mean", (4, 4, 64), 64, 6)


WRONG = {
    "plain logits": (lambda outputs: outputs.logits, "returns .*, wanted jaxood.ModelOutputs"),
    "tuple": (tuple, "a model that returns tuple, wanted jaxood.ModelOutputs"),
    "other logits": (
        lambda outputs: outputs._replace(logits=outputs.logits + 0.1),
        "logits that the head does not make of the pooled features, wanted logits == head",
    ),
    "probabilities": (
        lambda outputs: outputs._replace(logits=nnx.softmax(outputs.logits)),
        r"logits that the head does not make.*Return jaxood\.model_outputs\(self\.head",
    ),
    "classes": (
        lambda outputs: outputs._replace(logits=outputs.logits[:, :1]),
        r"logits \(2, 1\), wanted \(2, 2\), as the head makes them",
    ),
    "pooled": (
        lambda outputs: outputs._replace(pooled=outputs.feature_map[:, 0]),
        r"pooled features \(2, 1, 3\) of 2 images, wanted \(2, channels\)",
    ),
    "images": (
        lambda outputs: outputs._replace(pooled=outputs.pooled[:1]),
        r"pooled features \(1, 3\) of 2 images",
    ),
    "flat map": (
        lambda outputs: outputs._replace(feature_map=outputs.feature_map[:, :, 0]),
        r"a feature map \(2, 2, 3\) of 2 images, wanted \(2, height, width, channels\), or None",
    ),
    "map not finite": (
        lambda outputs: outputs._replace(feature_map=outputs.feature_map * jnp.inf),
        "a feature map not finite",
    ),
    "logits not finite": (
        lambda outputs: outputs._replace(logits=outputs.logits * jnp.nan),
        "logits that are not finite",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_outputs_that_do_not_belong_together(change, message):
    with pytest.raises(jaxood.UsageError, match=message) as caught:
        jaxood.check_model(Changed(change), SMALL)
    assert caught.value.argument == "model" and "\n" not in str(caught.value)
    with pytest.raises(jaxood.UsageError, match=message):
        jaxood.load_model(Changed(change))


def test_pooled_features_that_are_not_finite():
    class Infinite(TwoCells):
        def pool(self, feature_map):
            return feature_map.mean(axis=(1, 2)) / 0.0

    with pytest.raises(jaxood.UsageError, match="features that are not finite"):
        jaxood.check_model(Infinite(), SMALL)


@pytest.mark.parametrize("head", [None, "linear", nnx.Linear, jnp.ones((3, 2))])
def test_heads_that_are_none(head):
    class Headless(TwoCells):
        head = None

    Headless.head = head
    with pytest.raises(jaxood.UsageError, match=r"Headless, head .*, wanted a flax\.nnx\.Module"):
        jaxood.check_model(Headless(), SMALL)


def test_what_is_no_model():
    class NeverCalled(nnx.Module):
        head = jaxood.LinearHead(jnp.ones((3, 2)), jnp.zeros(2))

    for wrong in (NeverCalled(), jnp.ones(3), lambda images: images):
        with pytest.raises(jaxood.UsageError, match=r"wanted a flax\.nnx\.Module with __call__"):
            jaxood.check_model(wrong, SMALL)


def test_preprocessing_and_class_names_are_read_off_the_model():
    model = TwoCells()
    assert own_model(model, "two").preprocessing == SMALL
    assert own_model(model, "two").class_names == ("class 0", "class 1")
    model.class_names = ("cat", "dog")
    assert own_model(model, "two").class_names == ("cat", "dog")
    assert own_model(model, "two", ("a", "b")).class_names == ("a", "b")
    with pytest.raises(jaxood.UsageError, match="classes: got 3 names, wanted 2, one a class"):
        own_model(model, "two", ("a", "b", "c"))
    model.preprocessing = (256, 224)
    with pytest.raises(jaxood.UsageError, match="preprocessing: .*, wanted a jaxood.Preprocessing"):
        own_model(model, "two")


def test_weights_of_a_users_model_are_part_of_its_identity():
    one, same, other = TwoCells(), TwoCells(), TwoCells()
    other.kernel[...] = other.kernel[...].at[0, 0].add(1e-3)
    hashes = [own_model(model, "two").weights_hash for model in (one, same, other)]
    assert hashes[0] == hashes[1] != hashes[2] and len(hashes[0]) == 64
