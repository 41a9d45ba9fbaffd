"""The tables of the conversion: torch module, batch norm folded into it, Flax module."""

import re
from collections.abc import Iterable

from jaxood.conversion.rules import (
    PATCHES,
    Layout,
    Rule,
    conv,
    keep,
    layer_norm,
    linear,
    squeeze,
)
from jaxood.conversion.vit_layouts import CLIP_LAYOUTS, DINOV2_LAYOUTS, TIMM_VIT, VIT
from jaxood.models import efficientnet_lite, mobilenet_v2

RESNET = (
    conv("conv1", "bn1", "stages/conv1"),
    conv("layer{g}.{b}.conv{i}", "layer{g}.{b}.bn{i}", "stages/layer{g}.{b}/conv{i}"),
    conv(
        "layer{g}.{b}.downsample.0",
        "layer{g}.{b}.downsample.1",
        "stages/layer{g}.{b}/downsample",
    ),
    linear("fc", "classifier"),
)


def _renamed(rules: tuple[Rule, ...], old: str, new: str) -> tuple[Rule, ...]:
    return tuple(
        rule._replace(
            source=rule.source.replace(old, new),
            norm=rule.norm and rule.norm.replace(old, new),
        )
        for rule in rules
    )


def _under(prefix: str, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """The same rules for modules one level down; the head stays where it is."""
    return tuple(
        rule._replace(source=prefix + rule.source, norm=prefix + rule.norm) if rule.norm else rule
        for rule in rules
    )


MOBILENET_V2 = (
    conv("features.0.0", "features.0.1", "stages/features.0"),
    conv("features.1.conv.0.0", "features.1.conv.0.1", "stages/features.1/depthwise"),
    conv("features.1.conv.1", "features.1.conv.2", "stages/features.1/project"),
    conv("features.{b}.conv.0.0", "features.{b}.conv.0.1", "stages/features.{b}/expand"),
    conv("features.{b}.conv.1.0", "features.{b}.conv.1.1", "stages/features.{b}/depthwise"),
    conv("features.{b}.conv.2", "features.{b}.conv.3", "stages/features.{b}/project"),
    conv("features.18.0", "features.18.1", "stages/features.18"),
    linear("classifier.1", "classifier"),
)


def _timm_mobile(
    repeats: Iterable[int], stem: str, block: str, first: int, head: str
) -> tuple[Rule, ...]:
    """timm counts blocks within groups; here they are counted through, from `first`."""
    names = [f"blocks.{g}.{b}" for g, count in enumerate(repeats) for b in range(count)]
    start = f"stages/{block}.{first}"
    rules = [
        conv("conv_stem", "bn1", f"stages/{stem}"),
        conv("blocks.0.0.conv_dw", "blocks.0.0.bn1", f"{start}/depthwise"),
        conv("blocks.0.0.conv_pw", "blocks.0.0.bn2", f"{start}/project"),
    ]
    for index, name in enumerate(names[1:], first + 1):
        rules += [
            conv(f"{name}.conv_pw", f"{name}.bn1", f"stages/{block}.{index}/expand"),
            conv(f"{name}.conv_dw", f"{name}.bn2", f"stages/{block}.{index}/depthwise"),
            conv(f"{name}.conv_pwl", f"{name}.bn3", f"stages/{block}.{index}/project"),
        ]
    return (*rules, conv("conv_head", "bn2", f"stages/{head}"), linear("classifier", "classifier"))


EFFICIENTNET_LITE = (
    conv("_conv_stem", "_bn0", "stages/conv_stem"),
    conv("_blocks.{b}._expand_conv", "_blocks.{b}._bn0", "stages/blocks.{b}/expand"),
    conv("_blocks.{b}._depthwise_conv", "_blocks.{b}._bn1", "stages/blocks.{b}/depthwise"),
    conv("_blocks.{b}._project_conv", "_blocks.{b}._bn2", "stages/blocks.{b}/project"),
    conv("_conv_head", "_bn1", "stages/conv_head"),
    linear("_fc", "classifier"),
)

REGNET = (
    conv("stem.0", "stem.1", "stages/stem"),
    *(
        conv(
            f"trunk_output.block{{g}}.block{{g}}-{{b}}.{module}.0",
            f"trunk_output.block{{g}}.block{{g}}-{{b}}.{module}.1",
            f"stages/trunk_output.block{{g}}.block{{g}}-{{b}}/{target}",
        )
        for module, target in (("proj", "proj"), ("f.a", "a"), ("f.b", "b"), ("f.c", "c"))
    ),
    conv(
        "trunk_output.block{g}.block{g}-{b}.f.se.fc{i}",
        None,
        "stages/trunk_output.block{g}.block{g}-{b}/se/fc{i}",
    ),
    linear("fc", "classifier"),
)

GROUP_BLOCK = "features.{g}.{b}"
SWIN = (
    Rule("features.0.0", "stages/features.0/projection", PATCHES),
    layer_norm("features.0.2", "stages/features.0/norm"),
    layer_norm(GROUP_BLOCK + ".norm{i}", f"stages/{GROUP_BLOCK}/norm{{i}}"),
    Rule(
        GROUP_BLOCK + ".attn",
        f"stages/{GROUP_BLOCK}",
        {"relative_position_bias_table": ("position_bias", keep)},
    ),
    linear(GROUP_BLOCK + ".attn.qkv", f"stages/{GROUP_BLOCK}/qkv"),
    linear(GROUP_BLOCK + ".attn.proj", f"stages/{GROUP_BLOCK}/projection"),
    linear(GROUP_BLOCK + ".mlp.0", f"stages/{GROUP_BLOCK}/fc1"),
    linear(GROUP_BLOCK + ".mlp.3", f"stages/{GROUP_BLOCK}/fc2"),
    layer_norm("features.{g}.norm", "stages/features.{g}/norm"),
    linear("features.{g}.reduction", "stages/features.{g}/reduction"),
    layer_norm("norm", "stages/norm"),
    linear("head", "classifier"),
)

CONVNEXT = (
    Rule("features.0.0", "stages/features.0/projection", PATCHES),
    layer_norm("features.0.1", "stages/features.0/norm"),
    *(
        rule
        for group in (2, 4, 6)  # between the blocks
        for rule in (
            layer_norm(f"features.{group}.0", f"stages/features.{group}/norm"),
            Rule(f"features.{group}.1", f"stages/features.{group}/projection", PATCHES),
        )
    ),
    Rule(GROUP_BLOCK, f"stages/{GROUP_BLOCK}", {"layer_scale": ("scale", squeeze)}),
    conv(GROUP_BLOCK + ".block.0", None, f"stages/{GROUP_BLOCK}/depthwise"),
    layer_norm(GROUP_BLOCK + ".block.2", f"stages/{GROUP_BLOCK}/norm"),
    linear(GROUP_BLOCK + ".block.3", f"stages/{GROUP_BLOCK}/fc1"),
    linear(GROUP_BLOCK + ".block.5", f"stages/{GROUP_BLOCK}/fc2"),
    layer_norm("classifier.0", "classifier"),
    linear("classifier.2", "classifier"),
)


def _timm_convnext(group: int) -> tuple[Rule, ...]:
    """timm counts groups, torchvision what stands between them as well."""
    block, before = f"stages.{group}.blocks.{{b}}", f"stages.{group}.downsample"
    target, merged = f"stages/features.{2 * group + 1}.{{b}}", f"stages/features.{2 * group}"
    return (
        Rule(block, target, {"gamma": ("scale", keep)}),
        conv(block + ".conv_dw", None, target + "/depthwise"),
        layer_norm(block + ".norm", target + "/norm"),
        linear(block + ".mlp.fc{i}", target + "/fc{i}"),
        layer_norm(before + ".0", merged + "/norm"),
        Rule(before + ".1", merged + "/projection", PATCHES),
    )


TIMM_CONVNEXT = (
    Rule("stem.0", "stages/features.0/projection", PATCHES),
    layer_norm("stem.1", "stages/features.0/norm"),
    *(rule for group in range(4) for rule in _timm_convnext(group)),
    layer_norm("head.norm", "classifier"),
    linear("head.fc", "classifier"),
)

TINY_BLOCK = "stages.{g}.blocks.{b}"
TINY_VIT = (
    *(
        conv(f"{module}.conv{{i}}.conv", f"{module}.conv{{i}}.bn", f"stages/{module}/conv{{i}}")
        for module in ("patch_embed", "stages.0.blocks.{b}", "stages.{g}.downsample")
    ),
    layer_norm(f"{TINY_BLOCK}.attn.norm", f"stages/{TINY_BLOCK}/norm"),
    linear(f"{TINY_BLOCK}.attn.qkv", f"stages/{TINY_BLOCK}/qkv"),
    Rule(
        f"{TINY_BLOCK}.attn",
        f"stages/{TINY_BLOCK}",
        {"attention_biases": ("attention_biases", keep)},
    ),
    linear(f"{TINY_BLOCK}.attn.proj", f"stages/{TINY_BLOCK}/projection"),
    conv(
        f"{TINY_BLOCK}.local_conv.conv",
        f"{TINY_BLOCK}.local_conv.bn",
        f"stages/{TINY_BLOCK}/local_conv",
    ),
    layer_norm(f"{TINY_BLOCK}.mlp.norm", f"stages/{TINY_BLOCK}/mlp_norm"),
    linear(f"{TINY_BLOCK}.mlp.fc{{i}}", f"stages/{TINY_BLOCK}/fc{{i}}"),
    layer_norm("head.norm", "classifier"),
    linear("head.fc", "classifier"),
)

RESNETS = r"resnet\d+(_32x32)?"
MOBILENET_REPEATS = [row[2] for row in mobilenet_v2.BLOCKS]
LITE_REPEATS = [row[2] for row in efficientnet_lite.BLOCKS]

LAYOUTS = (
    Layout("torchvision", RESNETS, RESNET),  # timm's and knn-ood's are the same
    Layout("openood", RESNETS, _renamed(RESNET, "downsample", "shortcut")),
    Layout(
        "supcon",
        RESNETS,
        _under("encoder.", RESNET),
        dropped={"head.": "the projection head of contrastive training"},
    ),
    Layout("torchvision", "mobilenet_v2", MOBILENET_V2),
    Layout(
        "timm",
        "mobilenet_v2",
        _timm_mobile(MOBILENET_REPEATS, "features.0", "features", 1, "features.18"),
    ),
    Layout("efficientnet_lite_pytorch", "efficientnet_lite0", EFFICIENTNET_LITE, epsilon=1e-3),
    Layout(
        "timm",
        "efficientnet_lite0",
        _timm_mobile(LITE_REPEATS, "conv_stem", "blocks", 0, "conv_head"),
        epsilon=1e-3,
    ),
    Layout("torchvision", r"regnet_y_\w+", REGNET),
    Layout("torchvision", r"vit_b_16\w*", VIT),
    Layout("timm", r"vit_\w+", TIMM_VIT),
    *DINOV2_LAYOUTS,
    *CLIP_LAYOUTS,
    Layout("torchvision", r"swin_\w+", SWIN),
    Layout("torchvision", r"convnext_\w+", CONVNEXT),
    Layout("timm", r"convnext_\w+", TIMM_CONVNEXT),
    Layout("timm", r"tiny_vit_\w+", TINY_VIT),
)


def layouts_of(architecture: str) -> dict[str, Layout]:
    """The layouts that are known for an architecture, by name."""
    return {
        layout.name: layout
        for layout in LAYOUTS
        if re.fullmatch(layout.architectures, architecture)
    }
