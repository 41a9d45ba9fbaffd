"""The convolutional networks against torch: each layer, and each whole network at three depths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from references import import_timm, import_torchvision
from torch_networks import noise, randomise
from untrained import drawn_network

from jaxood.compiling import compiler_options, computed_once
from jaxood.conversion.convert import convert_state_dict
from jaxood.conversion.parity import errors, run, torch_outputs
from jaxood.models.layers import (
    Conv,
    MaxPool,
    SqueezeExcite,
    convolve,
    laid_out,
    relu,
    with_kernels_laid_out,
    with_shortcut,
)
from jaxood.models.loading import abstract_model, fill, parameters

pytestmark = pytest.mark.optimised

torch = pytest.importorskip("torch")

# channels in, channels out, kernel, stride, padding, groups
CASES = {
    "stem": (3, 8, 7, 2, 3, 1),
    "dense": (6, 8, 3, 1, 1, 1),
    "dense, of many channels": (64, 72, 3, 1, 1, 1),
    "odd channels to few": (3, 8, 3, 1, 1, 1),
    "odd channels to few, strided": (3, 8, 3, 2, 1, 1),
    "stem of 32 channels": (3, 32, 3, 2, 1, 1),
    "patches of two": (6, 8, 2, 2, 0, 1),
    "large stride": (6, 8, 5, 3, 1, 1),
    "stride beyond the taps": (6, 8, 2, 3, 2, 1),
    "pointwise": (6, 8, 1, 1, 0, 1),
    "pointwise strided": (6, 8, 1, 2, 0, 1),
    "pointwise, some outputs short of whole vectors": (6, 120, 1, 1, 0, 1),
    "pointwise strided, some outputs short": (6, 144, 1, 2, 0, 1),
    "depthwise": (6, 6, 3, 1, 1, 6),
    "depthwise strided": (6, 6, 5, 2, 2, 6),
    "depthwise, two blocks of channels": (192, 192, 7, 1, 3, 192),
    "depthwise strided, two blocks of channels": (416, 416, 5, 2, 2, 416),
    "depthwise, no blocks of whole vectors": (400, 400, 5, 1, 2, 400),
    "grouped": (6, 12, 3, 1, 1, 3),
    "grouped strided": (6, 6, 3, 2, 1, 3),
    "two narrow groups at once, one left": (40, 20, 3, 1, 1, 5),
    "wide groups": (80, 40, 3, 2, 1, 2),
    "groups of many channels": (128, 136, 3, 1, 1, 2),
    "two outputs a channel": (6, 12, 3, 2, 1, 6),
}


def drawn(case, n=2, height=9, width=12):
    inputs, outputs, size, _, _, groups = case
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, height, width, inputs), np.float32)
    kernel = rng.standard_normal((size, size, inputs // groups, outputs), np.float32)
    return x, kernel


def reference(x, kernel, stride, padding, groups):
    """By torch, in float64."""
    x, kernel = (torch.from_numpy(np.asarray(a, np.float64)) for a in (x, kernel))
    y = torch.nn.functional.conv2d(
        x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), None, stride, padding, groups=groups
    )
    return y.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_convolution_is_torchs_under_jit_and_vmap_and_in_bfloat16(case):
    x, kernel = drawn(case)
    stride, padding, groups = case[3:]
    wanted = reference(x, kernel, stride, padding, groups)

    def call(x, kernel, laid=()):
        return convolve(x, kernel, stride, padding, groups, laid=laid)

    tolerance = {"rtol": 1e-5, "atol": 1e-5 * np.abs(wanted).max()}
    np.testing.assert_allclose(jax.jit(call)(x, kernel), wanted, **tolerance)
    laid = laid_out(kernel, stride, groups)
    np.testing.assert_allclose(jax.jit(call)(x, kernel, laid), wanted, **tolerance)
    alone = jax.vmap(call, (0, None))(x[:, None], jnp.asarray(kernel))
    np.testing.assert_allclose(alone[:, 0], wanted, **tolerance)
    half = jax.jit(call)(jnp.asarray(x, jnp.bfloat16), jnp.asarray(kernel, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert np.abs(half.astype(jnp.float32) - wanted).max() < 0.02 * np.abs(wanted).max()


@pytest.mark.parametrize(("height", "channels"), [(1, 6), (7, 6), (8, 6), (9, 6), (7, 416)])
def test_convolution_before_a_norm_is_torchs_and_so_are_its_gradients(height, channels):
    """In bands of rows: seven of one, two of four, three of three; in two blocks of channels."""
    x, kernel = drawn((channels, channels, 5, 1, 2, channels), height=height)
    wanted = reference(x, kernel, 1, 2, channels)

    def call(x, kernel):
        return convolve(x, kernel, 1, 2, channels, normed=True)

    tolerance = {"rtol": 1e-5, "atol": 1e-5 * np.abs(wanted).max()}
    np.testing.assert_allclose(jax.jit(call)(x, kernel), wanted, **tolerance)
    half = jax.jit(call)(jnp.asarray(x, jnp.bfloat16), jnp.asarray(kernel, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    tensors = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, kernel)]
    moved = tensors[0].permute(0, 3, 1, 2), tensors[1].permute(3, 2, 0, 1)
    (torch.nn.functional.conv2d(*moved, None, 1, 2, groups=channels) ** 2).sum().backward()
    found = jax.jit(jax.grad(lambda *a: jnp.sum(call(*a) ** 2), (0, 1)))(x, kernel)
    for ours, theirs in zip(found, tensors, strict=True):
        expected = theirs.grad.numpy()
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradients_of_a_convolution_are_torchs(case):
    x, kernel = drawn(case)
    stride, padding, groups = case[3:]
    tensors = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, kernel)]
    y = torch.nn.functional.conv2d(
        tensors[0].permute(0, 3, 1, 2),
        tensors[1].permute(3, 2, 0, 1),
        None,
        stride,
        padding,
        groups=groups,
    )
    (y**2).sum().backward()

    def loss(x, kernel, laid=()):
        return jnp.sum(convolve(x, kernel, stride, padding, groups, laid=laid) ** 2)

    laid = [jnp.asarray(block) for block in laid_out(kernel, stride, groups)]
    found = *jax.grad(loss, (0, 1))(x, kernel), jax.grad(loss)(x, jnp.asarray(kernel), laid)
    for ours, tensor in zip(found, (*tensors, tensors[0]), strict=True):
        wanted = tensor.grad.numpy()
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.cpu
def test_a_depthwise_kernel_larger_than_the_first_cache_is_taken_in_blocks():
    """Two of 208 channels: no loop multiplies all 416."""

    def loops(channels):
        x, kernel = drawn((channels, channels, 5, 1, 2, channels))
        lowered = jax.jit(lambda *a: convolve(*a, 1, 2, channels)).lower(x, kernel)
        return lowered.compile().as_text().count("concatenate(")

    assert (loops(192), loops(416)) == (0, 1)


@pytest.mark.parametrize(("size", "side", "stride"), [(3, 8, 2), (3, 9, 2), (5, 8, 2), (5, 7, 1)])
def test_same_padding_puts_the_odd_zero_behind(size, side, stride):
    x, kernel = drawn((4, 4, size, stride, None, 4), height=side, width=side)
    total = max((-(-side // stride) - 1) * stride + size - side, 0)
    before, behind = total // 2, total - total // 2
    padded = np.pad(x, ((0, 0), (before, behind), (before, behind), (0, 0)))
    wanted = reference(padded, kernel, stride, 0, 4)
    found = convolve(jnp.asarray(x), jnp.asarray(kernel), stride, "SAME", 4)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_max_pool_ignores_what_lies_outside():
    x = -np.abs(noise(2, 9)) - 1
    wanted = torch.nn.functional.max_pool2d(torch.from_numpy(x).permute(0, 3, 1, 2), 3, 2, 1)
    np.testing.assert_array_equal(
        MaxPool(3, 2, 1)(jnp.asarray(x)), wanted.permute(0, 2, 3, 1).numpy()
    )


def test_gradient_of_a_max_pool_goes_to_the_first_of_equals_as_in_torch():
    x = np.random.default_rng(0).integers(0, 3, (2, 9, 8, 4)).astype(np.float32)
    tensor = torch.tensor(x, requires_grad=True)
    slope = noise(2, 5)[:, :, :4, [0, 1, 2, 0]]
    pooled = torch.nn.functional.max_pool2d(tensor.permute(0, 3, 1, 2), 3, 2, 1)
    pooled.backward(torch.from_numpy(slope).permute(0, 3, 1, 2))
    _, backward = jax.vjp(MaxPool(3, 2, 1), jnp.asarray(x))
    np.testing.assert_allclose(*backward(jnp.asarray(slope)), tensor.grad, rtol=1e-6)


@pytest.mark.cpu
def test_a_chain_of_blocks_adds_each_branch_once():
    """XLA would add all that came before it anew in each block."""

    def chain(x, kernels):
        for kernel in kernels:
            x = with_shortcut(convolve(x, kernel, 1, 0, 1), x, relu)
        return x

    x, kernels = jnp.ones((2, 4, 4, 8)), jnp.ones((6, 1, 1, 8, 8))
    program = jax.jit(chain, compiler_options=compiler_options()).lower(x, kernels).compile()
    wanted = chain(x, kernels)
    assert program.as_text().count(" maximum(") == len(kernels)
    np.testing.assert_allclose(program(x, kernels), wanted, rtol=1e-6)


def test_what_is_computed_once_keeps_its_values_and_slopes():
    x = jnp.asarray([-1.0, 0.0, jnp.inf, -jnp.inf, jnp.nan, 2.0])
    np.testing.assert_array_equal(computed_once(x), x)
    np.testing.assert_array_equal(
        jax.grad(lambda x: jnp.sum(computed_once(x) * x))(x[:2]), 2 * x[:2]
    )


def test_a_network_with_kernels_laid_out_gives_the_same_and_leaves_the_other_alone():
    model = drawn_network("regnet_y_400mf").module
    images = noise(2, 64)
    laid = with_kernels_laid_out(model, "cpu")
    assert with_kernels_laid_out(model, "tpu") is model
    assert parameters(laid).keys() == parameters(model).keys()
    before, after = (
        {len(part.laid) for _, part in nnx.iter_modules(module) if isinstance(part, Conv)}
        for module in (model, laid)
    )
    assert before == {0} and after == {0, 1, 2, 4, 7, 14}  # of 48, 104, 208, 440 channels by 32
    for ours, expected in zip(run(laid, images)[:4], run(model, images)[:4], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("outputs", "columns"), [(24, 24), (104, 104), (120, 128), (128, 128), (144, 160), (888, 896)]
)
def test_a_pointwise_kernel_has_whole_vectors_where_that_adds_an_eighth_at_most(outputs, columns):
    kernel = np.random.default_rng(0).standard_normal((1, 1, 2, outputs), np.float32)
    (block,) = laid_out(kernel, 1, 1) or [kernel]
    assert block.shape[-1] == columns
    np.testing.assert_array_equal(block[..., :outputs], kernel)
    assert not block[..., outputs:].any()


def test_squeeze_excite_by_hand():
    block = SqueezeExcite(2, 1)
    block.fc1.kernel[...] = jnp.asarray([[[[1.0], [-1.0]]]])
    block.fc2.kernel[...] = jnp.asarray([[[[1.0, 2.0]]]])
    x = jnp.broadcast_to(jnp.asarray([3.0, 1.0]), (1, 4, 4, 2))
    gate = 1 / (1 + np.exp([-2.0, -4.0]))  # the hidden unit is relu(3 - 1)
    np.testing.assert_allclose(block(x), np.broadcast_to([3.0, 1.0] * gate, (1, 4, 4, 2)), 1e-6)


def test_activation_comes_after_the_bias():
    layer = Conv(1, 1, activation=jax.nn.relu)
    layer.kernel[...], layer.bias[...] = jnp.ones((1, 1, 1, 1)), jnp.full(1, -2.0)
    np.testing.assert_array_equal(
        layer(jnp.asarray([1.0, 5.0]).reshape(2, 1, 1, 1)).ravel(), [0, 3]
    )


def torchvision_model(name):
    return import_torchvision("torchvision.models").get_model(name, num_classes=7)


def timm_lite0(name):
    return import_timm().create_model("tf_efficientnet_lite0", num_classes=7)


NETWORKS = {
    "resnet18": (torchvision_model, "layer4", "torchvision"),
    "mobilenet_v2": (torchvision_model, "features", "torchvision"),
    "efficientnet_lite0": (timm_lite0, "bn2", "timm"),
}
LONG = ["resnet34", "resnet50", "resnet101"]
LONG += [f"regnet_y_{size}" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf")]
NETWORKS |= {
    name: (torchvision_model, "layer4" if "resnet" in name else "trunk_output", "torchvision")
    for name in LONG
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.long] if n in LONG else []) for n in NETWORKS]
)
def test_networks_are_the_publishers_at_three_depths(name):
    build, features, layout = NETWORKS[name]
    side = 224 if name in LONG else 96
    network = randomise(build(name), side)
    weights = convert_state_dict(network.state_dict(), name, layout)
    model = fill(abstract_model(name, 7), lambda path: jnp.asarray(weights[path]))
    images = noise(2, side)
    ours, theirs = run(model, images), torch_outputs(network, features, images)
    assert ours.feature_map.shape == theirs.feature_map.shape
    assert max(errors(ours, theirs).values()) < 1e-4
    assert len({str(path) for path, _ in nnx.to_flat_state(nnx.state(model))}) == len(weights)
