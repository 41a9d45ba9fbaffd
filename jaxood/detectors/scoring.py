"""Scores of any number of images: blocks of few sizes over the mesh, compiled once a method."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from jaxood.detectors.blocks import map_blocks
from jaxood.detectors.contract import State, restricted, row_count
from jaxood.detectors.method import Method
from jaxood.errors import UsageError
from jaxood.heads import Head, LinearHead
from jaxood.outputs import AnyArray, ModelOutputs
from jaxood.parallel import data_mesh, replicate, rounded_up, shard

NAMED = 3  # rows whose score is not finite
SCORE_ROWS = 64, 1024  # rows scored at once: few sizes, as a method is compiled for each


@partial(jax.jit, static_argnums=0)
def _score_block(method: Method, state: State, outputs: ModelOutputs, head: Head | None):
    return method.score(state, outputs, head)


def score_rows(
    method: Method,
    state: State,
    outputs: ModelOutputs,
    head: Head | None,
    mesh: Mesh | None = None,
    ids: Sequence[str] | None = None,
) -> Float[np.ndarray, " n"]:
    """Scores outputs, on the host or on a device; one score a row, on the host.

    Only what the method reads of them goes to the devices.

    Args:
      head: None where the method needs none.
      ids: what rows are called where a score is not finite; None: by their numbers.

    Raises:
      UsageError: when a score is not finite, as no metric could be computed from it.
    """
    mesh = mesh or data_mesh()
    needed = restricted(outputs, method.reads, tuple(method.extractors))
    count = row_count(needed)
    few, many = SCORE_ROWS
    block = rounded_up(few if count <= few else many, mesh)
    state, head = replicate((state, head), mesh)
    scores = []
    for first in range(0, count, block):
        rows = jax.tree.map(lambda array: _block(array, first, block), needed)  # noqa: B023
        scores.append(_score_block(method, state, shard(rows, mesh), head))
    joined = np.concatenate([*jax.device_get(scores), np.empty(0, np.float32)])[:count]
    wrong = np.flatnonzero(~np.isfinite(joined))
    if len(wrong):
        named = [f"row {row}" if ids is None else ids[row] for row in wrong[:NAMED]]
        more = ", ..." if len(wrong) > NAMED else ""
        got = f"{len(wrong)} of {count} scores that are not finite ({', '.join(named)}{more})"
        remedy = "Look for such values in the weights, or among the training features"
        raise UsageError(f"method {method.name}", got, "finite ones", remedy)
    return joined


def _block(array: AnyArray, first: int, size: int) -> np.ndarray:
    """Rows from `first` on, the last one repeated to fill `size`."""
    rows = np.asarray(array[first : first + size])
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


_penultimate = jax.jit(lambda head, rows: head.penultimate(rows))
_classify = jax.jit(lambda head, rows: head.classify(rows))


def host_outputs(
    head: Head | None,
    pooled: Float[AnyArray, "n c"],
    logits: Float[AnyArray, "n k"] | None = None,
    extras: Mapping[str, Float[AnyArray, "n ..."]] = {},  # noqa: B006 (never changed)
) -> ModelOutputs:
    """Extracted features as what methods are fitted on and score; on the host.

    Penultimate features are computed block by block where a norm belongs to the head, else they
    are the pooled ones themselves.

    Args:
      head: None: there is none, or it is not known; then no norm.
      logits: None: from the head; left out where there is none.
    """
    penultimate = pooled
    if head is not None and not isinstance(head, LinearHead):
        penultimate = map_blocks(partial(_penultimate, head), pooled)
    found: Any = logits
    if logits is None and head is not None:
        found = map_blocks(partial(_classify, head), penultimate)
    return ModelOutputs(None, pooled, penultimate, found, extras)
