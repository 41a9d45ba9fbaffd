"""How large the networks are, and where their blocks end: listed without building them."""

from collections.abc import Iterable
from typing import NamedTuple

from jaxood.models import regnet, tiny_vit


class Size(NamedTuple):
    """How large a network is, without building it.

    Attributes:
      body: parameters before the linear layer.
      channels: of the feature map.
      stride: input pixels a side to a position of the feature map.
      block_ends: as the network's.
      together: how many vectors of so many channels are pooled.
    """

    body: int
    channels: int
    stride: int
    block_ends: tuple[str, ...]
    together: int = 1


def _ends(pattern: str, depths: Iterable[int], first: int = 1) -> tuple[str, ...]:
    return tuple(pattern.format(group, depth - 1) for group, depth in enumerate(depths, first))


def _numbered(pattern: str, *numbers: int) -> tuple[str, ...]:
    return tuple(map(pattern.format, numbers))


TINY_ENDS = _ends("stages.{}.blocks.{}", tiny_vit.DEPTHS, 0)
VIT_ENDS = _numbered("encoder_layer_{}", 2, 5, 8, 11)
LITE_ENDS = (*_numbered("blocks.{}", 0, 2, 4, 10), "conv_head")
DINO_ENDS = (*_numbered("blocks.{}", 2, 5, 8), "norm")
CLIP_ENDS = (*_numbered("resblocks.{}", 2, 5, 8), "proj")
SWIN_ENDS = ("features.1.1", "features.3.1", "features.5.5", "norm")


def _convnext_ends(third: int) -> tuple[str, ...]:
    return ("features.1.2", "features.3.2", f"features.5.{third - 1}", "features.7.2")


def _regnet_ends(name: str) -> tuple[str, ...]:
    return _ends("trunk_output.block{0}.block{0}-{1}", regnet.DESIGNS[name].depths)


SIZES: dict[str, Size] = {
    "resnet18": Size(11_171_712, 512, 32, _ends("layer{}.{}", (2, 2, 2, 2))),
    "resnet34": Size(21_276_160, 512, 32, _ends("layer{}.{}", (3, 4, 6, 3))),
    "resnet50": Size(23_481_472, 2048, 32, _ends("layer{}.{}", (3, 4, 6, 3))),
    "resnet101": Size(42_447_488, 2048, 32, _ends("layer{}.{}", (3, 4, 23, 3))),
    "resnet18_32x32": Size(11_164_032, 512, 8, _ends("layer{}.{}", (2, 2, 2, 2))),
    "mobilenet_v2": Size(2_206_816, 1280, 32, _numbered("features.{}", 1, 3, 6, 13, 18)),
    "efficientnet_lite0": Size(3_350_000, 1280, 32, LITE_ENDS),
    "regnet_y_400mf": Size(3_889_568, 440, 32, _regnet_ends("regnet_y_400mf")),
    "regnet_y_800mf": Size(5_632_296, 784, 32, _regnet_ends("regnet_y_800mf")),
    "regnet_y_1_6gf": Size(10_287_094, 888, 32, _regnet_ends("regnet_y_1_6gf")),
    "regnet_y_3_2gf": Size(17_890_258, 1512, 32, _regnet_ends("regnet_y_3_2gf")),
    "regnet_y_8gf": Size(37_321_208, 2016, 32, _regnet_ends("regnet_y_8gf")),
    "regnet_y_16gf": Size(80_503_732, 3024, 32, _regnet_ends("regnet_y_16gf")),
    "vit_s_16": Size(21_665_664, 384, 16, VIT_ENDS),
    "vit_b_16": Size(85_798_656, 768, 16, VIT_ENDS),
    "vit_b_16_384": Size(86_090_496, 768, 16, VIT_ENDS),
    "swin_t": Size(27_519_354, 768, 32, SWIN_ENDS),
    "convnext_tiny": Size(27_820_128, 768, 32, _convnext_ends(9)),
    "convnext_base": Size(87_566_464, 1024, 32, _convnext_ends(27)),
    "dinov2_vits14": Size(21_628_800, 384, 14, DINO_ENDS, 2),
    "dinov2_vitb14": Size(85_724_928, 768, 14, DINO_ENDS, 2),
    "dinov2_vits14_reg4": Size(21_630_336, 384, 14, DINO_ENDS, 2),
    "dinov2_vitb14_reg4": Size(85_728_000, 768, 14, DINO_ENDS, 2),
    "clip_vit_b_16": Size(86_193_153, 512, 16, CLIP_ENDS),
    "clip_vit_b_16_quickgelu": Size(86_193_153, 512, 16, CLIP_ENDS),
    "tiny_vit_5m_224": Size(5_066_836, 320, 32, TINY_ENDS),
    "tiny_vit_11m_224": Size(10_541_540, 448, 32, TINY_ENDS),
    "tiny_vit_21m_224": Size(20_612_400, 576, 32, TINY_ENDS),
    "tiny_vit_21m_384": Size(20_644_320, 576, 32, TINY_ENDS),
    "digits_cnn": Size(56_320, 64, 2, ("conv1", "conv3")),
}
