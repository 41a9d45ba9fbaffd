"""A fitted detector in one safetensors file: its arrays, and as JSON all that they depend on.

The metadata names the method with every parameter spelled out, the model it was fitted with
(name, SHA-256 of the weights, preprocessing, arithmetic), the threshold and the share of
in-distribution images that it lets pass, and the names of the classes.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxood.detectors.contract import State
from jaxood.detectors.methods import DETECTORS, TRANSFORMS, VIEWS, Method, parse_method
from jaxood.errors import UsageError
from jaxood.store import whole_file

FORMAT = "jaxood detector 1"
FIT = "Make one with: jaxood fit"
ARGUMENTS = {
    "name": "--model",
    "weights_sha256": "--weights",
    "preprocessing": "--tag",
    "dtype": "--dtype",
}


@dataclass(frozen=True)
class SavedDetector:
    """What is needed to score images, beside the model.

    Attributes:
      threshold: an image that scores at least this much is in distribution.
      tpr: share of in-distribution images that this was chosen to let pass.
      model: what `model_identity` gives.
      classes: a name a class; empty where they are not known.
      bank: places in the training set of the images that it was fitted on, if it was.
    """

    method: Method
    state: State
    threshold: float
    tpr: float
    model: dict[str, object]
    classes: tuple[str, ...] = ()
    bank: Int[np.ndarray, " b"] | None = None

    def require_model(self, model) -> None:
        """Raises UsageError when a LoadedModel is not the one that this was fitted with."""
        got = model_identity(model)
        for part, argument in ARGUMENTS.items():
            if got[part] != self.model[part]:
                wanted = f"{self.model[part]}, as the detector was fitted with"
                remedy = "Give that one, or fit a detector for this one"
                raise UsageError(argument, f"{part} {got[part]}", wanted, remedy)


def model_identity(model) -> dict[str, object]:
    """The parts of a LoadedModel that features depend on, as plain JSON values."""
    parts = {
        "name": model.name,
        "weights_sha256": model.weights_hash,
        "preprocessing": model.preprocessing.as_dict(),
        "dtype": model.dtype,
    }
    return json.loads(json.dumps(parts))


def spelled_out(method: Method) -> str:
    """The method's name with all of its parameters, so that defaults may change."""
    names = {step: name for name, step in {**VIEWS, **TRANSFORMS, **DETECTORS}.items()}
    view = [method.view[1]] if method.view and type(method.view[1]) in names else []
    return "+".join(_spelled_step(names[type(step)], step) for step in [*view, *method.steps])


def _spelled_step(name: str, step: object) -> str:
    fields = [field.name for field in dataclasses.fields(step) if field.init]
    values = ",".join(f"{field}={getattr(step, field)}" for field in fields)
    return f"{name}[{values}]" if values else name


def save_detector(path: Path, detector: SavedDetector) -> None:
    """Writes the file, all of it or nothing.

    Raises:
      UsageError: when it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    arrays = {
        f"{number}.{field}": np.asarray(array, order="C")
        for number, state in enumerate(detector.state)
        for field, array in zip(getattr(state, "_fields", ()), state, strict=True)
    }
    if detector.bank is not None:
        arrays["bank"] = np.asarray(detector.bank, np.int64)
    values = {
        "name": detector.method.name,
        "method": spelled_out(detector.method),
        "threshold": detector.threshold,
        "tpr": detector.tpr,
        "model": detector.model,
        "classes": detector.classes,
        "version": version("jaxood"),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            # One entry: safetensors writes several in any order, and the same command must give
            # the same file.
            save_file(arrays, partial, {FORMAT: json.dumps(values)})
    except (OSError, SafetensorError) as error:
        raise UsageError("--output", f"{path} ({error})", "a file that can be written") from error


def load_detector(path: Path) -> SavedDetector:
    """Reads what `save_detector` wrote; nothing in the file is ever run.

    Raises:
      UsageError: missing, damaged, or not a detector of this version of the format.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UsageError("--detector", path, "an existing detector file", FIT)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UsageError("--detector", path, f"a whole detector file ({error})", FIT) from error
    if FORMAT not in metadata:
        got = f"{path} with {', '.join(metadata) or 'no metadata'}"
        raise UsageError("--detector", got, f"a file of the format {FORMAT!r}", FIT)
    try:
        values = json.loads(metadata[FORMAT])
        method = dataclasses.replace(parse_method(values["method"]), name=values["name"])
        return SavedDetector(
            method,
            tuple(_state(step, number, arrays) for number, step in enumerate(method.steps)),
            float(values["threshold"]),
            float(values["tpr"]),
            dict(values["model"]),
            tuple(values["classes"]),
            arrays.get("bank"),
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        wanted = f"a whole detector file ({type(error).__name__}: {error})"
        raise UsageError("--detector", path, wanted, FIT) from error


def _state(step: object, number: int, arrays: Mapping[str, np.ndarray]) -> State:
    fields = getattr(step.State, "_fields", ())
    state = step.State(*(arrays[f"{number}.{field}"] for field in fields))
    if hasattr(step, "place"):
        return step.place(state)
    return jax.tree.map(jnp.asarray, state)
