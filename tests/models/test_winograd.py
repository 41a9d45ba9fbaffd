"""Winograd's convolutions against torch's in float64, and where `convolve` takes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxood.models.layers import convolve
from jaxood.models.winograd import winograd, winograd_taps

pytestmark = pytest.mark.optimised

torch = pytest.importorskip("torch")

# rows, columns, zeros before and after them
CASES = {
    "even": (8, 6, ((1, 1), (1, 1))),
    "odd": (7, 9, ((1, 1), (1, 1))),
    "one output": (3, 3, ((0, 0), (0, 0))),
    "one position": (1, 1, ((1, 1), (1, 1))),
    "uneven zeros": (5, 8, ((0, 1), (2, 0))),
    "more zeros than taps": (4, 5, ((3, 3), (3, 4))),
}


def drawn(height, width, inputs=5, outputs=6, n=2):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, height, width, inputs), np.float32)
    return x, rng.standard_normal((3, 3, inputs, outputs), np.float32)


def torchs(x, kernel, pads):
    """The convolution in float64, and the gradients of the sum of its squares."""
    x, kernel = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, kernel))
    around = (*pads[1], *pads[0])
    padded = torch.nn.functional.pad(x.permute(0, 3, 1, 2), around)
    y = torch.nn.functional.conv2d(padded, kernel.permute(3, 2, 0, 1)).permute(0, 2, 3, 1)
    (y**2).sum().backward()
    return y.detach().numpy(), x.grad.numpy(), kernel.grad.numpy()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients_are_torchs(case):
    height, width, pads = case
    x, kernel = drawn(height, width)
    wanted = torchs(x, kernel, pads)

    def loss(x, kernel):
        y = winograd(x, winograd_taps(kernel), pads)
        return jnp.sum(y**2), y

    gradients, y = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(x, kernel)
    for found, expected in zip((y, *gradients), wanted, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6 * np.abs(expected).max())


def test_errors_are_those_of_a_direct_convolution():
    x, kernel = drawn(14, 14, 64, 64)
    wanted = torchs(x, kernel, ((1, 1), (1, 1)))[0]
    direct = torch.nn.functional.conv2d(
        torch.from_numpy(x).permute(0, 3, 1, 2),
        torch.from_numpy(kernel).permute(3, 2, 0, 1),
        padding=1,
    ).permute(0, 2, 3, 1)
    found = jax.jit(winograd, static_argnums=2)(x, winograd_taps(kernel), ((1, 1), (1, 1)))
    ours, theirs = (np.sqrt(np.mean((np.asarray(y) - wanted) ** 2)) for y in (found, direct))
    assert ours < 2 * theirs


def test_an_image_does_not_see_the_others():
    x, kernel = drawn(7, 8, n=3)
    alike = x.copy()
    alike[[0, 2]] = np.nan
    taps = winograd_taps(kernel)
    first, second = (winograd(a, taps, ((1, 1), (1, 1)))[1] for a in (x, alike))
    np.testing.assert_array_equal(first, second)


@pytest.mark.cpu
@pytest.mark.parametrize(
    ("side", "channels", "stride", "dtype", "direct"),
    [
        (14, 48, 1, "float32", False),
        (14, 47, 1, "float32", True),
        (14, 64, 2, "float32", True),
        (14, 64, 1, "bfloat16", True),
        (7, 98, 1, "float32", False),
        (7, 99, 1, "float32", True),
    ],
)
def test_where_a_cpu_convolves_directly(side, channels, stride, dtype, direct):
    x = jnp.zeros((1, side, side, channels), dtype)
    kernel = jnp.zeros((3, 3, channels, channels), dtype)
    lowered = jax.jit(lambda *a: convolve(*a, stride, 1, 1)).lower(x, kernel)
    assert ("stablehlo.convolution" in lowered.as_text()) == direct
