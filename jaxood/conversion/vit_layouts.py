"""The tables of the conversion of plain vision transformers: ViT, DINOv2, CLIP."""

import numpy as np

from jaxood.conversion.rules import (
    ATTENTION_INPUT,
    PATCHES,
    Layout,
    Rule,
    Transform,
    keep,
    layer_norm,
    linear,
    squeeze,
)
from jaxood.interpolation import antialiased_weights, weights_at
from jaxood.models import dinov2

ENCODER = "encoder.layers.encoder_layer_{b}."
VIT = (
    Rule("conv_proj", "stages/conv_proj/projection", PATCHES),
    Rule("", "stages/conv_proj", {"class_token": ("class_token", squeeze)}),
    Rule("encoder", "stages/conv_proj", {"pos_embedding": ("positions", squeeze)}),
    layer_norm(ENCODER + "ln_{i}", "stages/encoder_layer_{b}/ln_{i}"),
    Rule(ENCODER + "self_attention", "stages/encoder_layer_{b}/qkv", ATTENTION_INPUT),
    linear(ENCODER + "self_attention.out_proj", "stages/encoder_layer_{b}/projection"),
    linear(ENCODER + "mlp.0", "stages/encoder_layer_{b}/fc1"),
    linear(ENCODER + "mlp.3", "stages/encoder_layer_{b}/fc2"),
    linear(ENCODER + "mlp.linear_{i}", "stages/encoder_layer_{b}/fc{i}"),  # the published files
    layer_norm("encoder.ln", "classifier"),
    linear("heads.head", "classifier"),
)


def _timm_blocks(source: str, target: str) -> tuple[Rule, ...]:
    """Of a block as timm and DINOv2 name its parts; both end before the part's name."""
    return (
        layer_norm(source + "norm{i}", target + "ln_{i}"),
        linear(source + "attn.qkv", target + "qkv"),
        linear(source + "attn.proj", target + "projection"),
        linear(source + "mlp.fc{i}", target + "fc{i}"),
    )


def _timm_tokens(target: str) -> tuple[Rule, ...]:
    tokens = {"cls_token": ("class_token", squeeze), "pos_embed": ("positions", squeeze)}
    return (Rule("patch_embed.proj", target + "/projection", PATCHES), Rule("", target, tokens))


TIMM_VIT = (
    *_timm_tokens("stages/conv_proj"),
    *_timm_blocks("blocks.{b}.", "stages/encoder_layer_{b}/"),
    layer_norm("norm", "classifier"),
    linear("head", "classifier"),
)


def _resized(table: np.ndarray, antialiased: bool) -> np.ndarray:
    """DINOv2's table for other images, as its code (`interpolate_pos_encoding`) resizes it.

    Bicubic. Without registers by a factor that is a tenth of a patch too large, to be safe from
    rounding down, and not antialiased; with registers both are mended.
    """
    side, wanted = round((len(table) - 1) ** 0.5), dinov2.SIDE // dinov2.PATCH
    if side == wanted:
        return table
    if antialiased:
        weights = antialiased_weights(side, wanted)
    else:
        where = (np.arange(wanted) + 0.5) * (side / (wanted + 0.1)) - 0.5
        weights = weights_at(where, side, "bicubic")
    grid = table[1:].reshape(side, side, -1)
    resized = np.einsum("ah,bw,hwc->abc", weights, weights, grid, optimize=True)
    return np.concatenate([table[:1], resized.reshape(wanted * wanted, -1)])


def _positions(table: np.ndarray) -> np.ndarray:
    return _resized(squeeze(table), antialiased=False)


def _positions_with_registers(table: np.ndarray) -> np.ndarray:
    return _resized(squeeze(table), antialiased=True)


def _positions_of_patches(table: np.ndarray) -> np.ndarray:
    """timm's, which has added the class token's to the token itself."""
    patches = squeeze(table)
    return _positions_with_registers(np.concatenate([np.zeros_like(patches[:1]), patches]))


def _dinov2(
    positions: Transform, prefix: str = "", registers: str = "register_tokens"
) -> tuple[Rule, ...]:
    """The backbone alone; with the prefix of the one that lies beside a head, its head as well."""
    block, embedded = f"{prefix}blocks.{{b}}.", {"pos_embed": ("positions", positions)}
    embedded |= {"cls_token": ("class_token", squeeze), registers: ("registers", squeeze)}
    return (
        Rule(prefix + "patch_embed.proj", "stages/patch_embed/projection", PATCHES),
        Rule(prefix.removesuffix("."), "stages/patch_embed", embedded),
        *_timm_blocks(block, "stages/blocks.{b}/"),
        *(
            Rule(f"{block}ls{i}", "stages/blocks.{b}", {"gamma": (f"scale_{i}", keep)})
            for i in (1, 2)
        ),
        layer_norm(prefix + "norm", "stages/norm"),
        *([linear("linear_head", "classifier")] if prefix else []),
    )


def _dinov2_layouts(architectures: str, positions: Transform) -> tuple[Layout, ...]:
    """With its linear head, and without one, as it is published; timm's keys are the latter."""
    masks = "what stood for hidden patches in training"
    return (
        Layout(
            "dinov2",
            architectures,
            _dinov2(positions, "backbone."),
            dropped={"backbone.mask_token": masks},
        ),
        Layout("pretrain", architectures, _dinov2(positions), dropped={"mask_token": masks}),
    )


DINOV2_LAYOUTS = (
    *_dinov2_layouts(r"dinov2_vit[sb]14", _positions),
    *_dinov2_layouts(r"dinov2_\w+_reg4", _positions_with_registers),
    Layout("timm", r"dinov2_\w+_reg4", _dinov2(_positions_of_patches, registers="reg_token")),
)

CLIP_BLOCK = "visual.transformer.resblocks.{b}."
CLIP_SCALE = Rule("", "classifier", {"logit_scale": ("scale", np.exp)})
CLIP = (
    Rule("visual.conv1", "stages/conv1/tokens/projection", PATCHES),
    Rule(
        "visual",
        "stages",
        {
            "class_embedding": ("conv1/tokens/class_token", keep),
            "positional_embedding": ("conv1/tokens/positions", keep),
            "proj": ("proj/kernel", keep),
        },
    ),
    layer_norm("visual.ln_pre", "stages/conv1/norm"),
    layer_norm(CLIP_BLOCK + "ln_{i}", "stages/resblocks.{b}/ln_{i}"),
    Rule(CLIP_BLOCK + "attn", "stages/resblocks.{b}/qkv", ATTENTION_INPUT),
    linear(CLIP_BLOCK + "attn.out_proj", "stages/resblocks.{b}/projection"),
    linear(CLIP_BLOCK + "mlp.c_fc", "stages/resblocks.{b}/fc1"),
    linear(CLIP_BLOCK + "mlp.c_proj", "stages/resblocks.{b}/fc2"),
    layer_norm("visual.ln_post", "stages/ln_post"),
    CLIP_SCALE,
)

EMBEDDINGS, HF_BLOCK = "vision_model.embeddings", "vision_model.encoder.layers.{b}."
HF_CLIP = (
    Rule(EMBEDDINGS + ".patch_embedding", "stages/conv1/tokens/projection", PATCHES),
    Rule(EMBEDDINGS, "stages/conv1/tokens", {"class_embedding": ("class_token", keep)}),
    Rule(
        EMBEDDINGS + ".position_embedding", "stages/conv1/tokens", {"weight": ("positions", keep)}
    ),
    layer_norm("vision_model.pre_layrnorm", "stages/conv1/norm"),
    layer_norm(HF_BLOCK + "layer_norm{i}", "stages/resblocks.{b}/ln_{i}"),
    linear(HF_BLOCK + "self_attn.qkv_proj", "stages/resblocks.{b}/qkv"),
    linear(HF_BLOCK + "self_attn.out_proj", "stages/resblocks.{b}/projection"),
    linear(HF_BLOCK + "mlp.fc{i}", "stages/resblocks.{b}/fc{i}"),
    layer_norm("vision_model.post_layernorm", "stages/ln_post"),
    linear("visual_projection", "stages/proj"),
    CLIP_SCALE,
)

TIMM_CLIP = (
    *_timm_tokens("stages/conv1/tokens"),
    layer_norm("norm_pre", "stages/conv1/norm"),
    *_timm_blocks("blocks.{b}.", "stages/resblocks.{b}/"),
    layer_norm("norm", "stages/ln_post"),
    linear("head", "stages/proj"),
)
TEXT_TOWER = "of the text tower"
NOT_TOLD = {"classifier/scale": 100.0, "stages/proj/bias": 0.0}  # what CLIP's training ends with
CLIP_LAYOUTS = (
    Layout(
        "openai",  # and OpenCLIP's
        r"clip_\w+",
        CLIP,
        dropped=dict.fromkeys(
            ("transformer.", "token_embedding.", "positional_embedding", "ln_final.")
            + ("text_projection", "text.", "input_resolution", "context_length", "vocab_size"),
            TEXT_TOWER,
        ),
        defaults=NOT_TOLD,
    ),
    Layout(
        "transformers",
        r"clip_\w+",
        HF_CLIP,
        dropped=dict.fromkeys(("text_model.", "text_projection."), TEXT_TOWER)
        | {EMBEDDINGS + ".position_ids": "0 to 196"},
        defaults=NOT_TOLD,
    ),
    Layout("timm", r"clip_\w+", TIMM_CLIP, defaults=NOT_TOLD),
)
