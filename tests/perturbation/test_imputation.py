"""Imputation against a sparse direct solve in float64, and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, sparse
from scipy.sparse.linalg import splu

from jaxood.errors import UsageError
from jaxood.perturbation import multigrid
from jaxood.perturbation.imputation import IMPUTATIONS, add_noise, draw_noise, impute, impute_linear

pytestmark = pytest.mark.optimised

NEIGHBOURS = [
    (row, column, 1 / 6 if row == 0 or column == 0 else 1 / 12)
    for row in (-1, 0, 1)
    for column in (-1, 0, 1)
    if (row, column) != (0, 0)
]


def direct(image, removed):
    """The system as equations of each pixel, solved by SciPy's sparse LU."""
    height, width, channels = image.shape
    number = np.full((height, width), -1)
    number[removed] = np.arange(removed.sum())
    b = np.zeros((removed.sum(), channels))
    diagonal = np.zeros(removed.sum())
    rows, columns, values = [], [], []
    for y, x in np.argwhere(removed):
        for down, right, weight in NEIGHBOURS:
            i, j = y + down, x + right
            if not (0 <= i < height and 0 <= j < width):
                continue
            diagonal[number[y, x]] += weight
            if removed[i, j]:
                rows.append(number[y, x])
                columns.append(number[i, j])
                values.append(-weight)
            else:
                b[number[y, x]] += weight * image[i, j]
    off = sparse.csc_matrix((values, (rows, columns)), shape=2 * (len(b),))
    filled = image.astype(np.float64)
    filled[removed] = splu((sparse.diags(diagonal, format="csc") + off).tocsc()).solve(b)
    return filled


def photograph(height, width):
    from sklearn.datasets import load_sample_image

    image = load_sample_image("china.jpg")[60 : 60 + height, 100 : 100 + width]
    return (image / np.float32(255) - np.float32(0.45)) / np.float32(0.225)


def lowest(values, share):
    """Exactly that share of the pixels, at least one, at most all but one."""
    count = min(max(round(share * values.size), 1), values.size - 1)
    removed = np.zeros(values.size, bool)
    removed[np.argsort(values.ravel(), kind="stable")[:count]] = True
    return removed.reshape(values.shape)


def masks(height, width, seed=0):
    """Structured and random, 2 % to 98 %, borders and corners, one and all but one."""
    rng = np.random.default_rng(seed)
    noise = rng.random((height, width))
    smooth = ndimage.gaussian_filter(rng.random((height, width)), min(height, width) / 8)
    found = {f"random {share}": lowest(noise, share) for share in (0.02, 0.3, 0.6, 0.9, 0.98)}
    found |= {f"smooth {share}": lowest(smooth, share) for share in (0.02, 0.5, 0.98)}

    def mask(fill, *others):
        array = np.full((height, width), fill)
        for other in others:
            array[other] = not fill
        return array

    ends = slice(0, None, max(width - 1, 1))
    return found | {
        "left column kept": mask(True, np.s_[:, 0]),
        "border removed": mask(True, np.s_[1:-1, 1:-1]),
        "corners removed": mask(False, np.s_[:: max(height - 1, 1), ends]),
        "every second column": mask(False, np.s_[:, ::2]),
        "chequers": np.indices((height, width)).sum(axis=0) % 2 == 0,
        "walls": mask(True, np.s_[height // 2, :], np.s_[:, width // 2]),
        "one": mask(False, np.s_[height // 2, width // 3]),
        "one corner": mask(False, np.s_[0, 0]),
        "all but one": mask(True, np.s_[height // 3, width - 1]),
        "all but two": mask(True, np.s_[0, 0], np.s_[-1, -1]),
    }


@pytest.mark.parametrize(
    "size",
    [(37, 61), (2, 2), *(pytest.param(one, marks=pytest.mark.long) for one in [(7, 90), (5, 3)])],
)
def test_equals_a_sparse_direct_solve(size):
    image = photograph(*size)
    wanted = {name: mask for name, mask in masks(*size).items() if mask.any() and not mask.all()}
    removed = np.stack(list(wanted.values()))
    imputed = impute(np.broadcast_to(image, (len(removed), *image.shape)), removed)
    for name, mask, filled in zip(wanted, removed, np.asarray(imputed.images), strict=True):
        error = np.abs(filled - direct(image, mask)).max() / np.ptp(image)
        assert error < 1e-3, (name, error)
        np.testing.assert_array_equal(filled[~mask], image[~mask])
    assert imputed.iterations.max() <= 15
    assert np.isfinite(imputed.residual).all()


@pytest.mark.long
def test_equals_a_sparse_direct_solve_at_full_size():
    image = photograph(224, 224)
    names = ["random 0.3", "smooth 0.5", "all but two"]
    removed = np.stack([masks(224, 224)[name] for name in names])
    imputed = impute(np.broadcast_to(image, (len(names), *image.shape)), removed)
    for name, mask, filled in zip(names, removed, np.asarray(imputed.images), strict=True):
        assert np.abs(filled - direct(image, mask)).max() < 1e-3 * np.ptp(image), name
    assert imputed.iterations.max() <= 12


def test_one_pixel_by_hand():
    image = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1) ** 2
    removed = np.zeros((1, 3, 3), bool)
    removed[0, 1, 1] = True
    edges, corners = image[0, (0, 1, 1, 2), (1, 0, 2, 1), 0], image[0, ::2, ::2, 0]
    filled = impute(image, removed).images
    np.testing.assert_allclose(filled[0, 1, 1, 0], edges.sum() / 6 + corners.sum() / 12, rtol=1e-5)
    removed = np.zeros((1, 3, 3), bool)
    removed[0, 0, 0] = True  # weights 1/6, 1/6 and 1/12 remain
    filled = impute(image, removed).images
    np.testing.assert_allclose(filled[0, 0, 0, 0], (2 * 1 + 2 * 9 + 16) / 5, rtol=1e-5)


@pytest.mark.parametrize("width", [13, 14])
def test_v_cycle_is_a_symmetric_positive_preconditioner(width):
    removed = masks(11, width)["smooth 0.5"]
    _, finest, levels = multigrid.hierarchy(jnp.asarray(removed, jnp.float32), multigrid.together)
    assert len(levels) == 4
    pixels = np.flatnonzero(removed)
    basis = jnp.eye(removed.size)[pixels].reshape(-1, 11, width, 1)

    def matrix(operator):
        columns = jax.vmap(lambda x: multigrid.joined(operator(multigrid.split(x)), width))(basis)
        return np.asarray(columns).reshape(len(pixels), -1)[:, pixels]

    def step(r):
        _, correction = multigrid.v_cycle(levels, r, multigrid.together)
        return multigrid.inner(multigrid.preconditioned(finest, r, correction, multigrid.together))

    a = matrix(lambda x: multigrid.product(finest, multigrid.bordered(x)))
    m = matrix(step)
    np.testing.assert_allclose(m, m.T, atol=1e-6)
    spectrum = np.sort(np.linalg.eigvals(m @ a).real)
    assert spectrum[0] > 0.3 and spectrum[-1] < 2.0  # conjugate gradients take few steps


@pytest.mark.long
def test_row_does_not_depend_on_the_batch():
    image, wanted = photograph(21, 24), masks(21, 24)
    removed = np.stack([wanted[name] for name in ("smooth 0.98", "one", "random 0.3")])
    images = np.broadcast_to(image, (3, 21, 24, 3))
    whole = impute(images, removed, noise=0.1, key=jax.random.key(3))
    first = impute(images[:2], removed[:2], noise=0.1, key=jax.random.key(3))
    np.testing.assert_allclose(whole.images[:2], first.images, atol=1e-5)
    np.testing.assert_array_equal(whole.iterations[:2], first.iterations)


def test_every_backend_computes_the_same():
    """The code of the other backends, on this one."""
    from jaxood.perturbation.imputation import _solve

    image, wanted = jnp.asarray(photograph(21, 24)), masks(21, 24)
    removed = jnp.asarray(wanted["smooth 0.5"])
    runs = [
        jax.jit(lambda run=run: _solve(image, removed, 1e-3, 60, run))()
        for run in (multigrid.separate(image), multigrid.together)
    ]
    np.testing.assert_allclose(*(filled for filled, _, _ in runs), atol=1e-4)
    assert runs[0][1] == runs[1][1]


@pytest.mark.long
def test_bounded_iterations_and_tolerance():
    image, wanted = photograph(21, 24), masks(21, 24)
    images, removed = jnp.asarray(image)[None], jnp.asarray(wanted["smooth 0.5"])[None]
    cut = jax.jit(lambda: impute_linear(images, removed, max_iterations=1))()
    full = jax.jit(lambda: impute_linear(images, removed))()
    assert int(cut.iterations[0]) == 1 and cut.residual[0] > 3 * full.residual[0]
    assert int(full.iterations[0]) > 1
    fine = jax.jit(lambda: impute_linear(images, removed, tolerance=1e-5))()
    assert fine.residual[0] < 0.1 * full.residual[0]


def test_nothing_removed_and_constant_image():
    image = photograph(16, 16)[None]
    none = impute(image, np.zeros((1, 16, 16), bool))
    np.testing.assert_array_equal(none.images, image)
    flat = impute(np.full((1, 16, 16, 3), 0.3), np.arange(256).reshape(1, 16, 16) > 0)
    np.testing.assert_allclose(flat.images, 0.3, rtol=1e-6)


@pytest.mark.parametrize("method", IMPUTATIONS)
def test_all_pixels_removed_is_refused(method):
    removed = np.stack([np.zeros((4, 4), bool), np.ones((4, 4), bool)])
    with pytest.raises(UsageError, match="all pixels in mask 1, wanted at least one kept"):
        impute(np.zeros((2, 4, 4, 3)), removed, method)


def test_bad_arguments_are_refused():
    with pytest.raises(UsageError, match="Did you mean linear"):
        impute(np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 4)), "liner")
    with pytest.raises(UsageError, match=r"removed: got \(1, 4, 5\)"):
        impute(np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 5)))
    with pytest.raises(UsageError, match="key"):
        impute(np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 4)), noise=0.1)


def test_baselines():
    image, removed = photograph(30, 20), masks(30, 20)["smooth 0.5"]
    filled = {
        name: np.asarray(impute(image[None], removed[None], name).images[0])
        for name in ("mean", "zero", "blur")
    }
    ones = np.ones_like(image)

    def smooth(values):
        return ndimage.gaussian_filter(values, (10, 10, 0), mode="constant", truncate=8)

    mean = np.broadcast_to(image[~removed].mean(axis=0), image.shape)
    wanted = {"mean": mean, "zero": np.zeros_like(image), "blur": smooth(image) / smooth(ones)}
    for name, values in wanted.items():
        np.testing.assert_allclose(filled[name][removed], values[removed], atol=1e-5)
        np.testing.assert_array_equal(filled[name][~removed], image[~removed])


def test_noise_is_on_removed_pixels_only_and_of_its_scale():
    removed = jnp.asarray(masks(90, 90)["smooth 0.5"])[None]
    keys = jax.random.key(0)[None]
    images = jnp.zeros((1, 90, 90, 3))
    noise = np.asarray(add_noise(images, removed, 0.01 * draw_noise(images, keys)))[0]
    assert (noise[~np.asarray(removed[0])] == 0).all()
    np.testing.assert_allclose(noise[np.asarray(removed[0])].std(), 0.01, rtol=0.03)
