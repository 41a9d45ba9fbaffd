"""Conversion rules as data, and how they are applied: torch modules to Flax parameter paths.

A rule names a torch module, the Flax module that takes its place, and, where batch norm follows,
the module that is folded into it:

    kernel' = kernel * g,  bias' = (bias - mean) * g + beta,  g = gamma / sqrt(variance + epsilon)

in float64, stored as float32. `{name}` in a rule stands for a number, the same on both sides.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from jaxood.errors import require

Transform = Callable[[np.ndarray], np.ndarray]


def _instead(value: np.ndarray, array: np.ndarray) -> np.ndarray:
    """A value that is in no checkpoint."""
    return value


def keep(array: np.ndarray) -> np.ndarray:
    return array


def convolution_kernel(array: np.ndarray) -> np.ndarray:
    """Out, in, height, width to height, width, in, out."""
    return array.transpose(2, 3, 1, 0)


def linear_kernel(array: np.ndarray) -> np.ndarray:
    """Out, in to in, out; a 1x1 convolution may stand for a linear layer."""
    return array.reshape(array.shape[0], -1).T


def patches_kernel(array: np.ndarray) -> np.ndarray:
    """Of a convolution without overlap: rows of a patch, its columns, channels flattened."""
    return convolution_kernel(array).reshape(-1, array.shape[0])


def squeeze(array: np.ndarray) -> np.ndarray:
    """Without the axes of length one."""
    return array.squeeze()


class Rule(NamedTuple):
    """Attributes:
    source: torch module; `{name}` matches a number.
    target: Flax module; `{name}` is that number.
    params: torch parameter to Flax parameter and transform.
    norm: torch module of the batch norm that follows, or None.
    """

    source: str
    target: str
    params: Mapping[str, tuple[str, Transform]]
    norm: str | None = None


CONVOLUTION = {"weight": ("kernel", convolution_kernel), "bias": ("bias", keep)}
LINEAR = {"weight": ("kernel", linear_kernel), "bias": ("bias", keep)}
PATCHES = {"weight": ("kernel", patches_kernel), "bias": ("bias", keep)}
ATTENTION_INPUT = {"in_proj_weight": ("kernel", linear_kernel), "in_proj_bias": ("bias", keep)}
LAYER_NORM = {"weight": ("scale", keep), "bias": ("shift", keep)}


def conv(source: str, norm: str | None, target: str) -> Rule:
    return Rule(source, target, CONVOLUTION, norm)


def linear(source: str, target: str) -> Rule:
    return Rule(source, target, LINEAR)


def layer_norm(source: str, target: str) -> Rule:
    return Rule(source, target, LAYER_NORM)


@dataclass(frozen=True)
class Layout:
    """How one publisher names the parameters of some architectures.

    Attributes:
      architectures: the names it is for, as a regular expression.
      rules: the first that matches a module is used.
      epsilon: of batch norm, in the publisher's model.
      dropped: key prefixes that are left out, and why.
      defaults: values of Flax parameters that need not be in a checkpoint.
    """

    name: str
    architectures: str
    rules: tuple[Rule, ...]
    epsilon: float = 1e-5
    dropped: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, float] = field(default_factory=dict)


# Counters of the training, and constants that follow from the architecture.
IGNORED = re.compile(
    r"(^|\.)(num_batches_tracked|n_averaged|attention_bias_idxs|relative_position_index)$"
)
NORM_PARAMS = ("weight", "bias", "running_mean", "running_var")


class Step(NamedTuple):
    """How one Flax parameter is made: a transform of one source array, then the folding."""

    source: str | None
    transform: Transform
    norm: str | None
    name: str


@dataclass(frozen=True)
class Plan:
    """What a state dict becomes, decided by names and shapes alone.

    Attributes:
      steps: by Flax parameter path.
      problems: one line each; a plan with problems must not be carried out.
      dropped: how many arrays were left out, by prefix and reason.
    """

    steps: dict[str, Step]
    problems: list[str]
    dropped: dict[str, int]
    layout: Layout


@functools.cache
def _pattern(template: str) -> re.Pattern:
    pieces = re.split(r"\{(\w+)\}", template)  # text, name, text, name, ..., text
    seen: set[str] = set()
    pattern = ""
    for index, piece in enumerate(pieces):
        if index % 2 == 0:
            pattern += re.escape(piece)
        else:
            pattern += f"(?P={piece})" if piece in seen else f"(?P<{piece}>\\d+)"
            seen.add(piece)
    return re.compile(pattern)


def _apply(rules: Iterable[Rule], module: str) -> tuple[Rule, str, str | None] | None:
    """The first rule for a module, its target, and its batch norm."""
    for rule in rules:
        if match := _pattern(rule.source).fullmatch(module):
            numbers = match.groupdict()
            norm = rule.norm.format(**numbers) if rule.norm else None
            return rule, rule.target.format(**numbers), norm
    return None


def make_plan(
    shapes: Mapping[str, tuple[int, ...]],
    targets: Mapping[str, tuple[int, ...]],
    layout: Layout,
) -> Plan:
    """Finds for each target how it is made, and everything that does not fit.

    Args:
      shapes: of the source arrays, by torch key.
      targets: shapes to be filled, by Flax path.
    """
    steps: dict[str, Step] = {}
    dropped: dict[str, int] = {}
    used: set[str] = set()
    problems: list[str] = []
    for key in shapes:
        for prefix, reason in layout.dropped.items():
            if key.startswith(prefix):
                dropped[f"{prefix}* ({reason})"] = dropped.get(f"{prefix}* ({reason})", 0) + 1
                used.add(key)
    modules = dict.fromkeys(key.rpartition(".")[0] for key in shapes if key not in used)
    found = {module: match for module in modules if (match := _apply(layout.rules, module))}
    norms = {norm for _, _, norm in found.values()}
    for module, (rule, target, norm) in found.items():
        dotted = f"{module}." if module else ""
        present = {p: rule.params[p] for p in rule.params if dotted + p in shapes}
        if module in norms or not present:
            continue
        used.update(dotted + p for p in present)
        for param, (name, transform) in present.items():
            if (twice := steps.get(f"{target}/{name}")) is not None:
                problems.append(f"two of the same: {twice.source} and {dotted}{param}")
            steps[f"{target}/{name}"] = Step(dotted + param, transform, norm, name)
        if norm:
            steps.setdefault(f"{target}/bias", Step(None, keep, norm, "bias"))
            parts = [f"{norm}.{p}" for p in NORM_PARAMS]
            problems += [f"missing in the checkpoint: {key}" for key in parts if key not in shapes]
            used.update(parts)
    problems += [
        f"left over in the checkpoint: {key} {tuple(shapes[key])}"
        for key in shapes
        if key not in used and not IGNORED.search(key)
    ]
    for path, shape in targets.items():
        empty = 0 in shape  # of a head without classes
        if path not in steps and (empty or path in layout.defaults):
            value = np.full(shape, layout.defaults.get(path, 0.0), np.float32)
            steps[path] = Step(None, functools.partial(_instead, value), None, "")
    problems += [
        f"not filled: {path} {shape}" for path, shape in targets.items() if path not in steps
    ]
    for path, step in steps.items():
        if path not in targets:
            problems.append(f"no place for: {step.source} (would be {path})")
            continue
        wanted = tuple(targets[path])
        made = {}
        if step.source is not None:
            made[step.source] = _transformed(step.transform, shapes[step.source])
        if step.norm is not None and step.name == "bias":
            keys = (f"{step.norm}.{param}" for param in NORM_PARAMS)
            made |= {key: tuple(shapes[key]) for key in keys if key in shapes}
        problems += [
            f"shape differs: {key} gives {path} {shape}, wanted {wanted}"
            for key, shape in made.items()
            if shape != wanted
        ]
    return Plan(steps, problems, dropped, layout)


def has_place_for_all(shapes: Mapping[str, tuple[int, ...]], layout: Layout) -> bool:
    """Whether a layout's rules name every key, whatever the sizes: quick to tell."""
    problems = make_plan(shapes, {}, layout).problems
    return not any(problem.startswith("left over") for problem in problems)


def head_classes(shapes: Mapping[str, tuple[int, ...]], layout: Layout) -> int | None:
    """Number of classes by the classifier's bias; None where it is not there.

    0 where none is ever in such checkpoints.
    """
    for rule in layout.rules:
        if rule.target == "classifier" and rule.params is LINEAR:
            return next(iter(shapes.get(f"{rule.source}.bias", ())), None)
    return 0


def _transformed(transform: Transform, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape after a transform, without an array of that size."""
    try:
        return transform(np.broadcast_to(np.float32(0), shape)).shape
    except ValueError:  # not the number of axes that the transform takes
        return tuple(shape)


def carry_out(step: Step, get: Callable[[str], np.ndarray], epsilon: float) -> np.ndarray:
    """One Flax parameter, float32; `get` reads a source array by its torch key.

    Raises:
      UsageError: when it has values that are not finite.
    """
    value = step.transform(get(step.source) if step.source else np.zeros(()))
    with np.errstate(all="ignore"):  # said below
        if step.norm is not None:
            gamma, beta, mean, variance = (
                get(f"{step.norm}.{param}").astype(np.float64) for param in NORM_PARAMS
            )
            gain = gamma / np.sqrt(variance + epsilon)
            value = value * gain if step.name == "kernel" else (value - mean) * gain + beta
        made = np.asarray(value, np.float32, order="C")
    sources = " and ".join(filter(None, (step.source, step.norm)))
    require(
        bool(np.isfinite(made).all()),
        "checkpoint",
        f"{sources}, which give values that are not finite",
        "finite weights, and no norm of negative variance",
    )
    return made
