"""What XLA's CPU compiler has to be told of functions that run a network."""

import math
import os
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import jax
import jax.numpy as jnp

# Products and convolutions by YNNPACK. Convolutions by Eigen gave wrong numbers in two programs at
# once: RegNetY-16GF's logits were off by 7e-3 from the eighth image on (jax 0.10.2). No reductions
# by YNNPACK: its maximum of NaN and a number is the number.
YNNPACK = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
CPU_OPTIONS: dict[str, str | int] = {
    "xla_cpu_experimental_ynn_fusion_type": YNNPACK,
    # Whole vectors of AVX-512 in loops, not LLVM's halves: 0.90 to 1.00 of a network's time.
    "xla_cpu_prefer_vector_width": 512,
}

# Of images whose activations stay in a CPU's cache, where two programs run at once.
PIXELS_A_CORE = 224 * 224
READY = 8  # operations at once, of which XLA's executor gives some to other threads


def images_a_step(height: int, width: int) -> int:
    """Images that a CPU takes at once: a power of two, larger for smaller images and more cores."""
    count = max(1, (os.cpu_count() or 1) * PIXELS_A_CORE // (height * width))
    return 2 ** (count.bit_length() - 1)


def in_steps(
    function: Callable[..., Any],
    rows: tuple[jax.Array, ...],
    step: int,
    halves: tuple[Callable[..., Any], Callable[..., Any]] | None = None,
) -> Any:
    """`function(*rows)`, so many rows at a time where it is compiled for a CPU.

    Args:
      function: a row of its result depends on the same row of `rows` only.
      step: fewer where it does not divide them.
      halves: `function` as two: the first takes one row at a time, without the axis of rows, the
        second what that gave for a step.
    """
    n = len(rows[0])
    step = math.gcd(n, step)
    if n == 1 or (step == n and not halves):
        return function(*rows)

    def stepwise(*rows):
        zero = _in_pool(rows[0])

        def row(index):
            return [jax.lax.dynamic_index_in_dim(array, index, keepdims=False) for array in rows]

        def of_step(start):
            if not halves:
                return function(*(jax.lax.dynamic_slice_in_dim(x, start, step) for x in rows))
            first, second = halves
            return second(jax.lax.map(lambda index: first(*row(index)), start + jnp.arange(step)))

        def of_row(index):  # for the sake of an axis of length 1 XLA would copy the blocks
            found = function(*(array[None] for array in row(index)))
            return jax.tree.map(lambda array: array[0], found)

        starts = zero + jnp.arange(0, n, step)
        if step == 1:
            return jax.lax.map(of_row, starts)
        if step == n:
            return of_step(zero)
        found = jax.lax.map(of_step, starts)
        return jax.tree.map(lambda array: array.reshape(n, *array.shape[2:]), found)

    return jax.lax.platform_dependent(*rows, cpu=stepwise, default=function)


def _in_pool(x: jax.Array) -> jax.Array:
    """Zero: an index whose readers run in the pool of threads of XLA's CPU client.

    A program starts in a thread of its own, and where each operation waits for the one before may
    stay there, beside the pool, whose threads take parts of its operations: MobileNetV2 takes 1.08
    of the time. Of many operations that wait for nothing the executor gives some to the pool, and
    there the rest goes on.
    """
    number = x.reshape(-1)[0].astype(jnp.float32)
    ready = [jnp.sort(jnp.stack([number, jnp.float32(i)])) for i in range(READY)]
    return (jnp.stack(ready).min() < -jnp.inf).astype(jnp.int32)  # which the compiler cannot know


def computed_once(x: jax.Array) -> jax.Array:
    """`x`, which is read by a matrix product, and by more; the product has to read this very array.

    XLA's CPU compiler computes what has one operand again for each that reads it, and that
    operand's operands as well: a sum activated at the end of each block of a network, from all
    branches before it, which is a fifth of ResNet-101's time. What has two operands, one of its
    readers being a product, it keeps; this selects by one of two.
    """
    return jax.lax.platform_dependent(x, cpu=_selected, default=lambda x: x)


@jax.custom_jvp
def _selected(x):
    return jnp.where(jnp.isnan(x), jnp.nan, x)


@_selected.defjvp
def _selected_slope(primals, tangents):
    return _selected(*primals), *tangents


@cache
def compiler_options() -> dict[str, str | int]:
    """For the default backend; none where its compiler does not know them."""
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=CPU_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return CPU_OPTIONS


def jit(function: Callable, static_argnums: int | tuple[int, ...] = ()) -> Any:
    """`jax.jit(function, static_argnums)` under `compiler_options()`.

    JAX takes compiler options for a whole program only: within another compiled function call
    `function` itself. The backend is chosen at the first call; importing a module starts none.
    `compiled()` is the function that `jax.jit` made.
    """

    @cache
    def compiled() -> Any:
        return jax.jit(function, static_argnums=static_argnums, compiler_options=compiler_options())

    @wraps(function)
    def call(*arguments):
        return compiled()(*arguments)

    call.compiled = compiled  # type: ignore[attr-defined]
    return call
