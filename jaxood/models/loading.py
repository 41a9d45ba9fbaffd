"""From a weights file, or a Flax module, to a model that is ready to use."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxood.data.class_names import class_names
from jaxood.errors import UsageError, choose, require
from jaxood.models.arithmetic import ARITHMETIC
from jaxood.models.backbone import Backbone, CosineClassifier, LinearClassifier
from jaxood.models.contract import check_model
from jaxood.models.registry import ARCHITECTURES, LoadedModel, find_tag
from jaxood.models.weights_file import WeightsInfo, checked_sha256, open_weights, write_weights
from jaxood.preprocessing import Preprocessing


def abstract_model(
    architecture: str, num_classes: int, head: str = "", negatives: int = 0
) -> Backbone:
    """The network with shapes in the place of arrays: no memory, no time.

    Args:
      head, negatives: as those of `WeightsInfo`.
    """

    def build() -> Backbone:
        network = ARCHITECTURES[architecture].build(num_classes)
        if head or negatives:
            channels = network.classifier.head().kernel.shape[0]
            network.classifier = (
                LinearClassifier(channels, num_classes)
                if head
                else CosineClassifier(channels, num_classes, negatives)
            )
        return network

    return nnx.eval_shape(build)


def network_of(info: WeightsInfo) -> Backbone:
    """The network of a weights file, with shapes in the place of arrays."""
    return abstract_model(info.architecture, info.num_classes, info.head, info.negatives)


def parameters(module: nnx.Module) -> dict[str, jax.Array | jax.ShapeDtypeStruct]:
    """The parameters of a model by path, "stages/layer1.0/conv1/kernel"."""
    flat = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {"/".join(map(str, path)): variable.get_value() for path, variable in flat}


def parameter_shapes(network: Backbone) -> dict[str, tuple[int, ...]]:
    """What a weights file of this network must hold, in a fixed order."""
    return {path: tuple(array.shape) for path, array in parameters(network).items()}


def fill(module: Backbone, value: Callable[[str], jax.Array]) -> Backbone:
    """The same network with `value(path)` as its parameters."""
    graphdef, state = nnx.split(module)
    filled = [
        (path, variable.replace(value("/".join(map(str, path)))))
        for path, variable in nnx.to_flat_state(state)
    ]
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


def kept_as(path: str, dtype: str) -> jnp.dtype:
    """The type of a parameter, in a backbone of `dtype`."""
    return jnp.dtype("float32" if path.startswith("classifier/") else dtype)


def load_weights(
    weights: Path,
    arch: str | None = None,
    tag: str | None = None,
    dtype: str = "float32",
    names: Sequence[str] = (),
) -> LoadedModel:
    """Loads a weights file.

    Args:
      arch: the architecture that it must be of; None: what the file says.
      tag: takes the preprocessing of this tag instead of the weights file's.
      dtype: of the backbone's arithmetic, of `ARITHMETIC`; the head stays float32.
      names: of the classes, instead of the file's.

    Raises:
      UsageError: unknown name or tag; file missing, damaged, without a head, or of another
        architecture.
    """
    file, info = open_weights(weights)
    digest = checked_sha256(weights)
    if arch is not None and arch != info.architecture:
        raise UsageError("weights", f"{weights} ({info.architecture})", f"weights for {arch}")
    choose("weights", info.architecture, ARCHITECTURES)
    arithmetic = ARITHMETIC[choose("dtype", dtype, ARITHMETIC)]
    got = f"{weights}, a backbone without a head"
    require(info.num_classes, "weights", got, "one with a head", "Make it one with jaxood head")
    network = network_of(info)
    network.products = arithmetic.products
    module = fill(network, _reader(file, weights, parameters(network), arithmetic.arrays))
    preprocessing = find_tag(info.architecture, tag).preprocessing if tag else info.preprocessing
    return LoadedModel(
        module,
        preprocessing,
        info.architecture,
        tag or info.tag,
        digest,
        dtype,
        network.pooling,
        checked_names(names or info.class_names, info.num_classes),
    )


def load_backbone(weights: Path) -> tuple[LoadedModel, WeightsInfo]:
    """Loads a weights file for its features; what has no head gets one of a class, all zeros.

    Raises:
      UsageError: as `load_weights`.
    """
    file, info = open_weights(weights)
    if info.num_classes:
        return load_weights(weights), info
    digest = checked_sha256(weights)
    choose("weights", info.architecture, ARCHITECTURES)
    read = _reader(file, weights, parameters(network_of(info)), "float32")
    network = network_of(replace(info, num_classes=1))
    shapes = parameter_shapes(network)

    def value(path: str) -> jax.Array:
        found = read(path)
        return found if found.shape == shapes[path] else jnp.zeros(shapes[path])

    module, pooling = fill(network, value), network.pooling
    kept = info.preprocessing, info.architecture, info.tag
    return LoadedModel(module, *kept, digest, pooling=pooling, class_names=("",)), info


def checked_names(names: Sequence[str], classes: int) -> tuple[str, ...]:
    """One name a class; ImageNet's, or "class 0"... where none are given.

    Raises:
      UsageError: when there are fewer or more of them than classes.
    """
    if not names:
        return class_names(classes)
    if len(names) != classes:
        raise UsageError("classes", f"{len(names)} names", f"{classes}, one a class of the model")
    return tuple(names)


def own_model(
    module: nnx.Module,
    name: str,
    names: Sequence[str] = (),
) -> LoadedModel:
    """A model of the user's own: `preprocessing` and `class_names` are read off it, or defaults.

    Raises:
      UsageError: for what is no such model; see `jaxood.models.contract.check_model`.
    """
    preprocessing = getattr(module, "preprocessing", None) or Preprocessing(256, 224)
    if not isinstance(preprocessing, Preprocessing):
        raise UsageError("preprocessing", preprocessing, "a jaxood.Preprocessing")
    facts = check_model(module, preprocessing)
    names = names or getattr(module, "class_names", ())
    return LoadedModel(
        module,
        preprocessing,
        name,
        "own",
        _parameters_hash(module),
        "float32",
        facts.pooling,
        checked_names(names, facts.classes),
    )


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
        raise UsageError("weights", f"{path} ({shown})", "this architecture's parameters", remedy)

    def read(name: str) -> jax.Array:
        # Not jnp.asarray, which compiles a program for every shape.
        array = file.get_tensor(name)
        if not np.isfinite(array).all():
            raise UsageError("weights", f"{path} ({name} is not finite)", "finite numbers")
        return jax.device_put(array.astype(kept_as(name, dtype), copy=False))

    return read


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
    arrays = parameters(module)
    info = WeightsInfo(
        architecture,
        tag,
        find_tag(architecture, tag).preprocessing,
        num_classes=module.head.kernel.shape[1],
        converter=f"jaxood {version('jaxood')}",
    )
    shapes = {name: array.shape for name, array in arrays.items()}
    write_weights(path, shapes, lambda name: np.asarray(arrays[name]), info)
