"""Fits that cannot be right: fewer training images than a covariance has channels; and ODIN's step
in bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxood.context import Context
from jaxood.detectors.fitted import detector
from jaxood.detectors.odin import NudgedFeatures
from jaxood.errors import UsageError
from jaxood.heads import LinearHead
from jaxood.outputs import model_outputs

RNG = np.random.default_rng(0)
HEAD = LinearHead(jnp.asarray(RNG.normal(size=(32, 4)), jnp.float32), jnp.zeros(4))


def rows(count):
    return RNG.normal(size=(count, 32)), np.arange(count) % 4


@pytest.mark.parametrize("name", ["vim", "residual", "vim-nnguide"])
def test_residual_space_of_fewer_rows_than_channels_is_refused(name):
    features, _ = rows(31)
    line = f"method {name}: got 31 training images of 32 channels, wanted at least 32 training"
    with pytest.raises(UsageError, match=line):
        detector(name).fit(features, head=HEAD)
    assert np.isfinite(detector(name).fit(rows(32)[0], head=HEAD).score(features)).all()


@pytest.mark.parametrize("name", ["vim", "residual", "vim-nnguide"])
def test_features_without_a_residual_are_refused(name):
    """They fill fewer directions than the principal space has: scores of -1e15 before."""
    flat = RNG.normal(size=(100, 8)) @ RNG.normal(size=(8, 32))
    line = f"method {name}: got training features with a residual of .* A smaller {name}.dim may do"
    with pytest.raises(UsageError, match=line):
        detector(name).fit(flat, head=HEAD)
    scores = detector(name, dim=4).fit(flat, head=HEAD).score(flat)
    assert np.abs(scores).max() < 1e3


def test_relative_distance_wants_more_rows_than_channels():
    line = "method rmds: got 32 training images of 32 channels, wanted more than 32 training images"
    with pytest.raises(UsageError, match=line):
        detector("rmds").fit(*rows(32))
    detector("rmds").fit(*rows(33))


@pytest.mark.parametrize("name", ["mahalanobis", "mahalanobis-nnguide", "ssd", "gmm"])
def test_covariance_of_few_rows_is_said_aloud(name, caplog):
    detector(name).fit(*rows(33))
    assert not caplog.records
    detector(name).fit(*rows(32))
    (record,) = caplog.records
    line = f"method {name}: a covariance of 32 channels from 32 training images; better more"
    assert record.levelname == "WARNING" and record.getMessage() == line


class Channels(nnx.Module):
    """The mean colour and the head, in the type of its images."""

    def __init__(self, dtype):
        self.kernel = nnx.Param(jnp.asarray(np.diag([1.0, -2.0, 4.0]), dtype))

    @property
    def head(self):
        return LinearHead(jnp.eye(3), jnp.zeros(3))

    def __call__(self, images):
        assert images.dtype == self.kernel[...].dtype
        features = jnp.einsum("nhwc,cd->nhwd", images, self.kernel[...], precision="highest")
        features = features.astype(jnp.float32)
        return model_outputs(self.head, features.mean(axis=(1, 2)), features)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_odins_step_is_not_lost_in_bfloat16(dtype):
    """Pixels of 2.5 lie 0.016 apart in bfloat16; the step is 0.0057."""
    images = jnp.full((2, 4, 4, 3), 2.5, dtype)
    model = Channels(dtype)
    outputs = model(images)
    context = Context(images, outputs, model, jnp.argmax(outputs.logits, axis=1), jax.random.key(0))
    moved = np.asarray(NudgedFeatures()(context) - outputs.pooled)
    # The top class is the third: its logit rises with blue, the others' with red and less green.
    step = 0.0014 / (np.asarray([63.0, 62.1, 66.7]) / 255)
    expected = step * [-1, -2, 4]
    np.testing.assert_allclose(moved, np.broadcast_to(expected, (2, 3)), rtol=1e-2)
