"""Attribution methods by name: what a command's --methods may say."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, Protocol

from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxood.attribution.ablation_cam import AblationCAM
from jaxood.attribution.baselines import RandomCAM, Sobel
from jaxood.attribution.coalitions import position_values, require_mean_pooling
from jaxood.attribution.eigen_cam import EigenCAM
from jaxood.attribution.factorisation import FeatureFactorisation
from jaxood.attribution.full_grad import FullGrad
from jaxood.attribution.grad_cam_plus_plus import GradCAMPlusPlus, SmoothGradCAMPlusPlus
from jaxood.attribution.gradient_cam import WEIGHTINGS, GradientCAM
from jaxood.attribution.guided import GuidedBackprop
from jaxood.attribution.score_cam import ScoreCAM
from jaxood.attribution.split import feature_map
from jaxood.attribution.surrogate import (
    RESNET50,
    TINY_VIT,
    SurrogateTraining,
    surrogate_values,
)
from jaxood.errors import UsageError, choose
from jaxood.outputs import NormLinearHead


class AttributionMethod(Protocol):
    """A frozen dataclass of parameters.

    Pure and jit-able; a map depends on its own image, target and the key only. Most give one
    value a position of the layer, some one a pixel.
    """

    def __call__(
        self,
        model: nnx.Module,
        images: Float[Array, "n h w 3"],
        target: Int[Array, " n"],
        key: PRNGKeyArray,
    ) -> Float[Array, "n h2 w2"]:
        """Maps of normalised images, for a class index each; higher means more relevant."""
        ...


@dataclasses.dataclass(frozen=True)
class CoalitionValue:
    """Banzhaf or Shapley values of the feature map's positions (SOFA).

    Attributes:
      coalitions: about how many; "auto": until the positions to keep no longer change.
      explain: what a coalition is worth: the target's probability, or the energy, which asks for
        no target.
    """

    value: Literal["banzhaf", "shapley"]
    coalitions: int | Literal["auto"] = 240
    explain: Literal["probability", "energy"] = "probability"

    def __call__(
        self,
        model: nnx.Module,
        images: Float[Array, "n h w 3"],
        target: Int[Array, " n"],
        key: PRNGKeyArray,
    ) -> Float[Array, "n h2 w2"]:
        require_mean_pooling(getattr(model, "pooling", "mean"), "methods")
        of = "energy" if self.explain == "energy" else target
        features = feature_map(model, images)
        return position_values(features, model.head, key, self.value, self.coalitions, of).values


@dataclasses.dataclass(frozen=True)
class SurrogateValue:
    """Banzhaf values of a network trained for each image, as the original SOFA code has them.

    Attributes:
      training: None: the original's for ResNet-50, or for TinyViT where a norm precedes the head.
    """

    training: SurrogateTraining | None = None

    def __call__(
        self,
        model: nnx.Module,
        images: Float[Array, "n h w 3"],
        target: Int[Array, " n"],
        key: PRNGKeyArray,
    ) -> Float[Array, "n h2 w2"]:
        require_mean_pooling(getattr(model, "pooling", "mean"), "methods")
        features, head = feature_map(model, images), model.head
        training = self.training or (TINY_VIT if isinstance(head, NormLinearHead) else RESNET50)
        return surrogate_values(features, head, target, key, training)


ATTRIBUTIONS: dict[str, AttributionMethod] = {
    "banzhaf": CoalitionValue("banzhaf"),
    "shapley": CoalitionValue("shapley"),
    "pie": SurrogateValue(),
    **{name: GradientCAM(name) for name in WEIGHTINGS},
    "grad-cam++": GradCAMPlusPlus(),
    "smoothgrad-cam++": SmoothGradCAMPlusPlus(),
    "score-cam": ScoreCAM(),
    "ablationcam": AblationCAM(),
    "eigencam": EigenCAM(),
    "fullgrad": FullGrad(),
    "guided-backprop": GuidedBackprop(),
    "dff": FeatureFactorisation(),
    "randomcam": RandomCAM(),
    "sobel": Sobel(),
}


def attribution_methods(names: list[str], **parameters: object) -> Mapping[str, AttributionMethod]:
    """The named methods, with each parameter (None: its default) set where a method has it.

    Raises:
      UsageError: for an unknown name, or a parameter that none of the methods has.
    """
    methods = {name: ATTRIBUTIONS[choose("--methods", name, ATTRIBUTIONS)] for name in names}
    chosen = {name: value for name, value in parameters.items() if value is not None}
    fields = {
        name: {field.name for field in dataclasses.fields(method)}
        for name, method in methods.items()
    }
    for parameter in chosen.keys() - set().union(*fields.values()):
        wanted = f"a method that has it, which {', '.join(names)} has not"
        raise UsageError(parameter, repr(chosen[parameter]), wanted)
    return {
        name: dataclasses.replace(
            method, **{key: value for key, value in chosen.items() if key in fields[name]}
        )
        for name, method in methods.items()
    }
