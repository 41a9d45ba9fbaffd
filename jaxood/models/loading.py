"""From a weights file, or an import path, to a model that is ready to use."""

import hashlib
import importlib
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxood.errors import UsageError, choose
from jaxood.models.backbone import Backbone
from jaxood.models.registry import ARCHITECTURES, LoadedModel, WeightTag
from jaxood.models.weights_file import CONVERT, WeightsInfo, open_weights, sha256, write_weights
from jaxood.preprocessing import Preprocessing


def abstract_model(architecture: str, num_classes: int) -> Backbone:
    """The network with shapes in the place of arrays: no memory, no time."""
    return nnx.eval_shape(lambda: ARCHITECTURES[architecture].build(num_classes))


def parameters(module: nnx.Module) -> dict[str, jax.Array | jax.ShapeDtypeStruct]:
    """The parameters of a model by path, "stages/layer1.0/conv1/kernel"."""
    flat = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {"/".join(map(str, path)): variable.get_value() for path, variable in flat}


def parameter_shapes(architecture: str, num_classes: int) -> dict[str, tuple[int, ...]]:
    """What a weights file of this architecture must hold, in a fixed order."""
    return {
        path: tuple(array.shape)
        for path, array in parameters(abstract_model(architecture, num_classes)).items()
    }


def fill(module: nnx.Module, value: Callable[[str], jax.Array]) -> nnx.Module:
    """The same network with `value(path)` as its parameters."""
    graphdef, state = nnx.split(module)
    filled = [
        (path, variable.replace(value("/".join(map(str, path)))))
        for path, variable in nnx.to_flat_state(state)
    ]
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


def load_model(
    name: str | None, weights: Path | None = None, tag: str | None = None, dtype: str = "float32"
) -> LoadedModel:
    """Loads a model.

    Args:
      name: an architecture; or "package.module:function", whose result is a Flax module that
        gives ModelOutputs and has `head`, and may have `preprocessing`; or None: what the
        weights file says.
      weights: a weights file; of a model of the user's own, may be None.
      tag: takes the preprocessing of this tag instead of the weights file's.
      dtype: of the backbone's arithmetic; the head stays float32.

    Raises:
      UsageError: unknown name or tag; file missing, damaged, or of another architecture.
    """
    if name is not None and ":" in name:
        return _own_model(name, weights, tag, dtype)
    if name is not None:
        choose("--model", name, ARCHITECTURES)
    if weights is None:
        raise UsageError("--weights", "none", f"a weights file for {name or 'the model'}", CONVERT)
    weights = Path(weights)
    file, info = open_weights(weights)
    if name is not None and name != info.architecture:
        raise UsageError("--weights", f"{weights} ({info.architecture})", f"weights for {name}")
    choose("--weights", info.architecture, ARCHITECTURES)
    module = abstract_model(info.architecture, info.num_classes)
    module = fill(module, _reader(file, weights, parameters(module), dtype))
    preprocessing = find_tag(info.architecture, tag).preprocessing if tag else info.preprocessing
    return LoadedModel(
        module, preprocessing, info.architecture, tag or info.tag, sha256(weights), dtype
    )


def find_tag(architecture: str, tag: str) -> WeightTag:
    tags = ARCHITECTURES[choose("--model", architecture, ARCHITECTURES)].tags
    return tags[choose("--tag", tag, tags)]


def _reader(file, path: Path, wanted: dict, dtype: str) -> Callable[[str], jax.Array]:
    """Checks names and shapes, all of them, before the first array is read."""
    names = set(file.keys())
    problems = [f"lacks {name}" for name in wanted if name not in names]
    problems += [f"has {name} besides" for name in sorted(names - set(wanted))]
    for name in names & set(wanted):
        shape = tuple(file.get_slice(name).get_shape())
        if shape != tuple(wanted[name].shape):
            problems.append(f"{name} is {shape}, not {tuple(wanted[name].shape)}")
    if problems:
        shown = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
        remedy = "Convert the checkpoint again with this version."
        raise UsageError("--weights", f"{path} ({shown})", "this architecture's parameters", remedy)

    def read(name: str) -> jax.Array:
        kept = jnp.float32 if name.startswith("classifier/") else jnp.dtype(dtype)
        return jnp.asarray(file.get_tensor(name)).astype(kept)

    return read


def _own_model(name: str, weights: Path | None, tag: str | None, dtype: str) -> LoadedModel:
    """Imports `package.module` (the working folder included), calls `function()`."""
    if weights is not None or tag is not None:
        raise UsageError(
            "--weights" if weights is not None else "--tag",
            weights or tag,
            f"nothing beside {name}",
            "A model of your own loads its own weights.",
        )
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, "")
    try:
        function = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        wanted = "package.module:function that can be imported"
        raise UsageError("--model", f"{name} ({error})", wanted) from error
    finally:
        sys.path.remove("")
    module = function()
    lacking = [part for part in ("__call__", "head") if not hasattr(module, part)]
    if not isinstance(module, nnx.Module) or lacking:
        wanted = "a function that returns a flax.nnx.Module with __call__(images) and head"
        raise UsageError("--model", f"{name}, which gave {type(module).__name__}", wanted)
    preprocessing = getattr(module, "preprocessing", None) or Preprocessing(256, 224)
    if not isinstance(preprocessing, Preprocessing):
        raise UsageError("preprocessing", preprocessing, "a jaxood.preprocessing.Preprocessing")
    if dtype != "float32":
        raise UsageError(
            "--dtype", dtype, f"float32 for {name}", "Your function chooses its types."
        )
    return LoadedModel(module, preprocessing, name, "own", _parameters_hash(module), dtype)


def _parameters_hash(module: nnx.Module) -> str:
    """SHA-256 over the parameters, for fingerprints of models without a file."""
    digest = hashlib.sha256()
    for path, array in parameters(module).items():
        digest.update(path.encode() + np.asarray(array).tobytes())
    return digest.hexdigest()


def save_weights(
    path: Path,
    module: Backbone,
    architecture: str,
    tag: str,
) -> None:
    """Writes the parameters of a filled network as a weights file; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = parameters(module)
    info = WeightsInfo(
        architecture,
        tag,
        find_tag(architecture, tag).preprocessing,
        num_classes=module.classifier.bias.shape[0],
        converter=f"jaxood {version('jaxood')}",
    )
    shapes = {name: array.shape for name, array in arrays.items()}
    write_weights(path, shapes, lambda name: np.asarray(arrays[name]), info)
