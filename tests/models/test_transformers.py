"""ConvNeXt, Swin, DINOv2 and timm's ViT against their publishers', at three depths."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from references import import_timm, import_torchvision
from torch_networks import noise, randomise

from jaxood.conversion import convert_state_dict
from jaxood.conversion.convert import recognise
from jaxood.conversion.parity import Depths, errors, find_reference, run, torch_outputs
from jaxood.errors import UsageError
from jaxood.models.convnext import Design, convnext
from jaxood.models.dinov2 import dinov2
from jaxood.models.loading import abstract_model, fill
from jaxood.models.registry import ARCHITECTURES, Architecture
from jaxood.models.swin import Block, swin
from jaxood.models.swin import Design as SwinDesign
from jaxood.models.vit import vit

CLASSES = 7
DEPTHS, WIDTHS = (1, 1, 2, 1), (8, 16, 24, 32)


def torchvision_convnext():
    models = import_torchvision("torchvision.models.convnext")
    settings = [
        models.CNBlockConfig(width, following, depth)
        for width, following, depth in zip(WIDTHS, (*WIDTHS[1:], None), DEPTHS, strict=True)
    ]
    return models.ConvNeXt(settings, layer_scale=0.5, num_classes=CLASSES)


def timm_convnext():
    module = import_timm("timm.models.convnext")
    sizes = {"depths": DEPTHS, "dims": WIDTHS}
    return module.ConvNeXt(num_classes=CLASSES, ls_init_value=0.5, **sizes)


def torchvision_swin():
    models = import_torchvision("torchvision.models.swin_transformer")
    sizes = {"patch_size": [4, 4], "window_size": [7, 7]}
    heads = [1, 2, 3, 4]
    return models.SwinTransformer(
        embed_dim=12, depths=[2, 1, 2, 2], num_heads=heads, num_classes=CLASSES, **sizes
    )


def timm_vit():
    module = import_timm("timm.models.vision_transformer")
    sizes = {"img_size": 64, "embed_dim": 48, "depth": 3, "num_heads": 3}
    return module.VisionTransformer(num_classes=CLASSES, **sizes)


SMALL = {
    "convnext torchvision": (torchvision_convnext, convnext, Design(DEPTHS, WIDTHS)),
    "convnext timm": (timm_convnext, convnext, Design(DEPTHS, WIDTHS)),
    "swin torchvision": (torchvision_swin, swin, SwinDesign((2, 1, 2, 2), (1, 2, 3, 4), 12)),
}


def converted(network, name, classes=CLASSES):
    arrays = convert_state_dict(network.state_dict(), name)
    return fill(abstract_model(name, classes), lambda path: jnp.asarray(arrays[path]))


def same_at_three_depths(network, name, layout, side, tolerance):
    features = find_reference(name, layout).features
    images = noise(2, side)
    theirs = torch_outputs(network, features, images)
    ours = run(converted(network, name, theirs.logits.shape[1]), images)
    assert ours.feature_map.shape == theirs.feature_map.shape
    assert max(errors(ours, theirs).values()) < tolerance


@pytest.mark.parametrize(
    ("which", "side"),
    [  # maps of 18, 9, 4 and 2; of 28, 14, 7 and 4; of 34, 17, 9 and 5, in windows of 7
        ("convnext torchvision", 72),
        ("convnext timm", 72),
        ("swin torchvision", 112),
        ("swin torchvision", 136),
    ],
)
def test_three_depths(which, side, monkeypatch):
    build, ours, design = SMALL[which]
    family, layout = which.split()
    name = f"{family}_small"
    monkeypatch.setitem(ARCHITECTURES, name, Architecture(partial(ours, design), {}))
    same_at_three_depths(randomise(build()), name, layout, side, 1e-5)


def test_three_depths_of_timms_vit(monkeypatch):
    sizes = {"image_size": 64, "depth": 3, "width": 48, "heads": 3}
    monkeypatch.setitem(ARCHITECTURES, "vit_s_16", Architecture(partial(vit, **sizes), {}))
    same_at_three_depths(randomise(timm_vit()), "vit_s_16", "timm", 64, 1e-5)


def test_a_distilled_checkpoint_is_refused_by_its_parts():
    module = import_timm("timm.models.deit")
    sizes = {"embed_dim": 384, "depth": 1, "num_heads": 6}
    network = module.VisionTransformerDistilled(**sizes)
    shapes = {key: np.zeros(value.shape) for key, value in network.state_dict().items()}
    with pytest.raises(UsageError) as error:
        convert_state_dict(shapes, "vit_s_16", "timm")
    for part in ("head_dist.weight (1000, 384)", "dist_token (1, 1, 384)"):
        assert f"left over in the checkpoint: {part}" in str(error.value)


def test_dinov2_on_a_table_of_larger_images(monkeypatch):
    """timm has the same backbone; its table is resized by torch as DINOv2's code does it."""
    torch = pytest.importorskip("torch")
    module = import_timm("timm.models.vision_transformer")
    sizes = {"img_size": 224, "patch_size": 14, "embed_dim": 24, "depth": 2, "num_heads": 3}
    backbone = randomise(module.VisionTransformer(num_classes=0, init_values=0.5, **sizes), 224)
    linear = torch.nn.Linear(48, CLASSES)
    large = torch.randn(1, 1 + 37 * 37, 24)
    grid = large[:, 1:].reshape(1, 37, 37, 24).permute(0, 3, 1, 2)
    factors = ((16 + 0.1) / 37,) * 2
    resized = torch.nn.functional.interpolate(grid, scale_factor=factors, mode="bicubic")
    resized = resized.permute(0, 2, 3, 1).reshape(1, 256, 24)
    backbone.pos_embed.data = torch.cat([large[:, :1], resized], dim=1)
    state = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    state |= {f"linear_head.{key}": value for key, value in linear.state_dict().items()}
    state |= {"backbone.pos_embed": large, "backbone.mask_token": torch.zeros(1, 24)}

    build = partial(dinov2, depth=2, width=24, heads=3)
    monkeypatch.setitem(ARCHITECTURES, "dinov2_vits14", Architecture(build, {}))
    arrays = convert_state_dict(state, "dinov2_vits14")
    empty = abstract_model("dinov2_vits14", CLASSES)
    images = noise(2, 224)
    ours = run(fill(empty, lambda path: jnp.asarray(arrays[path])), images)

    with torch.inference_mode():
        tokens = backbone.forward_features(torch.tensor(images.transpose(0, 3, 1, 2)))
        pooled = torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)
        logits = linear(pooled).numpy()
    features = tokens[:, 1:].reshape(2, 16, 16, 24).numpy()
    assert max(errors(ours, Depths(features, pooled.numpy(), logits)).values()) < 1e-5


@pytest.mark.parametrize("layout", ["dinov2", "pretrain", "timm"])
def test_dinov2_with_registers(monkeypatch, layout):
    """timm's network; its class token has its position in it, its table is resized by torch."""
    torch = pytest.importorskip("torch")
    module = import_timm("timm.models.vision_transformer")
    sizes = {"img_size": 224, "patch_size": 14, "embed_dim": 24, "depth": 2, "num_heads": 3}
    sizes |= {"reg_tokens": 4, "no_embed_class": True, "num_classes": 0, "init_values": 0.5}
    backbone = randomise(module.VisionTransformer(**sizes), 224)
    backbone.reg_token.data.normal_()
    state = dict(backbone.state_dict())
    large, linear = torch.randn(1, 1 + 37 * 37, 24), torch.nn.Linear(48, CLASSES)
    grid = large[:, 1:].reshape(1, 37, 37, 24).permute(0, 3, 1, 2)
    how = {"size": (16, 16), "mode": "bicubic", "antialias": True}
    resized = torch.nn.functional.interpolate(grid, **how)
    backbone.pos_embed.data = resized.permute(0, 2, 3, 1).reshape(1, 256, 24)
    if layout == "timm":
        state["pos_embed"] = large[:, 1:]
    else:
        backbone.cls_token.data += large[:, :1]
        state |= {"pos_embed": large, "register_tokens": state.pop("reg_token")}
        state["cls_token"] = backbone.cls_token.data - large[:, :1]
        state["mask_token"] = torch.zeros(1, 24)
    if layout == "dinov2":
        state = {f"backbone.{key}": value for key, value in state.items()}
        state |= {f"linear_head.{key}": value for key, value in linear.state_dict().items()}

    build = partial(dinov2, depth=2, width=24, heads=3, registers=4)
    monkeypatch.setitem(ARCHITECTURES, "dinov2_vits14_reg4", Architecture(build, {}))
    arrays = convert_state_dict(state, "dinov2_vits14_reg4", layout)
    head = {"kernel": linear.weight.detach().numpy().T, "bias": linear.bias.detach().numpy()}
    if layout != "dinov2":
        assert arrays["classifier/kernel"].shape == (48, 0)
        arrays |= {f"classifier/{name}": array for name, array in head.items()}
    model = fill(
        abstract_model("dinov2_vits14_reg4", CLASSES), lambda path: jnp.asarray(arrays[path])
    )
    images = noise(2, 224)
    with torch.inference_mode():
        tokens = backbone.forward_features(torch.tensor(images.transpose(0, 3, 1, 2)))
        pooled = torch.cat([tokens[:, 0], tokens[:, 5:].mean(dim=1)], dim=1)
        logits = linear(pooled).numpy()
    features = tokens[:, 5:].reshape(2, 16, 16, 24).numpy()
    theirs = Depths(features, pooled.numpy(), logits)
    assert max(errors(run(model, images), theirs).values()) < 1e-5


def test_windows_that_are_moved_look_past_no_border():
    """Two positions that the roll brings into one window do not see each other."""
    block = Block(8, 1, shifted=True)
    for layer in (block.qkv, block.projection):
        layer.kernel[...] = 0.3 * jax.random.normal(jax.random.key(0), layer.kernel.shape)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 14, 14, 8), np.float32))
    attention = nnx.jit(Block.attention)
    one, two = (np.asarray(attention(block, y)) for y in (x, x.at[:, 13, 13].set(0)))
    changed = np.abs(one - two)[0].max(axis=-1) > 1e-6
    expected = np.zeros((14, 14), bool)
    expected[10:, 10:] = True
    np.testing.assert_array_equal(changed, expected)


FULL = [
    ("swin_t", "torchvision"),
    ("convnext_tiny", "torchvision"),
    ("convnext_tiny", "timm"),
    ("convnext_base", "timm"),
    ("vit_s_16", "timm"),
    ("vit_b_16", "timm"),
]


@pytest.mark.long
@pytest.mark.parametrize(("name", "layout"), FULL)
def test_full_size(name, layout):
    reference = find_reference(name, layout)
    package = (import_timm if layout == "timm" else import_torchvision)(reference.package)
    network = reference.build(package, name, 1000)
    for key, parameter in network.named_parameters():
        if key.endswith(("layer_scale", "gamma")):  # 1e-6 would leave nothing of the blocks
            parameter.data.fill_(0.3)
    same_at_three_depths(randomise(network, 224), name, layout, 224, 1e-4)


@pytest.mark.long
def test_full_size_of_a_backbone_without_a_head():
    """timm's DINOv2 with registers, which is recognised by its keys."""
    torch = pytest.importorskip("torch")
    network = import_timm().create_model("vit_small_patch14_reg4_dinov2", img_size=224)
    network = randomise(network, 224)
    state = network.state_dict()
    match = recognise({key: tuple(value.shape) for key, value in state.items()}, None)
    assert (match.architecture, match.num_classes) == ("dinov2_vits14_reg4", 0)
    images = noise(2, 224)
    with torch.inference_mode():
        tokens = network.forward_features(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    arrays = convert_state_dict(state, match.architecture)
    empty = abstract_model(match.architecture, 0)
    found = run(fill(empty, lambda path: jnp.asarray(arrays[path])), images)
    grid = tokens[:, 5:].reshape(2, 16, 16, 384)
    pooled = np.concatenate([tokens[:, 0], grid.mean(axis=(1, 2))], axis=1)
    for ours, theirs in ((found.feature_map, grid), (found.pooled, pooled)):
        assert np.abs(np.asarray(ours) - theirs).max() < 1e-4 * np.abs(theirs).max()
