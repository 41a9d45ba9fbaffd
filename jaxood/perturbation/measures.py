"""Faithfulness measures by name, and whatever may stand for one."""

from collections.abc import Sequence

from jaxood.errors import UsageError
from jaxood.perturbation.average_drop import AverageDrop, DropInDeletion, Increase
from jaxood.perturbation.complexity import Complexity, Sparseness
from jaxood.perturbation.infidelity import Infidelity
from jaxood.perturbation.insertion import Deletion, Insertion
from jaxood.perturbation.localisation import AttributionIoU, EnergyPointing, PointingGame
from jaxood.perturbation.measure import Measure
from jaxood.perturbation.monotonicity import Monotonicity, MonotonicityCorrelation
from jaxood.perturbation.pixel_flipping import PixelFlipping
from jaxood.perturbation.random_subsets import FaithfulnessCorrelation, SensitivityN
from jaxood.perturbation.randomisation import ParameterRandomisation
from jaxood.perturbation.region_perturbation import RegionPerturbation, Selectivity
from jaxood.perturbation.road import Road
from jaxood.perturbation.sensitivity import Sensitivity
from jaxood.spelling import build, class_of, name_of, read

MEASURES: dict[str, type[Measure]] = {
    kind.name: kind
    for kind in (
        Insertion,
        Deletion,
        PixelFlipping,
        RegionPerturbation,
        Selectivity,
        SensitivityN,
        FaithfulnessCorrelation,
        Infidelity,
        Monotonicity,
        MonotonicityCorrelation,
        AverageDrop,
        Increase,
        DropInDeletion,
        Road,
        Sensitivity,
        ParameterRandomisation,
        Sparseness,
        Complexity,
        PointingGame,
        EnergyPointing,
        AttributionIoU,
    )
}

AnyMeasure = str | Measure | type[Measure]


def measure(source: object, argument: str = "measures") -> Measure:
    """One measure.

    Args:
      source: "insertion", "insertion[baseline=mean]", "package.module:Name" of one of the user's,
        or the object or class itself.

    Raises:
      UsageError: for anything else, and for a parameter that it does not have.
    """
    if isinstance(source, str):
        name, values = read(source, argument)
        return build(name, class_of(name, MEASURES, Measure, argument), values)
    if isinstance(source, type) and issubclass(source, Measure):
        return build(name_of(source), source, {})
    if not isinstance(source, Measure):
        wanted = "a name, an import path or a jaxood.perturbation.measure.Measure"
        raise UsageError(argument, repr(source), wanted)
    return source


def measures_of(sources: Sequence[AnyMeasure]) -> dict[str, Measure]:
    """Several, by key; those that are the same come once."""
    found = map(measure, sources)
    return {one.key: one for one in found}
