"""A converted network against its publisher's own, at three depths, on the same numbers."""

import functools
import importlib
import re
import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxood.compiling import jit
from jaxood.conversion.checkpoint import Checkpoint
from jaxood.models.registry import LoadedModel
from jaxood.outputs import ModelOutputs

TOLERANCE = 1e-4  # of the largest value
IMAGES = 4


class Depths(NamedTuple):
    """What a torch classifier gives, as `ModelOutputs`."""

    feature_map: np.ndarray
    pooled: np.ndarray
    logits: np.ndarray


class Reference(NamedTuple):
    """Where the publisher's model comes from.

    Attributes:
      layout, architectures: which conversions it is for; the latter a regular expression.
      package: to be imported.
      build: package, architecture and number of classes to a torch module.
      features: see `torch_outputs`.
      rename: text in the checkpoint's keys, and what the model has in its place.
    """

    layout: str
    architectures: str
    package: str
    build: Callable
    features: str
    rename: tuple[str, str] = ("", "")


def _torchvision(package, architecture, classes):
    size = {"image_size": 384} if architecture.endswith("_384") else {}
    return getattr(package, architecture.removesuffix("_384"))(num_classes=classes, **size)


def _timm(name=None):
    return lambda package, architecture, classes: package.create_model(
        name or architecture, num_classes=classes
    )


def _timm_vit(package, architecture, classes):
    _, size, patch, *side = architecture.split("_")
    name = f"vit_{VIT_SIZES[size]}_patch{patch}_{side[0] if side else 224}"
    return package.create_model(name, num_classes=classes)


def _lite(package, architecture, classes):
    name = architecture.replace("_", "-")
    return package.EfficientNet.from_name(name, override_params={"num_classes": classes})


VIT_SIZES = {"s": "small", "b": "base"}
TORCHVISION = "torchvision.models"
LITE = "efficientnet_lite_pytorch"
REFERENCES = (
    Reference("torchvision", r"resnet\d+", TORCHVISION, _torchvision, "layer4"),
    Reference("supcon", r"resnet\d+", TORCHVISION, _torchvision, "layer4", ("encoder.", "")),
    Reference(
        "openood", r"resnet\d+", TORCHVISION, _torchvision, "layer4", ("shortcut", "downsample")
    ),
    Reference("torchvision", "mobilenet_v2", TORCHVISION, _torchvision, "features"),
    Reference("torchvision", "regnet_y_.*", TORCHVISION, _torchvision, "trunk_output"),
    Reference("torchvision", "vit_.*", TORCHVISION, _torchvision, "encoder.layers"),
    Reference("torchvision", "swin_.*", TORCHVISION, _torchvision, "norm"),
    Reference("torchvision", "convnext_.*", TORCHVISION, _torchvision, "features"),
    Reference("timm", "convnext_.*", "timm", _timm(), "stages"),
    Reference("timm", "vit_.*", "timm", _timm_vit, "into norm"),
    Reference("timm", "mobilenet_v2", "timm", _timm("mobilenetv2_100"), "bn2"),
    Reference("timm", "efficientnet_lite0", "timm", _timm("tf_efficientnet_lite0"), "bn2"),
    Reference("timm", "tiny_vit_.*", "timm", _timm(), "stages"),
    Reference(LITE, "efficientnet_lite0", LITE, _lite, "into _avg_pooling"),
)


def find_reference(architecture: str, layout: str) -> Reference | None:
    for reference in REFERENCES:
        if reference.layout == layout and re.fullmatch(reference.architectures, architecture):
            return reference
    return None


@functools.cache  # the schemas live as long as the library object
def _torchvision_schemas():
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def import_publisher(package: str):
    """Imports torchvision, timm or a part of them, beside a CPU build of torch as well.

    There torchvision lacks two compiled operators and fails; to be imported, and for everything
    but detection, it needs no more than their schemas.
    """
    try:
        return importlib.import_module(package)
    except RuntimeError:
        _torchvision_schemas()
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]  # what the failed import left behind
        return importlib.import_module(package)


def torch_outputs(network, features: str, images: np.ndarray) -> Depths:
    """The three depths of a torch classifier, NHWC in and out.

    Args:
      features: module whose output is the feature map or the tokens; "into NAME": its input.
    """
    import torch

    inputs = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    kept: list = []
    into = features.startswith("into ")
    module = network.get_submodule(features.removeprefix("into "))
    hook = module.register_forward_hook(
        lambda _, inputs, output: kept.append(inputs[0] if into else output)
    )
    with torch.inference_mode():
        logits = network.eval()(inputs).numpy()
    hook.remove()
    (found,) = kept
    found = found.numpy()
    if found.ndim == 3:  # the class token first
        side = round((found.shape[1] - 1) ** 0.5)
        grid = found[:, 1:].reshape(len(found), side, side, -1)
        return Depths(grid, found[:, 0], logits)
    if found.shape[-1] != found.shape[-2]:  # channels last already: maps are square
        return Depths(found, found.mean((1, 2)), logits)
    return Depths(found.transpose(0, 2, 3, 1), found.mean((2, 3)), logits)


def errors(ours: ModelOutputs, theirs: Depths) -> dict[str, float]:
    """Largest absolute difference over the largest value, at each depth."""
    pairs = {depth: (getattr(ours, depth), getattr(theirs, depth)) for depth in Depths._fields}
    return {
        depth: float(np.abs(np.asarray(a) - b).max() / np.abs(b).max())
        for depth, (a, b) in pairs.items()
    }


def run(model: nnx.Module, images: np.ndarray) -> ModelOutputs:
    """The model's outputs, compiled."""
    graphdef, state = nnx.split(model)
    return jit(lambda state, images: nnx.merge(graphdef, state)(images))(state, images)


def parity(
    load: Callable[[str], LoadedModel], source: Checkpoint, dropped: Iterable[str], layout: str
) -> dict:
    """Compares on noise, and tells how often bfloat16 gives the same class.

    Args:
      load: data type to the converted model.
      source: what it was converted from, for the publisher's model.
      dropped: prefixes of keys that it has no place for.
    """
    loaded = load("float32")
    reference = find_reference(loaded.name, layout)
    if reference is None:
        return {"skipped": f"no reference model is known for {loaded.name}, layout {layout}"}
    try:
        import torch

        package = import_publisher(reference.package)
    except Exception as error:  # a package may also fail to import beside this build of torch
        return {"skipped": f"{reference.package} cannot be imported: {error}"}
    classes = loaded.classes
    network = reference.build(package, loaded.name, classes)
    kept = [name for name in source.shapes if not name.startswith(tuple(dropped))]
    tensors = {name.replace(*reference.rename): torch.tensor(source.get(name)) for name in kept}
    network.load_state_dict(tensors)

    side = loaded.preprocessing.crop
    # Twice as wide as real images are, so that what saturates is compared as well.
    images = 2 * np.random.default_rng(0).standard_normal((IMAGES, side, side, 3), np.float32)
    theirs = torch_outputs(network, reference.features, images)
    found = errors(run(loaded.module, images), theirs)
    report = {
        "reference": f"{reference.package}, torch {torch.__version__}",
        "images": IMAGES,
        "relative_error": found,
        "tolerance": TOLERANCE,
        "passed": max(found.values()) <= TOLERANCE,
    }
    if report["passed"]:
        half = run(load("bfloat16").module, images.astype(jnp.bfloat16))
        same = np.asarray(half.logits).argmax(-1) == theirs.logits.argmax(-1)
        report["bfloat16_top1_agreement"] = float(same.mean())
    return report
