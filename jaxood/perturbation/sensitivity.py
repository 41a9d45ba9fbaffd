"""Max- and avg-sensitivity: how far a map moves when the image moves a little.

Yeh et al., "On the (in)fidelity and sensitivity of explanations" (NeurIPS 2019), definition 3.1;
Bhatt, Weller, Moura (IJCAI 2020) for the mean. With x' the normalised image plus noise, uniform in
[-radius, radius] in each value,

    max (or mean) over x' of  ||map(x') - map(x)|| / ||map(x)||    (Euclidean)

low is good. Divided by the norm as captum and Quantus do; the definition is without. The maps are
those of the layer, before they are enlarged, of the class explained for x. A map that is the same
for all images is the least sensitive one: read this beside measures of faithfulness.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8, UInt32

from jaxood.context import Attribution, Model
from jaxood.errors import require
from jaxood.outputs import AnyArray
from jaxood.parallel import rounded_up
from jaxood.perturbation.measure import Better, Finding, Laboratory, Measure, Reading
from jaxood.perturbation.subject import Subject, image_number
from jaxood.runner.step import ExtractionStep

MOST_DRAWS = 1000


@dataclass(frozen=True)
class NoisyStep:
    """Adds noise to normalised images, and computes their maps; draw 0 is without."""

    step: ExtractionStep
    radius: float

    def __call__(
        self,
        model: Model,
        images: UInt8[Array, "n h w 3"],
        target: Int[Array, " n"],
        numbers: UInt32[Array, " n"],
        draws: Int[Array, " n"],
        noise_key: PRNGKeyArray,
        key: PRNGKeyArray,
    ) -> Mapping[str, Float[AnyArray, "n h2 w2"]]:
        """Maps by the extractor's key.

        Args:
          numbers, draws: what keys the noise of each row.
        """

        def noise(number: Array, draw: Array) -> Array:
            drawn = jax.random.fold_in(jax.random.fold_in(noise_key, number), draw)
            reach = jnp.where(draw > 0, self.radius, 0.0)
            return jax.random.uniform(drawn, images.shape[1:], minval=-reach, maxval=reach)

        normalised = self.step.preprocessing.normalise(images) + jax.vmap(noise)(numbers, draws)
        return self.step.extract(model, normalised.astype(self.step.dtype), target, key).extras


@dataclass(frozen=True)
class Sensitivity(Measure):
    """How far a map moves, at most and on average, when noise is added to the image.

    Attributes:
      radius: of the noise, in normalised values.
      draws: noisy images.
      draw: another number draws other noise, under the same seed.
    """

    name: ClassVar[str] = "sensitivity"
    paper: ClassVar[str] = "Yeh et al., NeurIPS 2019"
    columns: ClassVar[Mapping[str, Better]] = {"max": "low", "avg": "low"}
    again: ClassVar[bool] = True

    radius: float = 0.02
    draws: int = 10
    draw: int = 0

    def __post_init__(self):
        require(self.radius > 0, f"{self.name}.radius", self.radius, "above 0")
        wanted = f"1 to {MOST_DRAWS}"
        require(1 <= self.draws <= MOST_DRAWS, f"{self.name}.draws", self.draws, wanted)
        require(self.draw >= 0, f"{self.name}.draw", self.draw, "at least 0")

    def work(self, maps: int) -> int:
        return (self.draws + 1) * maps

    def findings(self, laboratory: Laboratory, subjects: Sequence[Subject]) -> Iterator[Finding]:
        methods = {method for subject in subjects for method in subject.maps}
        chosen = {name: one for name, one in laboratory.attributions.items() if name in methods}
        found = self._maps(laboratory, subjects, list(chosen.values()))
        for subject, rows in zip(subjects, found, strict=True):
            for method in subject.maps:
                maps = rows[method].reshape(self.draws + 1, -1).astype(np.float64)
                length = np.linalg.norm(maps[0])
                moved = np.linalg.norm(maps[1:] - maps[0], axis=1) / (length if length > 0 else 1.0)
                values = {"max": float(moved.max()), "avg": float(moved.mean())}
                yield self.finding(subject, method, Reading(values))

    def _maps(
        self,
        laboratory: Laboratory,
        subjects: Sequence[Subject],
        attributions: Sequence[Attribution],
    ) -> list[dict[str, Float[np.ndarray, "d h w"]]]:
        """Of each subject, its maps without noise and under each draw of it."""
        runner, each = laboratory.runner, self.draws + 1
        rows = np.array([(i, draw) for i in range(len(subjects)) for draw in range(each)])
        size = rounded_up(min(laboratory.batch_size, len(rows)), runner.mesh)
        step = NoisyStep(runner.step(attributions), self.radius)
        noise_key = jax.random.fold_in(jax.random.key(laboratory.seed), self.draw)
        keys = noise_key, jax.random.key(laboratory.seed)
        parts: list[dict[str, np.ndarray]] = []
        for first in range(0, len(rows), size):
            owners, draws = np.resize(rows[first : first + size], (size, 2)).T
            batch = (
                np.stack([subjects[i].image for i in owners]),
                np.array([subjects[i].target for i in owners], np.int32),
                np.array([image_number(subjects[i].id) for i in owners], np.uint32),
                draws.astype(np.int32),
            )
            parts.append(jax.device_get(runner.run(step, batch, keys)))
            laboratory.told(min(size, len(rows) - first) * len(attributions))
        joined = {
            one.key: np.concatenate([part[one.key] for part in parts])[: len(rows)]
            for one in attributions
        }
        return [
            {name: maps[i * each : (i + 1) * each] for name, maps in joined.items()}
            for i in range(len(subjects))
        ]
