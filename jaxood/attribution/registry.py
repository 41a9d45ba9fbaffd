"""Attributions by name, and whatever may stand for one."""

from collections.abc import Sequence

from jaxood.attribution.ablation_cam import AblationCAM
from jaxood.attribution.baselines import RandomCAM, Sobel
from jaxood.attribution.coalitions import Banzhaf, Shapley
from jaxood.attribution.eigen_cam import EigenCAM
from jaxood.attribution.factorisation import FeatureFactorisation
from jaxood.attribution.finer_cam import FinerCAM
from jaxood.attribution.full_grad import FullGrad
from jaxood.attribution.grad_cam_plus_plus import GradCAMPlusPlus, SmoothGradCAMPlusPlus
from jaxood.attribution.gradient_cam import (
    EigenGradCAM,
    ElementwiseGradCAM,
    GradCAM,
    HiResCAM,
    LayerCAM,
    XGradCAM,
)
from jaxood.attribution.guided import GuidedBackprop
from jaxood.attribution.integrated_gradients import IntegratedGradients
from jaxood.attribution.interactions import Interaction
from jaxood.attribution.leave_one_out import LeaveOneOut
from jaxood.attribution.occlusion import Occlusion
from jaxood.attribution.pixel_gradients import InputXGradient, Saliency
from jaxood.attribution.score_cam import IntegratedScoreCAM, ScoreCAM, SmoothedScoreCAM
from jaxood.attribution.smoothgrad import SmoothGrad
from jaxood.attribution.surrogate import SurrogateValue
from jaxood.context import Attribution
from jaxood.errors import UsageError
from jaxood.spelling import build, class_of, name_of, parameters_of, read

ATTRIBUTIONS: dict[str, type[Attribution]] = {
    kind.name: kind
    for kind in (
        Banzhaf,
        Shapley,
        SurrogateValue,
        LeaveOneOut,
        Interaction,
        GradCAM,
        XGradCAM,
        LayerCAM,
        ElementwiseGradCAM,
        HiResCAM,
        EigenGradCAM,
        GradCAMPlusPlus,
        SmoothGradCAMPlusPlus,
        FinerCAM,
        ScoreCAM,
        SmoothedScoreCAM,
        IntegratedScoreCAM,
        AblationCAM,
        EigenCAM,
        Occlusion,
        Saliency,
        InputXGradient,
        IntegratedGradients,
        SmoothGrad,
        FullGrad,
        GuidedBackprop,
        FeatureFactorisation,
        RandomCAM,
        Sobel,
    )
}


AnyAttribution = str | Attribution | type[Attribution]


def attribution(method: object, argument: str = "method", /, **parameters: object) -> Attribution:
    """One attribution, with `parameters` set.

    Args:
      method: "score-cam", "score-cam[chunk=4]", "package.module:Name" of an attribution of the
        user's, or the object or class itself.
      argument: what an error calls `method`.

    Raises:
      UsageError: for an unknown name, something else than the above, or a parameter that the
        attribution does not have.
    """
    if isinstance(method, str):
        name, values = read(method, argument)
        return build(name, class_of(name, ATTRIBUTIONS, Attribution, argument), values | parameters)
    if isinstance(method, type) and issubclass(method, Attribution):
        return build(name_of(method), method, parameters)
    if not isinstance(method, Attribution):
        raise UsageError(argument, repr(method), "a name, an import path or a jaxood.Attribution")
    if not parameters:
        return method
    return build(name_of(method), type(method), parameters_of(method) | parameters)


def attributions(methods: Sequence[AnyAttribution], **parameters: object) -> dict[str, Attribution]:
    """Several, by label, with each parameter (None: as it is) set on those that have it.

    Raises:
      UsageError: for an unknown name, or a parameter that none of them has.
    """
    plain = [attribution(method) for method in methods]
    chosen = {name: value for name, value in parameters.items() if value is not None}
    for name, value in chosen.items():
        if not any(name in parameters_of(one) for one in plain):
            without = ", ".join(one.key for one in plain)
            raise UsageError(name, repr(value), f"a method that has it, which {without} has not")
    made = [
        attribution(one, "method", **{k: v for k, v in chosen.items() if k in parameters_of(one)})
        for one in plain
    ]
    return {one.key: one for one in made}
