"""Parameter randomisation: whether a map still looks the same when the model has forgotten all.

Adebayo et al., "Sanity checks for saliency maps" (NeurIPS 2018), the cascading test (MPRT): the
parameters are randomised from the head downwards, stage by stage, each together with those before
it, and the map of the same class is computed again:

    value = mean over depths of Spearman's correlation of both maps, values as they are

Low is good: a map that stays the same does not depend on what the model has learned. Randomised
here means permuted within each array, so that a network whose batch norm is folded into its
convolutions keeps the scale of its activations; Adebayo et al. and Quantus draw anew from the
initialisation. Depths are evenly spaced among the stages; at the last all parameters are random.
The maps are those of the layer, before they are enlarged.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import numpy as np
from flax import nnx

from jaxood.context import StagedModel
from jaxood.errors import require
from jaxood.models.registry import LoadedModel
from jaxood.parallel import rounded_up
from jaxood.perturbation.measure import Better, Finding, Laboratory, Measure, Reading
from jaxood.perturbation.statistics import spearman
from jaxood.perturbation.subject import Subject
from jaxood.runner.runner import Runner


@dataclass(frozen=True)
class ParameterRandomisation(Measure):
    """How much a map keeps of its order while the model's parameters are shuffled, top down.

    Attributes:
      depths: how often it is looked at, from a few stages to all of them.
      draw: another number shuffles otherwise, under the same seed.
    """

    name: ClassVar[str] = "parameter-randomisation"
    paper: ClassVar[str] = "Adebayo et al., NeurIPS 2018"
    columns: ClassVar[Mapping[str, Better]] = {"": "low"}
    again: ClassVar[bool] = True

    depths: int = 5
    draw: int = 0

    def __post_init__(self):
        require(1 <= self.depths <= 1000, f"{self.name}.depths", self.depths, "1 to 1000")
        require(self.draw >= 0, f"{self.name}.draw", self.draw, "at least 0")

    @property
    def axis(self) -> Sequence[float]:
        """The share of the stages whose parameters are random."""
        return tuple((k + 1) / self.depths for k in range(self.depths))

    def work(self, maps: int) -> int:
        return (self.depths + 1) * maps

    def findings(self, laboratory: Laboratory, subjects: Sequence[Subject]) -> Iterator[Finding]:
        runner, model = laboratory.runner, laboratory.runner.model
        methods = {method for subject in subjects for method in subject.maps}
        chosen = [one for name, one in laboratory.attributions.items() if name in methods]
        size = rounded_up(len(subjects), runner.mesh)
        rows = [subjects[min(i, len(subjects) - 1)] for i in range(size)]
        images = np.stack([subject.image for subject in rows])
        target = np.array([subject.target for subject in rows], np.int32)
        key, step, stages = jax.random.key(laboratory.seed), runner.step(chosen), stages_of(model)
        found = []
        for share in (0.0, *self.axis):
            shuffled = stages[: round(share * len(stages))]
            seeds = laboratory.seed, self.draw
            random = Runner(with_shuffled(model, shuffled, seeds), runner.mesh)
            found.append(jax.device_get(random.run(step, (images, target), (key,)).extras))
            laboratory.told(len(subjects) * len(chosen))
        for row, subject in enumerate(subjects):
            for method in subject.maps:
                first, *others = (maps[method][row].ravel() for maps in found)
                curve = [spearman(first, other) for other in others]
                yield self.finding(
                    subject, method, Reading({"": float(np.mean(curve))}, {"": curve})
                )


def stages_of(model: LoadedModel) -> list[str]:
    """Names of groups of parameters from the head downwards; one for a model without stages."""
    if not isinstance(model.module, StagedModel):
        return [""]
    return ["classifier", *reversed(model.module.stage_names)]


def with_shuffled(model: LoadedModel, stages: Sequence[str], seeds: tuple[int, ...]) -> LoadedModel:
    """The model with the parameters of these stages permuted, each array in itself."""
    graphdef, state = nnx.split(model.module)

    def chosen(path: tuple) -> bool:
        return stages == [""] or (path[1] if path[0] == "stages" else path[0]) in stages

    def shuffled(path: tuple, variable):
        if not (isinstance(variable, nnx.Param) and chosen(path)):
            return variable
        array = np.asarray(variable.get_value())
        number = zlib.crc32("/".join(map(str, path)).encode())
        mixed = np.random.default_rng([*seeds, number]).permutation(array.ravel())
        return variable.replace(jax.device_put(mixed.reshape(array.shape)))

    flat = [(path, shuffled(path, variable)) for path, variable in nnx.to_flat_state(state)]
    return replace(model, module=nnx.merge(graphdef, nnx.from_flat_state(flat)))
