"""Deep feature factorisation: a layer's map as a few concepts (Collins et al., ECCV 2018).

    A - min_i A ~ W H,  W [p, f] >= 0: where each concept is,  H [f, c] >= 0: what it is

by hierarchical alternating least squares (Cichocki & Phan 2009): each column of W, then each row
of H, is set to its best non-negative value with all others fixed. A channel's least value is taken
off first, as in the package grad-cam, and put back onto the concepts.

As an attribution of a class: where the concept is that adds most to the target's logit for its
size, to first order sum_ic G_ic W_if H_fc / sum_i W_if with G the gradient of the logit.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxood.attribution.gradient_cam import divide
from jaxood.attribution.gradients import activation_and_gradient
from jaxood.context import Attribution, Context


class Factorisation(NamedTuple):
    """Attributes:
    where: of each concept at each position, in [0, 1].
    concepts: channels of each, at the position where it is strongest.
    """

    where: Float[Array, "p f"]
    concepts: Float[Array, "f c"]


def _update(
    factor: Float[Array, "a f"], product: Float[Array, "a f"], gram: Float[Array, "f f"]
) -> Float[Array, "a f"]:
    """Each column of `factor` at its best for ||target - factor @ other||, others fixed."""

    def column(j: Int[Array, ""], factor: Float[Array, "a f"]) -> Float[Array, "a f"]:
        step = product[:, j] - jnp.matmul(factor, gram[:, j], precision="highest")
        best = jnp.maximum(factor[:, j] + step / jnp.maximum(gram[j, j], 1e-12), 0.0)
        return factor.at[:, j].set(best)

    return jax.lax.fori_loop(0, factor.shape[1], column, factor)


def factorise(
    features: Float[Array, "p c"], concepts: int, key: PRNGKeyArray, sweeps: int = 200
) -> Factorisation:
    """Factorises the positions of one image, or of several stacked for common concepts."""
    offset = features.min(axis=0)
    shifted = features - offset[None]
    size = jnp.sqrt(shifted.mean() / concepts)
    keys = jax.random.split(key)
    where = size * jax.random.uniform(keys[0], (features.shape[0], concepts))
    what = size * jax.random.uniform(keys[1], (features.shape[1], concepts))

    def product(a: Array, b: Array) -> Array:
        return jnp.matmul(a, b, precision="highest")

    def sweep(_: Int[Array, ""], factors: tuple[Array, Array]) -> tuple[Array, Array]:
        where, what = factors
        where = _update(where, product(shifted, what), product(what.T, what))
        what = _update(what, product(shifted.T, where), product(where.T, where))
        return where, what

    where, what = jax.lax.fori_loop(0, sweeps, sweep, (where, what))
    peak = where.max(axis=0, keepdims=True)
    scaled = where / jnp.where(peak > 0, peak, 1.0)
    return Factorisation(scaled, (what * peak).T + offset[None])


@dataclass(frozen=True)
class FeatureFactorisation(Attribution):
    """The concept of the target, factorised image by image.

    Attributes:
      layer: None for the model's choice.
      concepts: how many.
    """

    name: ClassVar[str] = "dff"
    paper: ClassVar[str] = "Collins et al., ECCV 2018"
    random: ClassVar[bool] = True
    needs_layer: ClassVar[bool] = True

    layer: str | None = None
    concepts: int = 5

    def __call__(self, context: Context) -> Float[Array, "n h2 w2"]:
        a, g = activation_and_gradient(context, self.layer)
        n, h, w, c = a.shape

        def of_target(
            features: Float[Array, "p c"], gradient: Float[Array, "p c"]
        ) -> Float[Array, " p"]:
            where, concepts = factorise(features, self.concepts, context.key)
            pulled = jnp.matmul(gradient, concepts.T, precision="highest")
            added = divide(jnp.sum(where * pulled, axis=0), where.sum(axis=0))
            return where[:, jnp.argmax(added)]

        rows = (array.reshape(n, h * w, c) for array in (a, g))
        return jax.vmap(of_target)(*rows).reshape(n, h, w)
