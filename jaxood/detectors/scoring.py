"""Scores of any number of images: blocks of few sizes over the mesh, compiled once a method."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Float

from jaxood.detectors.blocks import map_blocks
from jaxood.detectors.contract import State, numbers_apart, restricted, row_count, with_numbers
from jaxood.detectors.method import Method, score_by
from jaxood.errors import UsageError
from jaxood.heads import Head, LinearHead
from jaxood.lanes import divided, in_lanes, lanes
from jaxood.outputs import AnyArray, ModelOutputs
from jaxood.parallel import data_mesh, replicate, rounded_up, shard
from jaxood.processes import gathered_rows, gathered_values, share_of

NAMED = 3  # rows whose score is not finite
SCORE_ROWS = 64, 1024, 2048  # rows scored at once: few sizes, as a method is compiled for each


def _score_block(
    method: Method, mesh: Mesh | None, state: State, head: Head | None, outputs: ModelOutputs
):
    """Each device of the mesh scores its rows. None: the state lies in parts on devices."""
    steps, numbers = numbers_apart(method.steps)
    return _compiled_score(method.source, steps, mesh, numbers, state, outputs, head)


# Once for all methods that differ in their numbers only.
@partial(jax.jit, static_argnums=(0, 1, 2))
def _compiled_score(source, steps, mesh, numbers, state, outputs, head):
    def score(numbers, state, head, outputs):
        return score_by(source, with_numbers(steps, numbers), state, head, outputs)

    if mesh is None:
        return score(numbers, state, head, outputs)
    whole, structure = jax.tree.flatten((numbers, state, head))

    def on_each_device(whole, outputs):
        return score(*jax.tree.unflatten(structure, whole), outputs)

    return jax.shard_map(
        on_each_device,
        mesh=mesh,
        in_specs=(P(), P("data")),
        out_specs=P("data"),
        check_vma=False,
    )(whole, outputs)


def _rows_mesh(state: State, mesh: Mesh) -> Mesh | None:
    """The mesh, unless a state is shared out over it, so that every device needs all rows."""
    whole = all(leaf.is_fully_replicated for leaf in jax.tree.leaves(state))
    return mesh if whole and mesh.size > 1 else None


def score_rows(
    method: Method,
    state: State,
    outputs: ModelOutputs,
    head: Head | None,
    mesh: Mesh | None = None,
    ids: Sequence[str] | None = None,
    together: bool = False,
) -> Float[np.ndarray, " n"]:
    """Scores outputs, on the host or on a device; one score a row, on the host.

    Only what the method reads of them goes to the devices.

    Args:
      head: None where the method needs none.
      ids: what rows are called where a score is not finite; None: by their numbers.
      together: several processes have the same rows: each scores a share, all get all scores.

    Raises:
      UsageError: when a score is not finite, as no metric could be computed from it.
    """
    found = score_by_all({method: state}, outputs, head, mesh, ids, together)[method]
    if isinstance(found, UsageError):
        raise found
    return found


def score_by_all(
    states: Mapping[Method, State],
    outputs: ModelOutputs,
    head: Head | None,
    mesh: Mesh | None = None,
    ids: Sequence[str] | None = None,
    together: bool = False,
) -> dict[Method, Float[np.ndarray, " n"] | UsageError]:
    """What `score_rows` gives or raises for each method.

    Every block of rows goes to the devices once, for all methods.
    """
    mesh = mesh or data_mesh()
    depths = {depth for method in states for depth in method.reads}
    keys = {key for method in states for key in method.extractors}
    needed = restricted(outputs, tuple(depths), tuple(sorted(keys)))
    count = row_count(needed)
    block = rounded_up(next((n for n in SCORE_ROWS if count <= n), SCORE_ROWS[-1]), mesh)
    placed = {method: replicate(state, mesh) for method, state in states.items()}
    head = replicate(head, mesh)
    scores: dict[Method, list[AnyArray]] = {method: [] for method in states}
    failures: dict[Method, UsageError] = {}
    blocks = range(0, count, block)
    if together:
        share = share_of(len(blocks))
        blocks = blocks[share.start : share.stop]
    for first in blocks:
        rows = shard(jax.tree.map(lambda array: _block(array, first, block), needed), mesh)  # noqa: B023
        for method, state in placed.items():
            if method in failures:
                continue
            seen = restricted(rows, method.reads, tuple(method.extractors))
            try:
                score = partial(_score_block, method, _rows_mesh(state, mesh), state, head)
                scores[method].append(in_lanes(score, divided(seen, lanes(mesh, block))))
            except UsageError as error:
                failures[method] = error
        for given in scores.values():  # waits: no more than two blocks are on the devices
            given[-2:-1] = jax.device_get(given[-2:-1])
    rows = range(blocks.start, min(blocks.stop, count))
    found = {
        method: np.concatenate([*jax.device_get(given), np.empty(0, np.float32)])[: len(rows)]
        for method, given in scores.items()
        if method not in failures
    }
    if together and jax.process_count() > 1:
        found, failures = _of_all_processes(list(states), found, failures)
    return {
        method: failures.get(method) or _unless_broken(method, found[method], ids)
        for method in states
    }


def _of_all_processes(
    methods: Sequence[Method],
    scores: Mapping[Method, Float[np.ndarray, " n"]],
    failures: Mapping[Method, UsageError],
) -> tuple[dict[Method, Float[np.ndarray, " m"]], dict[Method, UsageError]]:
    """The scores of all shares; a process without rows knows of no failure."""
    told = [
        (methods.index(method), str(error.argument), str(error.got), error.wanted, error.remedy)
        for method, error in failures.items()
    ]
    failed = {
        methods[number]: UsageError(*line)
        for theirs in gathered_values(told)
        for number, *line in theirs
    }
    good = {str(number): method for number, method in enumerate(methods) if method not in failed}
    found = gathered_rows({number: scores[method] for number, method in good.items()})
    return {method: found[number] for number, method in good.items()}, failed


def _unless_broken(
    method: Method, scores: Float[np.ndarray, " n"], ids: Sequence[str] | None
) -> Float[np.ndarray, " n"] | UsageError:
    """The scores, or what is said when they are not all finite."""
    wrong = np.flatnonzero(~np.isfinite(scores))
    if not len(wrong):
        return scores
    named = [f"row {row}" if ids is None else ids[row] for row in wrong[:NAMED]]
    more = ", ..." if len(wrong) > NAMED else ""
    got = f"{len(wrong)} of {len(scores)} scores that are not finite ({', '.join(named)}{more})"
    remedy = "Look for such values in the weights, or among the training features"
    return UsageError(f"method {method.name}", got, "finite ones", remedy)


def _block(array: AnyArray, first: int, size: int) -> np.ndarray:
    """Rows from `first` on, the last one repeated to fill `size`."""
    rows = np.asarray(array[first : first + size])
    missing = size - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing else rows


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
