"""Runs a traced function again with some of its operations replaced.

Guided back-propagation changes every rectifier, FullGrad watches every bias, gradients in a loop
want their kernels turned, in whatever model; none of it should have to be built into the models.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal
from jaxtyping import Array

INLINED = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr", "closed_call": "call_jaxpr"}


class Traced(NamedTuple):
    """A value, and whether it depends on the function's arguments (or on the weights only)."""

    value: Array
    varies: bool


Rule = Callable[[JaxprEqn, Sequence[Traced]], Array | None]


def rewritten(function: Callable[..., Array], rule: Rule) -> Callable[..., Array]:
    """`function` of arrays to one array, with `rule` asked for each operation's result first.

    The rule gives None to leave an operation as it is. Operations inside control flow (scan,
    cond, `platform_dependent`) are not offered to it.
    """

    def run(*args: Array) -> Array:
        closed = jax.make_jaxpr(function)(*args)
        return _run(closed, [Traced(arg, True) for arg in args], rule)[0].value

    return run


def with_plain_kernels(gradient: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """`gradient` with the kernels of its convolutions as `[rows, columns, inputs, outputs]`.

    The gradient of a convolution is one whose inputs and outputs have changed sides. XLA's CPU
    compiler turns its kernel around in the main program only, not in a loop, where such a
    convolution takes three to ten times as long.
    """

    def turn(equation: JaxprEqn, inputs: Sequence[Traced]) -> Array | None:
        if equation.primitive.name != "conv_general_dilated":
            return None
        image, kernel = (item.value for item in inputs)
        sides = equation.params["dimension_numbers"]
        outputs_at, inputs_at, *window = sides.rhs_spec
        last = kernel.ndim - 1
        plain = type(sides)(sides.lhs_spec, (last, last - 1, *range(last - 1)), sides.out_spec)
        return equation.primitive.bind(
            image,
            kernel.transpose(*window, inputs_at, outputs_at),
            **equation.params | {"dimension_numbers": plain},
        )

    return rewritten(gradient, turn)


def _run(closed: ClosedJaxpr, args: Sequence[Traced], rule: Rule) -> list[Traced]:
    values = dict(zip(closed.jaxpr.invars, args, strict=True))
    values |= {
        var: Traced(const, False)
        for var, const in zip(closed.jaxpr.constvars, closed.consts, strict=True)
    }

    def read(var):
        return Traced(var.val, False) if isinstance(var, Literal) else values[var]

    for equation in closed.jaxpr.eqns:
        inputs = [read(var) for var in equation.invars]
        body = equation.params.get(INLINED.get(equation.primitive.name))
        if body is not None:
            outputs = _run(body, inputs, rule)
        else:
            varies = any(item.varies for item in inputs)
            replaced = rule(equation, inputs)
            if replaced is not None:
                results = [replaced]
            else:
                params = equation.primitive.get_bind_params(equation.params)
                results = equation.primitive.bind(*(item.value for item in inputs), **params)
                results = results if equation.primitive.multiple_results else [results]
            outputs = [Traced(value, varies) for value in results]
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(var) for var in closed.jaxpr.outvars]
