"""Enlarging against torch, contrast against its formula."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxood.attribution.heatmap import heatmap, paper_scale, pixel_heatmap, unit_scale, upsample

torch = pytest.importorskip("torch")
MAPS = np.random.default_rng(0).normal(size=(3, 7, 5)).astype(np.float32)


@pytest.mark.parametrize("size", [(224, 224), (7, 5), (13, 6), (1, 1)])
@pytest.mark.parametrize("kernel", ["bicubic", "bilinear"])
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (2, 3)])
def test_upsample_equals_torch(size, kernel, align_corners, shape):
    maps = MAPS[:, : shape[0], : shape[1]]
    reference = torch.nn.functional.interpolate(
        torch.from_numpy(maps.copy())[:, None], size, mode=kernel, align_corners=align_corners
    )[:, 0]
    ours = upsample(jnp.asarray(maps), size, kernel, align_corners)
    np.testing.assert_allclose(ours, reference, atol=1e-5)


def test_paper_scale():
    z = (MAPS - MAPS.mean((1, 2), keepdims=True)) / MAPS.std((1, 2), keepdims=True, ddof=1)
    np.testing.assert_allclose(paper_scale(jnp.asarray(MAPS)), 2 ** (z / 2), rtol=1e-5)
    np.testing.assert_array_equal(paper_scale(jnp.full((1, 3, 3), 7.0)), 1)


def test_unit_scale():
    maps = np.asarray(unit_scale(jnp.asarray(MAPS)))
    np.testing.assert_array_equal(maps.min((1, 2)), 0)
    np.testing.assert_allclose(maps.max((1, 2)), 1)
    np.testing.assert_allclose(maps[0], (MAPS[0] - MAPS[0].min()) / np.ptp(MAPS[0]), atol=1e-6)
    np.testing.assert_array_equal(unit_scale(jnp.full((1, 3, 3), 7.0)), 0)


def test_heatmap_keeps_the_peak_where_it_is():
    maps = np.zeros((1, 7, 7), np.float32)
    maps[0, 5, 1] = 1
    for scale in ("paper", "unit"):
        heat = np.asarray(heatmap(jnp.asarray(maps), (224, 224), scale))[0]
        assert heat.min() == 0 and heat.max() == 1
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        assert abs(row - 5 * 223 / 6) <= 1 and abs(column - 223 / 6) <= 1


def test_pixel_heatmap_cuts_the_outer_hundredths():
    maps = np.random.default_rng(2).permutation(1000).reshape(1, 20, 50).astype(np.float32)
    maps[maps == 999], maps[maps == 0] = 1e6, -1e6
    heat = np.asarray(pixel_heatmap(jnp.asarray(maps)))
    assert (heat == 1).sum() == (heat == 0).sum() == 10
    expected = (np.clip(maps, 9.99, 989.01) - 9.99) / 979.02
    np.testing.assert_allclose(heat, expected, atol=1e-5)
