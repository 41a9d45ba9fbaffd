"""A PyTorch checkpoint becomes a weights file: recognised, planned, checked, then written."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxood.conversion.checkpoint import Checkpoint, from_tensors, read_checkpoint
from jaxood.conversion.hub import SCHEME, WEIGHTS, HubFile, fetch, fetch_beside, parse_name
from jaxood.conversion.layouts import layouts_of
from jaxood.conversion.parity import parity
from jaxood.conversion.rules import (
    Plan,
    carry_out,
    has_place_for_all,
    head_classes,
    make_plan,
)
from jaxood.errors import UsageError, choose, require
from jaxood.files import write_whole
from jaxood.models.loading import (
    abstract_model,
    checked_names,
    load_weights,
    network_of,
    parameter_shapes,
)
from jaxood.models.registry import ARCHITECTURES, find_architecture, find_tag
from jaxood.models.weights_file import WeightsInfo, sha256, write_weights
from jaxood.preprocessing import Preprocessing

TIMM = "config.json"
HEADLESS = "a backbone without a head: `jaxood head` makes one"
OWN = "own"  # the tag of preprocessing that no tag has
# Architectures that timm calls otherwise; names of others may have the same keys, as
# efficientnet_lite0 has, which pads otherwise, and resnetblur50.
TIMM_NAMES = {
    "mobilenet_v2": "mobilenetv2_100",
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "clip_vit_b_16": "vit_base_patch16_clip_224",
    "clip_vit_b_16_quickgelu": r"vit_base_patch16_clip(_quickgelu)?_224",
    "vit_s_16": r"(vit|deit)_small_patch16_\d+",
    "vit_b_16": r"(vit|deit)_base_patch16_\d+",
    "vit_b_16_384": r"(vit|deit)_base_patch16_\d+",
}
HASH = re.compile(r"-([0-9a-f]{8})\.\w+$")  # in published names: what the SHA-256 begins with
PARTS = frozenset(field.name for field in fields(Preprocessing))


class Match(NamedTuple):
    """A state dict recognised as an architecture in a layout; no classes: it has no head."""

    architecture: str
    num_classes: int
    plan: Plan


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did."""

    output: Path
    info: WeightsInfo
    arrays: int
    parameters: int
    notes: tuple[str, ...]
    parity: dict | None = None

    def __str__(self) -> str:
        info = self.info
        classes = f"{info.num_classes} classes" if info.num_classes else HEADLESS
        lines = [
            f"{self.output}: {info.architecture}, tag {info.tag}, {classes}",
            f"converted {self.parameters:,} parameters in {self.arrays} arrays"
            f" from the {info.layout} layout, batch norm folded",
        ]
        parity = [] if self.parity is None else [json.dumps(self.parity, indent=2)]
        return "\n".join([*lines, *self.notes, *parity])


def convert_state_dict(
    state_dict: Mapping[str, object], architecture: str, layout: str | None = None
) -> dict[str, np.ndarray]:
    """Flax parameters by path, from tensors or arrays by torch name.

    Raises:
      UsageError: with every key left over, target not filled and shape that differs.
    """
    checkpoint = from_tensors(state_dict)
    match = recognise(checkpoint.shapes, architecture, layout)
    epsilon = match.plan.layout.epsilon
    return {
        path: carry_out(step, checkpoint.get, epsilon) for path, step in match.plan.steps.items()
    }


def convert(
    checkpoint: Path | str,
    output: Path | str,
    *,
    arch: str | None = None,
    tag: str | None = None,
    preprocessing: Preprocessing | Mapping[str, object] | None = None,
    classes: Sequence[str] = (),
    verify: bool = False,
) -> ConversionReport:
    """Converts a PyTorch checkpoint to a weights file.

    One without a head becomes a weights file that is of use once `jaxood.head` has made it one.

    Args:
      checkpoint: `.safetensors`, or what `torch.save` wrote; nothing in it is executed. One of the
        Hugging Face Hub by name: "hf://owner/repo/file@revision", where the revision may be left
        out, and the file where it is `model.safetensors`: "hf://timm/resnet50.a1_in1k".
      arch: "resnet50", or with a tag "resnet50.a1_in1k".
      tag: of the published weights whose preprocessing is used. Both are guessed from the content,
        the hash and the name of the file when None.
      preprocessing: of a fine-tuned checkpoint: all of it, or some of its fields by name, which
        take the place of the tag's. Where there is no tag, and the file is none that was
        published, it is read from timm's `config.json` beside the checkpoint, if there is one.
      classes: names of the classes, where they are not ImageNet's 1,000.
      verify: also compares with the publisher's model; see `jaxood.conversion.parity`.

    Raises:
      UsageError: what cannot be read, recognised or converted. Nothing is left behind.
    """
    fetched: HubFile | None = None
    if str(checkpoint).startswith(SCHEME):
        checkpoint, fetched = fetch(parse_name(str(checkpoint)))
    checkpoint, output = Path(checkpoint), Path(output)
    source = read_checkpoint(checkpoint)
    digest = sha256(checkpoint)
    if fetched is not None:
        _require_published(fetched, digest)
    published = _published_as(fetched.published_name if fetched else checkpoint.name, digest)
    if arch is not None:
        arch, tag_of_name = find_architecture(arch, "arch")
        tag = tag or tag_of_name
    elif published is not None:
        arch = published[0]
    match = recognise(source.shapes, arch)
    kept = None
    if not (tag or published):
        if fetched is not None:
            fetch_beside(fetched, TIMM)
        kept = _kept_beside(checkpoint, match.architecture)
    tag, prepared = _preprocessing(match, tag, published, kept, preprocessing)
    _require_input(match, prepared.crop)
    plan = match.plan
    info = WeightsInfo(
        match.architecture,
        tag,
        prepared,
        match.num_classes,
        checked_names(classes, match.num_classes) if classes else (),
        plan.layout.name,
        digest,
        f"jaxood {version('jaxood')}",
        str(fetched or ""),
    )
    shapes = parameter_shapes(network_of(info))
    write_weights(
        output,
        shapes,
        lambda path: carry_out(plan.steps[path], source.get, plan.layout.epsilon),
        info,
    )
    notes = source.notes + tuple(f"dropped {n} arrays {what}" for what, n in plan.dropped.items())
    if fetched is not None:
        notes = (f"fetched from {fetched}", *notes)
    if tag == OWN:
        values = ", ".join(f"{name} {value}" for name, value in prepared.as_dict().items())
        where = "" if kept is None else f" of {checkpoint.with_name(TIMM)}"
        notes += (f"preprocessing{where}: {values}",)
    report = ConversionReport(
        output, info, len(shapes), sum(int(np.prod(shape)) for shape in shapes.values()), notes
    )
    if not verify:
        return report
    return replace(report, parity=_verify(report, source, plan))


def _verify(report: ConversionReport, source: Checkpoint, plan: Plan) -> dict:
    """Writes the parity report beside the weights file, which goes when it does not pass."""
    if not report.info.num_classes:
        return {"skipped": "the checkpoint has no head"}
    result = parity(
        lambda dtype: load_weights(report.output, dtype=dtype),
        source,
        plan.layout.dropped,
        plan.layout.name,
    )
    if not result.get("passed", True):
        report.output.unlink()
        raise UsageError(
            "verify",
            f"relative errors {result['relative_error']}",
            f"at most {result['tolerance']} at each depth; no weights file is left",
        )
    beside = report.output.with_suffix(".parity.json")
    write_whole(beside, (json.dumps(result, indent=2) + "\n").encode())
    return result


def _kept_beside(checkpoint: Path, architecture: str) -> Preprocessing | None:
    """The preprocessing in a `config.json` of timm's beside a checkpoint.

    Raises:
      UsageError: it is damaged, or of a network whose weights fit but which computes otherwise.
    """
    path = checkpoint.with_name(TIMM)
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError("checkpoint", f"{path} beside it ({error})", "a JSON file") from error
    timms = isinstance(config, dict) and ("pretrained_cfg" in config or "input_size" in config)
    if not timms:
        return None
    name = str(config.get("architecture", ""))
    require(
        not name or re.fullmatch(TIMM_NAMES.get(architecture, architecture), name),
        "checkpoint",
        f"weights of {name}, as {path} tells",
        f"an architecture that computes as {architecture} does",
        "Where it does, name the tag whose preprocessing it has",
    )
    return Preprocessing.from_timm(config)


def _preprocessing(
    match: Match,
    tag: str | None,
    published: tuple[str, str] | None,
    kept: Preprocessing | None,
    given: Preprocessing | Mapping[str, object] | None,
) -> tuple[str, Preprocessing]:
    """The tag, and the preprocessing: what is given, else what is kept, else the tag's."""
    parts: dict[str, Any] = (
        given.as_dict() if isinstance(given, Preprocessing) else {**(given or {})}
    )
    for name in parts:
        choose("preprocessing", name, PARTS)
    if kept is not None or (tag is None and parts.keys() == PARTS):
        return OWN, Preprocessing(**((kept.as_dict() if kept else {}) | parts))
    tag = tag or _guess_tag(match, published)
    published_as = find_tag(match.architecture, tag).preprocessing
    prepared = replace(published_as, **parts)
    return tag if prepared == published_as else OWN, prepared


def _require_input(match: Match, crop: int) -> None:
    """Raises UsageError for images of a size that the architecture cannot take."""
    graphdef, state = nnx.split(abstract_model(match.architecture, match.num_classes))
    images = jax.ShapeDtypeStruct((1, crop, crop, 3), jnp.float32)
    try:
        jax.eval_shape(lambda state, images: nnx.merge(graphdef, state)(images), state, images)
    except (TypeError, ValueError) as error:
        got = f"crop {crop}"
        raise UsageError("crop", got, f"a size that {match.architecture} takes") from error


def recognise(
    shapes: Mapping[str, tuple[int, ...]], architecture: str | None, layout: str | None = None
) -> Match:
    """Finds the architecture and layout whose every parameter a state dict fills.

    Where it fills every one but a head's, the match has no classes.

    Raises:
      UsageError: none or several fit; what is wrong with the nearest, all of it.
    """
    if architecture is not None:
        choose("arch", architecture, ARCHITECTURES)
    names = [architecture] if architecture else list(ARCHITECTURES)
    attempts = list(_attempts(shapes, names, layout))
    fitting = {match.architecture: match for match in attempts if not match.plan.problems}
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    if not fitting:
        headless = _attempts(shapes, names, layout, headless=True)
        fitting = {match.architecture: match for match in headless if not match.plan.problems}
        if len(fitting) == 1:
            return next(iter(fitting.values()))
    if fitting:
        raise UsageError("arch", "none", f"one of {', '.join(fitting)}", "The keys fit them all.")
    nearest = min(attempts, key=lambda match: len(match.plan.problems), default=None)
    if nearest is None or not nearest.plan.steps:
        wanted = f"one of {architecture or ', '.join(convertible())}"
        raise UsageError("checkpoint", f"keys such as {', '.join(list(shapes)[:3])}", wanted)
    problems = nearest.plan.problems
    raise UsageError(
        "checkpoint",
        f"{len(problems)} things that do not fit {nearest.architecture} in the"
        f" {nearest.plan.layout.name} layout",
        "all of its parameters and nothing else",
        "\n  ".join(["In full:", *problems]),
    )


def convertible() -> list[str]:
    """The architectures that there are conversion rules for."""
    return [name for name in ARCHITECTURES if layouts_of(name)]


def _attempts(
    shapes: Mapping[str, tuple[int, ...]],
    architectures: Sequence[str],
    layout: str | None,
    headless: bool = False,
) -> Iterable[Match]:
    for name in architectures:
        layouts = layouts_of(name)
        if layout is not None:
            layouts = {layout: layouts[choose("layout", layout, layouts)]}
        for rules in layouts.values():
            classes = head_classes(shapes, rules)
            if headless:
                if classes or not has_place_for_all(shapes, rules):
                    continue
                classes = 0
            elif not classes and len(architectures) > 1:
                continue
            classes = 1000 if classes is None else classes
            targets = parameter_shapes(abstract_model(name, classes))
            yield Match(name, classes, make_plan(shapes, targets, rules))


def _published_as(name: str, digest: str) -> tuple[str, str] | None:
    """Architecture and tag of a published file, told by its hash or, failing that, its name."""
    for architecture, entry in ARCHITECTURES.items():
        for tag, weights in entry.tags.items():
            for published in weights.checkpoints:
                prefix = HASH.search(published)
                if (prefix and digest.startswith(prefix[1])) or published == name:
                    return architecture, tag
            if weights.source == "timm" and name == f"{architecture}.{tag}/{WEIGHTS}":
                return architecture, tag
    return None


def _require_published(fetched: HubFile, digest: str) -> None:
    """Raises UsageError for another file than the one that was published by its name."""
    name = PurePosixPath(fetched.file).name
    known = any(
        name in weights.checkpoints
        for entry in ARCHITECTURES.values()
        for weights in entry.tags.values()
    )
    prefix = HASH.search(name)
    require(
        not known or prefix is None or digest.startswith(prefix[1]),
        "checkpoint",
        f"{fetched} with SHA-256 {digest[:8]}...",
        "the one that the published name tells",
        "It is another file under that name, or damaged: fetch it elsewhere",
    )


def _guess_tag(match: Match, published: tuple[str, str] | None) -> str:
    """The tag that was published as this file, or the only one of this layout."""
    if published is not None and published[0] == match.architecture:
        return published[1]
    tags = ARCHITECTURES[match.architecture].tags
    layout = match.plan.layout.name
    same = [name for name, tag in tags.items() if tag.layout == layout] or list(tags)
    same = [name for name in same if tags[name].num_classes == match.num_classes] or same
    if len(same) == 1:
        return same[0]
    raise UsageError(
        "tag",
        f"none, and the checkpoint could be any of {', '.join(same)}",
        "the one whose preprocessing the checkpoint was trained with",
        f"The first of them: {same[0]}",
    )
