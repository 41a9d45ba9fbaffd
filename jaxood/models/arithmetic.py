"""What a backbone computes in: the type of its arrays, and the factors of its products."""

from typing import NamedTuple


class Arithmetic(NamedTuple):
    """
    Attributes:
      arrays: type of weights and activations.
      products: JAX's precision of convolutions and matrix products; sums are float32 in all.
    """

    arrays: str
    products: str


ARITHMETIC = {
    "float32": Arithmetic("float32", "highest"),
    # NVIDIA's matrix units take ten bits of a factor's fraction; TPUs three products of bfloat16;
    # CPUs all bits.
    "tensorfloat32": Arithmetic("float32", "tensorfloat32"),
    "bfloat16": Arithmetic("bfloat16", "highest"),
}
