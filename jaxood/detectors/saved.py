"""A fitted detector in one safetensors file: its arrays, and as JSON all that they depend on.

The metadata names the method with every parameter spelled out, the model it was fitted with
(name, SHA-256 of the weights, preprocessing, arithmetic), the threshold and the share of
in-distribution images that it lets pass, and the names of the classes. A digest of all of it tells
a damaged file. No file makes the program import code: parts of the user's own are given as classes
by who loads it.
"""

import hashlib
import json
import math
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
from jaxtyping import Int

from jaxood.context import Extractor
from jaxood.detectors.contract import State, Step
from jaxood.detectors.grammar import method_of, parse_method
from jaxood.detectors.method import Method
from jaxood.errors import UsageError, require
from jaxood.files import whole_file
from jaxood.spelling import name_of

FORMAT = "jaxood detector 2"
FIT = "Make one with jaxood.fit, or: jaxood fit"
ARGUMENTS = {
    "name": "model",
    "weights_sha256": "weights",
    "preprocessing": "tag",
    "dtype": "dtype",
}
DTYPES = "float32", "bfloat16", "int32"


@dataclass(frozen=True)
class SavedDetector:
    """What is needed to score images, beside the model.

    Attributes:
      threshold: an image that scores at least this much is in distribution.
      tpr: share of in-distribution images that this was chosen to let pass.
      model: its `identity()`, as plain JSON values.
      classes: a name a class; empty where they are not known.
      bank: indices in the training set of the images that it was fitted on, if it was.
      seed: of the draws that its extractors make, as of coalitions.
    """

    method: Method
    state: State
    threshold: float
    tpr: float
    model: dict[str, object]
    classes: tuple[str, ...] = ()
    bank: Int[np.ndarray, " b"] | None = None
    seed: int = 0

    def require_model(self, found: Mapping[str, object]) -> None:
        """Raises UsageError when a model's `identity()` is not that of the one fitted with."""
        for part, argument in ARGUMENTS.items():
            if found[part] != self.model[part]:
                wanted = f"{self.model[part]}, as the detector was fitted with"
                remedy = "Give that one, or fit a detector for this one"
                raise UsageError(argument, f"{part} {found[part]}", wanted, remedy)


def save_detector(path: Path, detector: SavedDetector) -> None:
    """Writes the file, all of it or nothing.

    Raises:
      UsageError: when it could not be read back.
      OSError: when it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    method = detector.method
    text = method.spelled_out
    try:
        same = parse_method(text) == method
    except UsageError:
        same = False
    require(same, "detector", f"method {text}", "one whose parameters can be written as text")
    arrays = {
        f"{index}.{field}": np.asarray(array, order="C")
        for index, state in enumerate(detector.state)
        for field, array in zip(getattr(state, "_fields", ()), state, strict=True)
    }
    if detector.bank is not None:
        arrays["bank"] = np.asarray(detector.bank, np.int64)
    values: dict[str, object] = {
        "method": text,
        "threshold": detector.threshold,
        "tpr": detector.tpr,
        "model": detector.model,
        "classes": detector.classes,
        "seed": detector.seed,
        "version": version("jaxood"),
    }
    values["digest"] = _digest(arrays, values)
    try:
        with whole_file(path) as partial:
            # One entry: safetensors writes several in any order, and the same command must give
            # the same file.
            save_file(arrays, partial, {FORMAT: json.dumps(values)})
    except SafetensorError as error:  # a full disk
        raise OSError(f"{path}: {error}") from error


def load_detector(path: Path, parts: Iterable[type[Step | Extractor]] = ()) -> SavedDetector:
    """Reads what `save_detector` wrote; nothing in the file is ever run.

    Args:
      parts: classes of the user's own that the method may be made of.

    Raises:
      UsageError: missing, damaged, or not a detector of this version of the format.
    """
    from safetensors import SafetensorError, safe_open

    require(path.is_file(), "detector", path, "an existing detector file", FIT)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UsageError("detector", path, f"a whole detector file ({error})", FIT) from error
    got = f"{path} with {', '.join(metadata) or 'no metadata'}"
    require(FORMAT in metadata, "detector", got, f"a file of the format {FORMAT!r}", FIT)
    try:
        values = json.loads(metadata[FORMAT])
        digest = values.pop("digest")
    except (KeyError, AttributeError, TypeError, ValueError, RecursionError) as error:
        wanted = f"a whole detector file ({type(error).__name__})"
        raise UsageError("detector", path, wanted, FIT) from error
    _require_values(path, values)
    right = digest == _digest(arrays, values)
    require(right, "detector", f"{path}, changed after it was written", "a whole file", FIT)
    bank = arrays.get("bank")
    method = method_of(values["method"], {name_of(part): part for part in parts})
    states = tuple(_state(path, index, step, arrays) for index, step in enumerate(method.steps))
    known = {f"{i}.{name}" for i, step in enumerate(method.steps) for name in _fields(step)}
    unknown = arrays.keys() - known - {"bank"}
    require(not unknown, "detector", f"{path} with {sorted(unknown)}", "no such arrays", FIT)
    if bank is not None:
        right = bank.ndim == 1 and bank.dtype == np.int64 and (bank >= 0).all()
        require(right, "detector", f"{path} with a damaged bank", "indices of images", FIT)
    return SavedDetector(
        method,
        states,
        float(values["threshold"]),
        float(values["tpr"]),
        dict(values["model"]),
        tuple(values["classes"]),
        bank,
        values["seed"],
    )


def _digest(arrays: Mapping[str, np.ndarray], values: Mapping[str, object]) -> str:
    whole = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for name in sorted(arrays):
        whole.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        whole.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return whole.hexdigest()


def _require_values(path: Path, values: Mapping[str, Any]) -> None:
    """Raises UsageError for metadata that `save_detector` does not write."""

    def number(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    def texts(value: object) -> bool:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)

    def seed(value: object) -> bool:
        return type(value) is int and 0 <= value < 2**32

    def model(value: object) -> bool:
        return isinstance(value, dict) and value.keys() == ARGUMENTS.keys()

    for name, holds, wanted in (
        ("method", lambda value: isinstance(value, str), "text"),
        ("threshold", lambda value: number(value) and math.isfinite(value), "a finite number"),
        ("tpr", lambda value: number(value) and 0 < value <= 1, "above 0 and at most 1"),
        ("model", model, f"values for {', '.join(ARGUMENTS)}"),
        ("classes", texts, "names"),
        ("seed", seed, "a whole number, 0 to 2**32 - 1"),
    ):
        value = values.get(name)
        shown = repr(value)[:80]
        require(holds(value), "detector", f"{path} with {name} {shown}", f"{name}: {wanted}", FIT)


def _fields(step: Step) -> tuple[str, ...]:
    return getattr(step.State, "_fields", ())


def _state(path: Path, index: int, step: Step, arrays: Mapping[str, np.ndarray]) -> Any:
    """The state of a step, its arrays as its class says that they are."""
    name, hints = name_of(step), typing.get_type_hints(step.State)
    found: list[np.ndarray] = []

    def damaged(what: str, wanted: str) -> UsageError:
        return UsageError("detector", f"{path} with {what} of {name}", wanted, FIT)

    with jaxtyping.jaxtyped("context"):
        for field in _fields(step):
            array = arrays.get(f"{index}.{field}")
            if array is None:
                raise damaged(f"no {field}", "a whole detector file")
            if array.dtype.name not in DTYPES:
                raise damaged(f"{array.dtype} values as {field}", f"one of {', '.join(DTYPES)}")
            if not np.isfinite(array.astype(np.float32)).all():
                raise damaged(f"values that are not finite in {field}", "finite values")
            shape = getattr(hints[field], "dim_str", None)
            kind: Any = np.ndarray if shape is None else jaxtyping.Shaped[np.ndarray, shape]
            if not isinstance(array, kind):
                raise damaged(f"{field} of shape {array.shape}", f"[{str(shape).strip()}]")
            found.append(array)
    return step.restored(step.State(*found))
