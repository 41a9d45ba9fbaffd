"""Architectures and the weight tags that are published for them."""

from collections.abc import Callable
from dataclasses import dataclass

from flax import nnx

from jaxood.models.backbone import Backbone
from jaxood.preprocessing import Preprocessing


@dataclass(frozen=True)
class WeightTag:
    """A published set of weights: how its images are prepared, where its checkpoint comes from.

    Attributes:
      layout: name of the conversion rules for its keys ("torchvision", "timm"...).
      checkpoints: published file names, most usual first.
      top1: published ImageNet top-1 accuracy in per cent.
    """

    preprocessing: Preprocessing
    layout: str
    checkpoints: tuple[str, ...]
    num_classes: int = 1000
    top1: float | None = None


@dataclass(frozen=True)
class Architecture:
    """A network by name: `build(num_classes)` gives it with unfilled (zero) weights."""

    build: Callable[[int], Backbone]
    tags: dict[str, WeightTag]


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to use, and what a run must know of it.

    Attributes:
      name: architecture name, or the import path of a model of the user's own.
      weights_hash: SHA-256 of the weights file, for fingerprints.
      dtype: of the backbone's arithmetic; pooled features and head are float32 always.
    """

    module: nnx.Module
    preprocessing: Preprocessing
    name: str
    tag: str
    weights_hash: str
    dtype: str = "float32"
