"""The one protocol on the device: a batch inside the compiled step, and what reads it there.

The step runs the backbone once and hands one `Context` to every extractor: an attribution, a
view, an input-gradient method are all `extractor(context) -> array`. The feature map, and the
layers that somebody asked for, live and die in there.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxood.errors import UsageError, choose, require
from jaxood.heads import Head
from jaxood.outputs import ModelOutputs
from jaxood.spelling import label, spelled_out

Pooling = Literal["mean", "class token", "other"]
SELECTIONS = ("ends", "last", "all")  # of layers; see `layers_of`


@runtime_checkable
class Model(Protocol):
    """A classifier: normalised NHWC images to outputs, through a head."""

    @property
    def head(self) -> Head: ...

    def __call__(self, images: Float[Array, "n h w 3"]) -> ModelOutputs: ...


@runtime_checkable
class StagedModel(Protocol):
    """A classifier whose layers have names; see `jaxood.models.backbone.Backbone`."""

    stage_names: tuple[str, ...]
    cam_layer: str
    block_ends: tuple[str, ...]

    @property
    def head(self) -> Head: ...

    def run(self, inputs: Array, start: str | None = None, stop: str | None = None) -> Array:
        """Runs the stages after `start` (None: from the images) up to and including `stop`."""
        ...

    def outputs(self, features: Array) -> ModelOutputs:
        """From what the last stage gave to outputs."""
        ...

    def spatial(self, activation: Array) -> Float[Array, "n h w c"]:
        """What a stage gave (a model of tokens: tokens) as a map."""
        ...

    def __call__(self, images: Float[Array, "n h w 3"]) -> ModelOutputs: ...


class Split(NamedTuple):
    """A batch at a layer, with the way from there to the logits.

    Attributes:
      activation: as the layer gave it (a model of tokens: tokens).
      tail: from such activations to logits.
      spatial: from such activations, or gradients with respect to them, to a map.
    """

    activation: Float[Array, "n ... c"]
    tail: Callable[[Float[Array, "n ... c"]], Float[Array, "n k"]]
    spatial: Callable[[Float[Array, "n ... c"]], Float[Array, "n h w c"]]


@dataclass(frozen=True)
class Context:
    """One batch inside the compiled step.

    Attributes:
      images: normalised.
      outputs: with the feature map; extras are empty.
      model: to run again on other images; `outputs` are its outputs on `images`.
      target: the class that attributions explain; of each image.
      key: of the run's seed; the same for every batch, so that no result depends on its batch.
      pooling: how pooled features come from the feature map.
      layers: activations of the stages that extractors asked for, by name.
      reduced: what extractors over layers have kept of these already, by their keys.
    """

    images: Float[Array, "n h w 3"]
    outputs: ModelOutputs
    model: Model
    target: Int[Array, " n"]
    key: PRNGKeyArray
    pooling: Pooling = "mean"
    layers: Mapping[str, Float[Array, "n ..."]] = field(default_factory=dict)
    reduced: Mapping[str, Float[Array, "n ..."]] = field(default_factory=dict)

    @property
    def head(self) -> Head:
        return self.model.head

    @property
    def feature_map(self) -> Float[Array, "n h w c"]:
        """The model's last spatial activations, in float32.

        Raises:
          UsageError: for a model of the user's own that gives none.
        """
        features = self.outputs.feature_map
        if features is None:
            raise UsageError("model", "outputs without a feature map", "ModelOutputs with one")
        return jnp.asarray(features, jnp.float32)

    def require_mean_pooling(self, name: str) -> None:
        """Refuses models whose pooled features are no mean over positions, for method `name`.

        Raises:
          UsageError: unless `pooling` is "mean".
        """
        if self.pooling == "mean":
            return
        token = self.pooling == "class token"
        raise UsageError(
            f"method {name}",
            "a model that classifies its class token"
            if token
            else "a model whose pooled features are not the mean of its feature map",
            "a model that pools by the mean over positions",
            "Positions are not what is added up there; take another method, such as a CAM",
        )

    def at(self, layer: str | None = None) -> Split:
        """The batch at a layer (None: the model's own choice for activation maps).

        A model without named stages has one layer, its feature map.

        Raises:
          UsageError: for a layer that the model does not have, a model without a feature map.
        """
        model = self.model
        if not isinstance(model, StagedModel):
            if layer:
                raise UsageError("layer", repr(layer), "none, as this model has no named stages")
            head = self.head
            return Split(self.feature_map, lambda a: head(a.mean(axis=(1, 2))), lambda a: a)
        name = stage_of(model, layer)

        def tail(activation):
            return model.outputs(model.run(activation, start=name)).logits

        return Split(self._activation(model, name), tail, model.spatial)

    def _activation(self, model: StagedModel, name: str) -> Array:
        return self.layers[name] if name in self.layers else model.run(self.images, stop=name)

    def maps(self, layers: str) -> list[Float[Array, "n _ _ _"]]:
        """What the layers of `layers_of` gave, in float32; in their order in the network.

        A model without named stages has its feature map alone.

        Raises:
          UsageError: for a layer that the model does not have, a model without a feature map.
        """
        model = self.model
        if not isinstance(model, StagedModel):
            known = layers in SELECTIONS
            require(known, "layers", repr(layers), "none by name: this model has no named stages")
            return [self.feature_map]
        return [as_map(model, self._activation(model, name)) for name in layers_of(model, layers)]


def stage_of(model: StagedModel, layer: str | None) -> str:
    """The stage that `layer` names; None: the model's own choice for activation maps."""
    return choose("layer", layer, model.stage_names) if layer else model.cam_layer


def layers_of(model: StagedModel, layers: str) -> tuple[str, ...]:
    """The stages that `layers` names, in their order in the network.

    Args:
      layers: "ends", the last of each of the network's blocks; "last"; "all"; or names joined by
        "/".

    Raises:
      UsageError: for a layer that the model does not have.
    """
    if layers in SELECTIONS:
        names = {"all": model.stage_names, "ends": model.block_ends}
        return names.get(layers, model.stage_names[-1:])
    chosen = {choose("layers", name, model.stage_names) for name in layers.split("/")}
    return tuple(name for name in model.stage_names if name in chosen)


def as_map(model: StagedModel, activation: Float[Array, "n ..."]) -> Float[Array, "n _ _ _"]:
    """What a stage gave as a map, in float32."""
    return jnp.asarray(model.spatial(activation), jnp.float32)


class Extractor(ABC):
    """Keeps a small array of each image that needs the feature map, a layer or a gradient.

    A frozen dataclass, every field with a default. Pure, and per image: a row of the result
    depends on the same row of the batch only.

    Attributes:
      name: what methods and files call it; one of the user's own is called by its import path.
      version: rises when the result changes: stored results of older versions are not used.
      random: whether it draws from the context's key.
      needs_layer: whether it reads the stage that its field `layer` names.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    needs_layer: ClassVar[bool] = False

    @property
    def random(self) -> bool:
        return False

    @abstractmethod
    def __call__(self, context: Context) -> Float[Array, "n ..."]: ...

    @property
    def key(self) -> str:
        """What its array is called among the extras: its name, and parameters changed."""
        return label(self)

    def __str__(self) -> str:
        return spelled_out(self)

    def stages(self, model: StagedModel) -> tuple[str, ...]:
        """The layers of a model whose activations it reads."""
        return (stage_of(model, getattr(self, "layer", None)),) if self.needs_layer else ()

    def identity(self) -> str:
        """All that its result depends on beside model, images and seed."""
        values = (getattr(self, one.name) for one in fields(self))  # type: ignore[arg-type]
        shown = [v.identity() if isinstance(v, Extractor) else repr(v) for v in values]
        return (
            f"{type(self).__module__}.{type(self).__qualname__}({', '.join(shown)}) {self.version}"
        )


class LayerExtractor(Extractor):
    """Keeps a small array of each image's activations at several layers.

    They are reduced in the forward pass itself, a few images at a time, and die there.

    Attributes:
      layers: a field: see `layers_of`.
    """

    layers: str

    @abstractmethod
    def reduce(self, maps: Sequence[Float[Array, "n _ _ _"]]) -> Float[Array, "n ..."]:
        """What is kept of the layers' maps, which are in float32."""
        ...

    def __call__(self, context: Context) -> Float[Array, "n ..."]:
        if self.key in context.reduced:
            return context.reduced[self.key]
        return self.reduce(context.maps(self.layers))


class Attribution(Extractor):
    """One value a position of a layer `[n, h, w]`, or a pixel; higher means more relevant.

    Attributes:
      paper: where it comes from.
    """

    paper: ClassVar[str] = ""


class View(Extractor):
    """Its result `[n, c]` takes the place of pooled features; the logits follow through the head.

    Attributes:
      paper: where it comes from.
    """

    paper: ClassVar[str] = ""

    @property
    def map(self) -> Extractor | None:
        """What tells, a value a position `[n, h, w]`, where its features come from."""
        return None
