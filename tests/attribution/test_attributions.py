"""Names, objects and import paths that stand for attributions, and what each needs of a step."""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contexts import KEY, MapModel, context_of, context_of_map
from flax import nnx

from jaxood.attribution.coalitions import Banzhaf, Shapley, position_values
from jaxood.attribution.gradient_cam import GradCAM
from jaxood.attribution.registry import ATTRIBUTIONS, attribution, attributions
from jaxood.attribution.score_cam import ScoreCAM
from jaxood.attribution.surrogate import SurrogateValue
from jaxood.context import Attribution
from jaxood.errors import UsageError
from jaxood.heads import LinearHead, NormLinearHead
from jaxood.models.backbone import Backbone, LinearClassifier


@dataclass(frozen=True)
class Mine(Attribution):
    """A user's attribution."""

    channel: int = 0

    def __call__(self, context):
        return context.feature_map[..., self.channel]


def test_what_may_stand_for_an_attribution():
    assert attribution("score-cam") == ScoreCAM()
    assert attribution("score-cam[chunk=4,layer=a]") == ScoreCAM("a", 4)
    assert attribution("score-cam[layer=none]", chunk=5) == ScoreCAM(chunk=5)
    assert attribution(ScoreCAM, chunk="5") == ScoreCAM(chunk=5)
    assert attribution(ScoreCAM(chunk=5)) == ScoreCAM(chunk=5)
    assert attribution(ScoreCAM(chunk=5), layer="a") == ScoreCAM("a", 5)
    assert attribution("banzhaf[coalitions=auto]") == Banzhaf("auto")
    for mine in (Mine(2), f"{__name__}:Mine[channel=2]"):
        assert attribution(mine).channel == 2
        assert attribution(mine).key == f"{__name__}:Mine[channel=2]"


def test_common_parameters_go_where_they_belong():
    made = attributions(["banzhaf", "grad-cam", ScoreCAM(chunk=2), "sobel"], layer="a", chunk=None)
    assert list(made) == ["banzhaf", "grad-cam[layer=a]", "score-cam[layer=a,chunk=2]", "sobel"]
    assert made["grad-cam[layer=a]"] == GradCAM("a")
    both = attributions(["banzhaf", "shapley"], coalitions=60, explain="energy")
    assert list(both.values()) == [Banzhaf(60, "energy"), Shapley(60, "energy")]


def test_what_is_refused():
    with pytest.raises(UsageError, match="method: got 'gradcam'.*Did you mean grad-cam"):
        attributions(["gradcam"])
    with pytest.raises(UsageError, match="^layer: got '1', wanted a method that has it.*sobel, ba"):
        attributions(["sobel", "banzhaf"], layer="1")
    with pytest.raises(UsageError, match="sobel.layer: got a value, wanted none"):
        attribution("sobel[layer=1]")
    with pytest.raises(UsageError, match="score-cam.chunk: got 'x', wanted a whole number"):
        attribution("score-cam[chunk=x]")
    with pytest.raises(UsageError, match="method: got 3, wanted a name, an import path or"):
        attribution(3)
    with pytest.raises(UsageError, match="method: got .*wanted a class that is a jaxood.Attrib"):
        attribution("numpy:ndarray")
    with pytest.raises(UsageError, match="banzhaf.coalitions: got 1, wanted 2 to 65536, or auto"):
        attribution("banzhaf[coalitions=1]")


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_every_name_is_a_class_with_defaults(name):
    kind = ATTRIBUTIONS[name]
    made = kind()
    assert kind.name == made.key == name
    assert made.version >= 1 and kind.__doc__
    assert hash(made) == hash(kind()) and made == kind()
    assert ("layer" in {field.name for field in dataclasses.fields(kind)}) == kind.needs_layer
    parents = [base for base in kind.__mro__[1:] if base in ATTRIBUTIONS.values()]
    assert not parents  # no class derives from another that may be used


class Counted(nnx.Module):
    """A stage that counts how many times it is traced, and over how many images."""

    def __init__(self, channels_in, channels_out):
        kernel = jax.random.normal(jax.random.key(channels_in), (channels_in, channels_out))
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(0.1 * kernel[0])
        self.traced = nnx.static([])

    def __call__(self, x):
        self.traced.append(len(x))
        return jax.nn.relu(jnp.matmul(x, self.kernel[...]) + self.bias[...][None, None, None])


def counted_model():
    classifier = LinearClassifier(12, 5)
    classifier.kernel[...] = 0.1 * jax.random.normal(jax.random.key(1), (12, 5))
    return Backbone({"stem": Counted(3, 8), "last": Counted(8, 12)}, classifier)


IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6, 6, 3)).astype(np.float32))
TARGET = jnp.array([1, 4, 3])
CHEAP = ("banzhaf", "shapley", "eigencam", "randomcam", "sobel")


def traced(methods):
    """How many times the stages are traced for a step of some attributions."""
    model = counted_model()
    made = list(attributions(methods).values())

    def step(images):
        context = context_of(model, images, TARGET, extractors=made)
        return [method(context) for method in made]

    jax.eval_shape(step, IMAGES)
    return [len(model.stages[name].traced) for name in ("stem", "last")]


def test_maps_without_a_gradient_cost_one_forward_pass():
    assert traced(CHEAP) == [1, 1]
    # Gradient maps run what lies after the layer, which here is the head alone.
    assert traced([*CHEAP, "grad-cam", "layercam", "xgrad-cam", "dff"]) == [1, 1]
    assert traced([*CHEAP, "grad-cam[layer=stem]"]) == [1, 2]


@pytest.mark.long
@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_random_attributions_say_so(name):
    if name == "pie":
        pytest.skip("its training is tested in test_surrogate")
    model = counted_model()
    method = attribution(name)
    if method.needs_layer:  # the last one's gradient is that of the head, whatever the image
        method = attribution(name, layer="stem")
    maps = [
        np.asarray(method(context_of(model, IMAGES, TARGET, key))) for key in jax.random.split(KEY)
    ]
    tolerance = 1e-6 * np.abs(maps[0]).max()
    assert (np.abs(maps[0] - maps[1]).max() > tolerance) == method.random


def test_a_layer_that_the_step_did_not_keep_is_computed():
    model = counted_model()
    method = attribution("grad-cam[layer=stem]")
    bare = context_of(model, IMAGES, TARGET)
    kept = context_of(model, IMAGES, TARGET, extractors=[method])
    assert not bare.layers and list(kept.layers) == ["stem"]
    np.testing.assert_allclose(method(bare), method(kept), rtol=1e-5)


@dataclass(frozen=True)
class CosineHead:
    """A head that is neither linear nor normed and linear."""

    kernel: jax.Array
    bias: jax.Array

    def penultimate(self, pooled):
        return pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True)

    def classify(self, penultimate):
        return jnp.matmul(penultimate, self.kernel)

    def __call__(self, pooled):
        return self.classify(self.penultimate(pooled))


class ScaledHead(LinearHead):
    """Looks like a linear head, and computes something else."""

    def __call__(self, pooled):
        return 2 * super().__call__(pooled)


@pytest.mark.parametrize("kind", [CosineHead, ScaledHead])
@pytest.mark.parametrize(
    "name", ["banzhaf", "shapley", pytest.param("pie", marks=pytest.mark.long)]
)
def test_a_head_whose_exact_form_is_not_known_is_refused(name, kind):
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.random((2, 3, 3, 8), np.float32))
    head = kind(jnp.asarray(rng.random((8, 4), np.float32)), jnp.zeros(4))
    given = context_of_map(features, head)
    match = f"head: got {kind.__name__}, wanted LinearHead or NormLinearHead"
    with pytest.raises(UsageError, match=match):
        attribution(name)(given)
    assert attribution("grad-cam")(given).shape == (2, 3, 3)


@pytest.mark.parametrize("name", ["banzhaf", "shapley", "pie"])
def test_a_model_that_does_not_pool_by_the_mean_is_refused(name):
    head = NormLinearHead(jnp.ones(8), jnp.zeros(8), jnp.ones((8, 4)), jnp.zeros(4))
    for pooling in ("class token", "other"):
        given = context_of_map(jnp.ones((2, 3, 3, 8)), head, pooling=pooling)
        with pytest.raises(UsageError, match=f"method {name}: got a model"):
            attribution(name)(given)


@pytest.mark.parametrize("value", ["banzhaf", "shapley"])
def test_coalition_values_are_those_of_the_target_with_the_runs_key(value):
    rng = np.random.default_rng(0)
    head = LinearHead(jnp.asarray(rng.normal(size=(8, 4)).astype(np.float32)), jnp.zeros(4))
    given = context_of_map(jnp.asarray(rng.random((2, 3, 3, 8), np.float32)), head)
    other = dataclasses.replace(given, target=jnp.array([3, 1]))
    expected = position_values(given.feature_map, head, KEY, value, 20, jnp.array([3, 1])).values
    np.testing.assert_array_equal(attribution(value, coalitions=20)(other), expected)


def test_noisy_images_go_through_a_model_without_stages_again():
    """The gradient through a norm depends on the image; a linear head's would not."""
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=(3, 4)).astype(np.float32))
    model = MapModel(NormLinearHead(jnp.ones(3), jnp.zeros(3), kernel, jnp.zeros(4)))
    given = context_of(model, IMAGES, jnp.array([1, 2, 3]))
    still = attribution("smoothgrad-cam++", noise=0.0)(given)
    np.testing.assert_allclose(still, attribution("grad-cam++")(given), rtol=1e-4, atol=1e-6)
    assert jnp.abs(attribution("smoothgrad-cam++")(given) - still).max() > 1e-2 * still.max()


def test_energy_asks_for_no_target():
    rng = np.random.default_rng(0)
    head = LinearHead(jnp.asarray(rng.normal(size=(8, 4)).astype(np.float32)), jnp.zeros(4))
    given = context_of_map(jnp.asarray(rng.random((2, 3, 3, 8), np.float32)), head)
    other = dataclasses.replace(given, target=(given.target + 1) % 4)
    energy, probability = Banzhaf(explain="energy"), Banzhaf()
    np.testing.assert_allclose(energy(given), energy(other), rtol=1e-4)
    assert jnp.abs(probability(given) - probability(other)).max() > 1e-3


def test_settings_of_a_surrogate_are_an_object():
    with pytest.raises(UsageError, match="pie.training: got 'long', wanted an object"):
        attribution("pie[training=long]")
    assert attribution("pie") == SurrogateValue()
