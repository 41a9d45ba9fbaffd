"""Method names compose: `score`, `transform+score`, `view+transform+...+score`.

A view or a transform without a score means `+energy`: `sfp` is `sfp+energy`. A step may carry its
parameters: `react[percentile=95]+knn[k=50]`.
"""

import functools
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

import jax
from jaxtyping import Array, Float, Int

from jaxood.detectors.adascale import AdaScaleA, AdaScaleL
from jaxood.detectors.ash import ASHB, ASHP, ASHS, Scale
from jaxood.detectors.blocks import map_blocks
from jaxood.detectors.contract import Detector, State, Transform
from jaxood.detectors.dice import DICE
from jaxood.detectors.fdbd import FDBD
from jaxood.detectors.gmm import GMM
from jaxood.detectors.gradnorm import GradNorm
from jaxood.detectors.gram import Gram
from jaxood.detectors.kl_matching import KLMatching
from jaxood.detectors.logit_scores import GEN, KL, MSP, Energy, Entropy, MaxLogit
from jaxood.detectors.mahalanobis import SSD, Mahalanobis, MahalanobisNNGuide
from jaxood.detectors.nci import NCI
from jaxood.detectors.neighbours import Knn, NNGuide
from jaxood.detectors.odin import ODIN
from jaxood.detectors.openmax import OpenMax
from jaxood.detectors.parameters import Settings, build, label
from jaxood.detectors.rankfeat import RankFeat
from jaxood.detectors.react import ReAct
from jaxood.detectors.relation import Relation
from jaxood.detectors.rmds import RMDS
from jaxood.detectors.she import SHE
from jaxood.detectors.temp_scaling import TempScaling
from jaxood.detectors.vim import Residual, ViM, ViMNNGuide
from jaxood.detectors.vra import VRA
from jaxood.errors import UsageError, choose
from jaxood.extraction import Extractor
from jaxood.outputs import Head, ModelOutputs, with_pooled
from jaxood.purification import SpatialPurification

DETECTORS: dict[str, type] = {
    "msp": MSP,
    "maxlogit": MaxLogit,
    "energy": Energy,
    "kl": KL,
    "entropy": Entropy,
    "gen": GEN,
    "kl_matching": KLMatching,
    "temp_scaling": TempScaling,
    "openmax": OpenMax,
    "knn": Knn,
    "nnguide": NNGuide,
    "vim": ViM,
    "vim-nnguide": ViMNNGuide,
    "residual": Residual,
    "mahalanobis": Mahalanobis,
    "mahalanobis-nnguide": MahalanobisNNGuide,
    "ssd": SSD,
    "rmds": RMDS,
    "gmm": GMM,
    "she": SHE,
    "fdbd": FDBD,
    "nci": NCI,
    "gradnorm": GradNorm,
    "relation": Relation,
    "gram": Gram,
    "odin": ODIN,
}

TRANSFORMS: dict[str, type] = {
    "react": ReAct,
    "vra": VRA,
    "ash-p": ASHP,
    "ash-b": ASHB,
    "ash-s": ASHS,
    "scale": Scale,
    "dice": DICE,
    "adascale-a": AdaScaleA,
    "adascale-l": AdaScaleL,
}

VIEWS: dict[str, type] = {
    "sfp": SpatialPurification,
    "rankfeat": RankFeat,
}


@dataclass(frozen=True)
class Method:
    """A view, transforms and a detector, all of them with their parameters.

    Attributes:
      name: as it was asked for, with the parameters that a sweep gave it.
      view: name of the extra that takes the place of pooled, and what extracts it.
    """

    name: str
    detector: Detector
    transforms: tuple[Transform, ...] = ()
    view: tuple[str, Extractor] | None = None

    @property
    def steps(self) -> tuple[Transform | Detector, ...]:
        return (*self.transforms, self.detector)

    @property
    def extractors(self) -> dict[str, Extractor]:
        """What the one pass over the images must keep for this method, by extra's name."""
        own = dict([self.view] if self.view else [])
        return own | {key: one for step in self.steps for key, one in step.extractors.items()}

    @property
    def needs_train(self) -> bool:
        return any(step.needs_train for step in self.steps)

    @property
    def needs_labels(self) -> bool:
        return any(step.needs_labels for step in self.steps)

    def fit(self, train: ModelOutputs | None, labels: Int[Array, " n"] | None, head: Head) -> State:
        """Fits the steps in order, each on what the steps before it make of `train`.

        Args:
          train: outputs on in-distribution images, with this method's extras; None where
            `needs_train` is false.
          labels: their classes; None where `needs_labels` is false.

        Raises:
          UsageError: when something that a step needs is missing.
        """
        if self.needs_train and (train is None or not len(train.pooled)):
            raise UsageError(f"method {self.name}", "no training images", "some to fit on")
        if self.needs_labels and labels is None:
            raise UsageError(f"method {self.name}", "training images without labels", "labels")
        states: list[State] = []
        for number, step in enumerate(self.steps):
            seen = train
            if step.needs_train and (number or self.view):
                extras = {key: train.extras[key] for key in self.extractors}
                before = self._view_name, self.transforms[:number], tuple(states), head
                make = functools.partial(_prepare_block, *before)
                seen = map_blocks(make, train._replace(feature_map=None, extras=extras))
            states.append(step.fit(seen, labels, head))
        return tuple(states)

    def score(self, state: State, outputs: ModelOutputs, head: Head) -> Float[Array, " n"]:
        """Higher is more in-distribution. Pure, jit-able, and per row."""
        outputs = _prepare(self._view_name, self.transforms, state[:-1], head, outputs)
        return self.detector.score(state[-1], outputs, head)

    @property
    def _view_name(self) -> str | None:
        return self.view[0] if self.view else None


def _prepare(
    view: str | None,
    transforms: tuple[Transform, ...],
    states: State,
    head: Head,
    outputs: ModelOutputs,
) -> ModelOutputs:
    """The outputs as the step after the transforms given sees them."""
    if view:
        outputs = with_pooled(outputs, outputs.extras[view], head)
    for transform, state in zip(transforms, states, strict=True):
        outputs = transform.apply(state, outputs, head)
    return outputs


# Compiled once for all methods that begin alike.
_prepare_block = jax.jit(_prepare, static_argnums=(0, 1))


def _read_step(text: str) -> tuple[str, dict[str, str]]:
    """`knn[k=50]` -> "knn", {"k": "50"}."""
    match = re.fullmatch(r"\s*([^\[\]\s]+)\s*(?:\[([^\[\]]*)\])?\s*", text)
    assignments = (match[2] or "").split(",") if match and match[2] else []
    if not match or any("=" not in one for one in assignments):
        wanted = "NAME or NAME[PARAMETER=VALUE,...]"
        raise UsageError("method", repr(text), wanted, "Steps are joined by '+': react+knn[k=50]")
    return match[1], {
        key.strip(): value.strip() for key, _, value in (one.partition("=") for one in assignments)
    }


def _read_steps(text: str) -> list[tuple[str, dict[str, str]]]:
    steps = [_read_step(part) for part in re.split(r"\+(?![^\[]*\])", text)]
    for name, _ in steps:
        choose(f"method {text!r}", name, [*DETECTORS, *TRANSFORMS, *VIEWS])
    return steps


def _with_score(steps: list[tuple[str, dict[str, str]]]) -> list[tuple[str, dict[str, str]]]:
    return steps if any(name in DETECTORS for name, _ in steps) else [*steps, ("energy", {})]


def parse_method(text: str, settings: Settings = {}) -> Method:  # noqa: B006 (never changed)
    """Reads a method's name.

    Args:
      text: `score`, `transform+score` or `view+transform+...+score`.
      settings: parameters by step name, as text or as values; those in `text` come first.

    Raises:
      UsageError: an unknown name or parameter, or an order that makes no sense.
    """
    kinds = {**dict.fromkeys(VIEWS, "view"), **dict.fromkeys(TRANSFORMS, "transform")}
    tables = {**VIEWS, **TRANSFORMS, **DETECTORS}
    views, transforms, detectors = [], [], []
    last_transform = ""
    for name, own in _with_score(_read_steps(text)):
        step = build(name, tables[name], {**settings.get(name, {}), **own})

        def refuse(what, wanted, remedy=""):
            raise UsageError(f"method {text!r}", what, wanted, remedy)

        if detectors:
            first = detectors[0][0]
            if name in DETECTORS:
                refuse(f"two scores, {first} and {name}", "one score", "Ask for two methods")
            refuse(f"{name} after the score {first}", "the score last")
        if kinds.get(name) == "view":
            if views:
                refuse(f"two views, {views[0][0]} and {name}", "one view, as the first step")
            if transforms:
                refuse(f"the view {name} after {last_transform}", f"{name}+{last_transform}")
            views.append((label(name, step), step))
        elif kinds.get(name) == "transform":
            if transforms and transforms[-1].changes_logits_only:
                wanted = f"{last_transform} as the last transform"
                refuse(f"{name} after {last_transform}", wanted, "It changes the logits only")
            transforms.append(step)
            last_transform = name
        else:
            detectors.append((name, step))
    name, detector = detectors[0]
    if detector.view:
        if views:
            refuse(f"the view {views[0][0]} before {name}", f"{name} alone: it has its own view")
        views.append(detector.view)
    return Method(text, detector, tuple(transforms), views[0] if views else None)


def parse_methods(
    texts: Iterable[str],
    settings: Settings = {},  # noqa: B006 (never changed)
    sweeps: Settings = {},  # noqa: B006
) -> list[Method]:
    """Reads several names, each of them once a combination of the swept parameters.

    A method's swept parameters are added to its name: `--sweep knn.k=5,10` makes `react+knn`
    into `react+knn[k=5]` and `react+knn[k=10]`. All of them score the same extracted features.

    Args:
      settings: as for `parse_method`.
      sweeps: lists of values by step name and parameter.

    Raises:
      UsageError: as `parse_method`, and for a parameter of a step that no method has.
    """
    texts = list(dict.fromkeys(texts))
    steps = {text: _with_score(_read_steps(text)) for text in texts}
    used = {name for read in steps.values() for name, _ in read}
    for argument, given in (("--set", settings), ("--sweep", sweeps)):
        for name, values in given.items():
            choose(argument, name, [*DETECTORS, *TRANSFORMS, *VIEWS])
            if name not in used:
                wanted = f"a step of a method asked for: {', '.join(sorted(used))}"
                raise UsageError(argument, f"{name}.{next(iter(values))}", wanted)
    methods = []
    for text, read in steps.items():
        swept = [
            [(position, field, value) for value in values]
            for position, (name, own) in enumerate(read)
            for field, values in sweeps.get(name, {}).items()
            if field not in own
        ]
        for choice in itertools.product(*swept):
            parts = [(name, dict(own)) for name, own in read]
            for position, field, value in choice:
                parts[position][1][field] = value
            if parts[-1] == ("energy", {}) and len(parts) > len(_read_steps(text)):
                parts.pop()
            name = "+".join(itertools.starmap(_spell, parts)) if choice else text
            methods.append(parse_method(name, settings))
    return methods


def _spell(name: str, own: dict[str, str]) -> str:
    values = ",".join(f"{key}={value}" for key, value in own.items())
    return f"{name}[{values}]" if values else name
