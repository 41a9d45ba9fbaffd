"""What a faithfulness measure is: it takes images with their maps, and gives numbers for each map.

Three kinds. A `RowMeasure` reads the class's probability on altered images: rows of one stream (see
`rows`). A `MapMeasure` needs the map alone. Others say themselves how they measure, with the model
and its attributions at hand.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxood.context import Attribution
from jaxood.perturbation.rows import Rows, Scene, probabilities
from jaxood.perturbation.subject import Map, Subject
from jaxood.runner.runner import Runner
from jaxood.spelling import label

Better = Literal["high", "low"]


class Reading(NamedTuple):
    """What a measure says of one map.

    Attributes:
      values: by column of the measure; empty where it does not apply to the image.
      curves: by name, values over `Measure.axis`.
    """

    values: Mapping[str, float]
    curves: Mapping[str, Sequence[float]] = {}


class Finding(NamedTuple):
    """A reading, and what it is of; `measure` is the measure's key."""

    id: str
    method: str
    measure: str
    target: int
    values: Mapping[str, float]
    curves: Mapping[str, Sequence[float]] = {}


@dataclass(frozen=True)
class Laboratory:
    """What measures are taken with.

    Attributes:
      attributions: of the maps that can be computed again, by method.
      batch_size: altered images a step over the whole mesh.
      told: of the work done since the last call, in the units of `Measure.work`.
    """

    runner: Runner
    attributions: Mapping[str, Attribution] = field(default_factory=dict)
    batch_size: int = 32
    seed: int = 0
    told: Callable[[float], None] = lambda work: None


class Measure(ABC):
    """A frozen dataclass, every field with a default.

    Attributes:
      name: what users call it; one of the user's own is called by its import path.
      paper: where it comes from.
      version: rises when the result changes: stored results of older versions are not used.
      columns: its numbers by name ("" where there is one), and what is good.
      again: computes maps again, so that it knows nothing of maps from elsewhere.
      places: needs to know where the object is.
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    version: ClassVar[int] = 1
    columns: ClassVar[Mapping[str, Better]] = {"": "high"}
    again: ClassVar[bool] = False
    places: ClassVar[bool] = False

    @property
    def key(self) -> str:
        """Its name, and parameters changed."""
        return label(self)

    @property
    def axis(self) -> Sequence[float]:
        """Where the points of its curves lie; () for a measure without."""
        return ()

    def identity(self) -> str:
        """All that a finding depends on beside model, image, map and seed."""
        values = [repr(getattr(self, one.name)) for one in fields(self)]  # type: ignore[arg-type]
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        return f"{kind}({', '.join(values)}) {self.version}"

    @property
    def variants(self) -> dict[str, list["Measure"]]:
        """The same measure otherwise: by what differs, "seed", "baseline" or "resolution"."""
        known = {one.name: getattr(self, one.name) for one in fields(self)}  # type: ignore[arg-type]

        def with_other(name: str, values: Iterable[object]) -> list["Measure"]:
            others = [value for value in values if value != known[name]]
            return [replace(self, **{name: value}) for value in others]  # type: ignore[type-var]

        found: dict[str, list[Measure]] = {}
        if "draw" in known:
            found["seed"] = with_other("draw", (known["draw"] + 1, known["draw"] + 2))
        for name in ("baseline", "imputation"):
            if name in known:
                found["baseline"] = with_other(name, ("zero", "mean", "blur"))
        if "steps" in known:
            steps = known["steps"]
            found["resolution"] = with_other("steps", (max(steps // 2, 2), 2 * steps))
        return found

    def work(self, maps: int) -> int:
        """Images that are classified for an image with so many maps: for the estimate of time."""
        return 0

    @abstractmethod
    def findings(self, laboratory: Laboratory, subjects: Sequence[Subject]) -> Iterator[Finding]:
        """One for each map of each subject; tells the laboratory of the work done."""

    def finding(self, subject: Subject, method: str, reading: Reading) -> Finding:
        return Finding(subject.id, method, self.key, subject.target, *reading)


class MapMeasure(Measure):
    """Needs the map, and what is known of the image, alone."""

    @abstractmethod
    def value(self, subject: Subject, map: Map) -> float: ...

    def findings(self, laboratory: Laboratory, subjects: Sequence[Subject]) -> Iterator[Finding]:
        for subject in subjects:
            for method, given in subject.maps.items():
                known = subject.region is not None or not self.places
                values = {"": float(self.value(subject, given))} if known else {}
                yield self.finding(subject, method, Reading(values))


class RowMeasure(Measure):
    """Reads the class's probability on altered images."""

    @abstractmethod
    def rows(self, scene: Scene, method: str) -> Rows:
        """The altered images that it wants to know about, for the map of a method."""

    @abstractmethod
    def reading(self, scene: Scene, method: str, probability: Float[np.ndarray, " r"]) -> Reading:
        """From the probability of the class in each of those rows."""

    def findings(self, laboratory: Laboratory, subjects: Sequence[Subject]) -> Iterator[Finding]:
        for subject in subjects:
            yield from row_findings(laboratory, subject, {self: list(subject.maps)})


def row_findings(
    laboratory: Laboratory, subject: Subject, tasks: Mapping[RowMeasure, Sequence[str]]
) -> Iterator[Finding]:
    """What several measures find on one image, through one stream of rows.

    Args:
      tasks: by measure, the methods whose maps it is to measure.
    """
    scene = Scene(subject, laboratory.seed)
    asked = [
        (measure, method, measure.rows(scene, method))
        for measure, methods in tasks.items()
        for method in methods
    ]
    work = sum(measure.work(len(methods)) for measure, methods in tasks.items())
    found = probabilities(
        laboratory.runner,
        scene,
        Rows(*map(np.concatenate, zip(*(rows for _, _, rows in asked), strict=True))),
        laboratory.batch_size,
        lambda share: laboratory.told(share * work),
    )
    ends = np.cumsum([len(rows.source) for _, _, rows in asked])
    for (measure, method, _), part in zip(asked, np.split(found, ends[:-1]), strict=True):
        yield measure.finding(subject, method, measure.reading(scene, method, part))
