"""Architectures and the weight tags that are published for them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from flax import nnx

from jaxood.context import Pooling
from jaxood.errors import choose
from jaxood.heads import Head
from jaxood.models import convnext, swin, tiny_vit
from jaxood.models.arithmetic import ARITHMETIC
from jaxood.models.backbone import Backbone
from jaxood.models.clip import clip
from jaxood.models.digits_cnn import digits_cnn
from jaxood.models.dinov2 import dinov2
from jaxood.models.efficientnet_lite import efficientnet_lite0
from jaxood.models.mobilenet_v2 import mobilenet_v2
from jaxood.models.regnet import DESIGNS, regnet
from jaxood.models.resnet import BasicBlock, Bottleneck, resnet
from jaxood.models.sizes import SIZES
from jaxood.models.vit import vit
from jaxood.preprocessing import Preprocessing


@dataclass(frozen=True)
class WeightTag:
    """A published set of weights: how its images are prepared, where its checkpoint comes from.

    Attributes:
      layout: name of the conversion rules for its keys ("torchvision", "timm"...).
      source: whose weights they are.
      checkpoints: published file names, most usual first.
      top1: published top-1 accuracy in per cent.
    """

    preprocessing: Preprocessing
    layout: str
    source: str
    checkpoints: tuple[str, ...]
    num_classes: int = 1000
    top1: float | None = None


@dataclass(frozen=True)
class Architecture:
    """A network by name: `build(num_classes)` gives it with unfilled (zero) weights."""

    build: Callable[[int], Backbone]
    tags: dict[str, WeightTag]


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to use, and what a run must know of it.

    Attributes:
      name: architecture name, or what a model of the user's own is called.
      weights_hash: SHA-256 of the weights file, for fingerprints.
      dtype: of the backbone's arithmetic, a name in `ARITHMETIC`; pooled features and head are
        float32 always.
      pooling: how pooled features come from the feature map.
      class_names: one a class.
    """

    module: nnx.Module
    preprocessing: Preprocessing
    name: str
    tag: str
    weights_hash: str
    dtype: str = "float32"
    pooling: Pooling = "mean"
    class_names: tuple[str, ...] = ()

    @property
    def head(self) -> Head:
        return self.module.head  # type: ignore[attr-defined]  # checked when it was loaded

    @property
    def label(self) -> str:
        """Name and tag, for tables."""
        return f"{self.name}.{self.tag}" if self.tag else self.name

    @property
    def array_type(self) -> str:
        """Of the images that the backbone takes, and of what it makes of them."""
        return ARITHMETIC[self.dtype].arrays

    @property
    def classes(self) -> int:
        """How many the logits tell apart."""
        return self.head.kernel.shape[1]

    def identity(self) -> dict[str, object]:
        """What features and detectors depend on, as plain JSON values."""
        parts = {
            "name": self.name,
            "weights_sha256": self.weights_hash,
            "preprocessing": self.preprocessing.as_dict(),
            "dtype": self.dtype,
        }
        return json.loads(json.dumps(parts))


def _tag(
    layout, checkpoints, resize, crop, interpolation, top1=None, source="", num_classes=1000
) -> WeightTag:
    """The layout of a source is called as the source, where nothing else is said."""
    if isinstance(checkpoints, str):
        checkpoints = (checkpoints,)
    prepared = Preprocessing(resize, crop, interpolation)
    return WeightTag(prepared, layout, source or layout, checkpoints, num_classes, top1)


def _v1(checkpoints, top1) -> dict[str, WeightTag]:
    return {"IMAGENET1K_V1": _tag("torchvision", checkpoints, 256, 224, "bilinear", top1)}


def _v2(checkpoint, top1) -> dict[str, WeightTag]:
    return {"IMAGENET1K_V2": _tag("torchvision", checkpoint, 232, 224, "bilinear", top1)}


def _swag(fine_tuned, fine_tuned_top1, linear, linear_top1) -> dict[str, WeightTag]:
    """Weakly supervised by hashtags (Singh et al., CVPR 2022): whole network or head adapted."""
    return {
        "IMAGENET1K_SWAG_E2E_V1": _tag(
            "torchvision", fine_tuned, 384, 384, "bicubic", fine_tuned_top1
        ),
        "IMAGENET1K_SWAG_LINEAR_V1": _tag("torchvision", linear, 224, 224, "bicubic", linear_top1),
    }


def _a1(checkpoint, top1) -> dict[str, WeightTag]:
    """Wightman et al., "ResNet strikes back", 2021, table 3: accuracy at 224."""
    return {"a1_in1k": _tag("torchvision", checkpoint, 235, 224, "bicubic", top1, "timm")}


# knn-ood's checkpoint; NNGuide's code renames it.
SUPCON = _tag(
    "supcon", ("supcon.pth", "resnet50-supcon.pt"), 256, 224, "bilinear", source="knn-ood"
)

# OpenOOD v1.5 trains three seeds of each; the accuracy is their mean.
CIFAR = {
    "cifar10": WeightTag(
        Preprocessing(32, 32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
        "openood",
        "OpenOOD",
        ("cifar10_resnet18_32x32_base_e100_lr0.1_default/s0/best.ckpt",),
        num_classes=10,
        top1=95.06,
    ),
    "cifar100": WeightTag(
        Preprocessing(32, 32, mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761)),
        "openood",
        "OpenOOD",
        ("cifar100_resnet18_32x32_base_e100_lr0.1_default/s0/best.ckpt",),
        num_classes=100,
        top1=77.25,
    ),
}
IMAGENET200 = _tag(
    "torchvision",
    "imagenet200_resnet18_224x224_base_e90_lr0.1_default/s0/best.ckpt",
    256,
    224,
    "bilinear",
    86.37,
    "OpenOOD",
    200,
)

DIGITS = WeightTag(
    Preprocessing(8, 8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    layout="",  # trained here, never converted
    source="jaxood",
    checkpoints=(),
    num_classes=6,
)


def _lite0(layout, checkpoint) -> WeightTag:
    """Two ports of the weights of TensorFlow's authors, whose accuracy this is."""
    half = (0.5, 0.5, 0.5)
    prepared = Preprocessing(256, 224, "bicubic", half, half)
    return WeightTag(prepared, layout, layout, (checkpoint,), top1=75.1)


def _resnet(block, depths, tags, small_images=False) -> Architecture:
    return Architecture(partial(resnet, block, depths, small_images=small_images), tags)


def _regnet(name, tags) -> Architecture:
    return Architecture(partial(regnet, DESIGNS[name]), tags)


def _augreg(name, **accuracies) -> dict[str, WeightTag]:
    """Steiner et al., "How to train your ViT?", TMLR 2022, in timm; accuracies are timm's."""
    half = (0.5, 0.5, 0.5)
    prepared = Preprocessing(248, 224, "bicubic", half, half)
    return {
        tag: WeightTag(prepared, "timm", "timm", (f"{name}.{tag}/model.safetensors",), top1=top1)
        for tag, top1 in accuracies.items()
    }


def _deit(checkpoint, top1) -> WeightTag:
    """Touvron et al., ICML 2021, without a distillation token."""
    return _tag("timm", checkpoint, 248, 224, "bicubic", top1, "DeiT")


def _convnext(name, digest, resize, top1, in1k, in22k) -> Architecture:
    """torchvision's training, and the authors' two in timm (their accuracies)."""
    published = f"{name}-{digest}.pth"
    tags = {"IMAGENET1K_V1": _tag("torchvision", published, resize, 224, "bilinear", top1)}
    for tag, accuracy in (("fb_in1k", in1k), ("fb_in22k_ft_in1k", in22k)):
        published = f"{name}.{tag}/model.safetensors"
        tags[tag] = _tag("timm", published, 256, 224, "bicubic", accuracy)
    return Architecture(partial(convnext.convnext, convnext.DESIGNS[name]), tags)


def _dinov2(name, top1, **sizes) -> Architecture:
    """The backbone with its linear classifier of one layer, in one file: see dinov2.py."""
    size, registers = ("small" if "vits" in name else "base"), "_reg4" * name.endswith("_reg4")
    timms = f"vit_{size}_patch14{registers}_dinov2.lvd142m/model.safetensors"
    files = f"{name}_lc.pth", f"{name}_pretrain.pth", timms
    tag = _tag("dinov2", files, 256, 224, "bicubic", top1, "DINOv2")
    return Architecture(partial(dinov2, **sizes), {"lc_in1k": tag})


def _clip(layout, source, *checkpoints) -> WeightTag:
    """A checkpoint has no classes: those are texts, see `jaxood.head`."""
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    prepared = Preprocessing(224, 224, "bicubic", mean, std)
    return WeightTag(prepared, layout, source, checkpoints, num_classes=0)


def _tiny_vit(name, in1k=None, distilled=None) -> Architecture:
    """Trained on ImageNet-1k, or distilled on ImageNet-22k and fine-tuned (paper, table 2)."""
    crop = int(name.rpartition("_")[2])
    resize = crop if crop > 224 else 235  # 224 / 0.95
    accuracies = {"in1k": in1k, "dist_in22k_ft_in1k": distilled}
    tags = {
        tag: _tag("timm", f"{name}.{tag}/model.safetensors", resize, crop, "bicubic", top1)
        for tag, top1 in accuracies.items()
        if top1 is not None
    }
    return Architecture(partial(tiny_vit.tiny_vit, tiny_vit.DESIGNS[name]), tags)


ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": _resnet(
        BasicBlock,
        (2, 2, 2, 2),
        _v1("resnet18-f37072fd.pth", 69.758)
        | _a1("resnet18_a1_0-d63eafa0.pth", 71.5)
        | {"imagenet200": IMAGENET200},
    ),
    "resnet34": _resnet(
        BasicBlock,
        (3, 4, 6, 3),
        _v1("resnet34-b627a593.pth", 73.314) | _a1("resnet34_a1_0-46f8f793.pth", 76.4),
    ),
    "resnet50": _resnet(
        Bottleneck,
        (3, 4, 6, 3),
        _v1(("resnet50-0676ba61.pth", "resnet50-19c8e357.pth"), 76.130)
        | _v2("resnet50-11ad3fa6.pth", 80.858)
        | _a1("resnet50_a1_0-14fe96d1.pth", 80.4)
        | {"supcon": SUPCON},
    ),
    "resnet101": _resnet(
        Bottleneck,
        (3, 4, 23, 3),
        _v1("resnet101-63fe2227.pth", 77.374)
        | _v2("resnet101-cd907fc2.pth", 81.886)
        | _a1("resnet101_a1_0-cdcb52a9.pth", 81.5),
    ),
    "resnet18_32x32": _resnet(BasicBlock, (2, 2, 2, 2), CIFAR, small_images=True),
    "mobilenet_v2": Architecture(
        mobilenet_v2,
        _v1("mobilenet_v2-b0353104.pth", 71.878)
        | _v2("mobilenet_v2-7ebf99e0.pth", 72.154)
        | {"ra_in1k": _tag("timm", "mobilenetv2_100_ra-b33bc2c4.pth", 256, 224, "bicubic", 72.97)},
    ),
    "efficientnet_lite0": Architecture(
        efficientnet_lite0,
        {
            "lite_pytorch": _lite0("efficientnet_lite_pytorch", "efficientnet-lite0-57934424.pth"),
            "tf_in1k": _lite0("timm", "tf_efficientnet_lite0-0aa007d2.pth"),
        },
    ),
    "regnet_y_400mf": _regnet(
        "regnet_y_400mf",
        _v1("regnet_y_400mf-c65dace8.pth", 74.046) | _v2("regnet_y_400mf-e6988f5f.pth", 75.804),
    ),
    "regnet_y_800mf": _regnet(
        "regnet_y_800mf",
        _v1("regnet_y_800mf-1b27b58c.pth", 76.420) | _v2("regnet_y_800mf-58fc7688.pth", 78.828),
    ),
    "regnet_y_1_6gf": _regnet(
        "regnet_y_1_6gf",
        _v1("regnet_y_1_6gf-b11a554e.pth", 77.950) | _v2("regnet_y_1_6gf-0d7bc02a.pth", 80.876),
    ),
    "regnet_y_3_2gf": _regnet(
        "regnet_y_3_2gf",
        _v1("regnet_y_3_2gf-b5a9779c.pth", 78.948) | _v2("regnet_y_3_2gf-9180c971.pth", 81.982),
    ),
    "regnet_y_8gf": _regnet(
        "regnet_y_8gf",
        _v1("regnet_y_8gf-d0d0e4a8.pth", 80.032) | _v2("regnet_y_8gf-dc2b1b54.pth", 82.828),
    ),
    "regnet_y_16gf": _regnet(
        "regnet_y_16gf",
        _v1("regnet_y_16gf-9e6ed7dd.pth", 80.424)
        | _v2("regnet_y_16gf-3e4a00f9.pth", 82.886)
        | _swag(
            "regnet_y_16gf_swag-43afe44d.pth",
            86.012,
            "regnet_y_16gf_lc_swag-f3ec0043.pth",
            83.976,
        ),
    ),
    "vit_s_16": Architecture(
        partial(vit, width=384, heads=6),
        _augreg("vit_small_patch16_224", augreg_in21k_ft_in1k=81.4, augreg_in1k=78.8)
        | {"deit_in1k": _deit("deit_small_patch16_224-cd65a155.pth", 79.9)},
    ),
    "vit_b_16": Architecture(
        vit,
        _v1("vit_b_16-c867db91.pth", 81.072)
        | _augreg(
            "vit_base_patch16_224",
            augreg2_in21k_ft_in1k=85.1,
            augreg_in21k_ft_in1k=84.5,
            augreg_in1k=79.2,
        )
        | {"deit_in1k": _deit("deit_base_patch16_224-b5f2ef4d.pth", 81.8)}
        | {
            "IMAGENET1K_SWAG_LINEAR_V1": _tag(
                "torchvision", "vit_b_16_lc_swag-4e70ced5.pth", 224, 224, "bicubic", 81.886
            )
        },
    ),
    "vit_b_16_384": Architecture(
        partial(vit, image_size=384),
        {
            "IMAGENET1K_SWAG_E2E_V1": _tag(
                "torchvision", "vit_b_16_swag-9ac1b537.pth", 384, 384, "bicubic", 85.304
            )
        },
    ),
    "swin_t": Architecture(
        partial(swin.swin, swin.DESIGNS["swin_t"]),
        {"IMAGENET1K_V1": _tag("torchvision", "swin_t-704ceda3.pth", 232, 224, "bicubic", 81.474)},
    ),
    "convnext_tiny": _convnext("convnext_tiny", "983f1562", 236, 82.520, 82.1, 82.9),
    "convnext_base": _convnext("convnext_base", "6075fbad", 232, 84.062, 83.8, 85.8),
    "dinov2_vits14": _dinov2("dinov2_vits14", 81.1),
    "dinov2_vitb14": _dinov2("dinov2_vitb14", 84.5, width=768, heads=12),
    "dinov2_vits14_reg4": _dinov2("dinov2_vits14_reg4", 80.9, registers=4),
    "dinov2_vitb14_reg4": _dinov2("dinov2_vitb14_reg4", 84.6, width=768, heads=12, registers=4),
    "clip_vit_b_16": Architecture(
        clip,
        {
            tag: _clip("timm", "OpenCLIP", f"vit_base_patch16_clip_224.{tag}/model.safetensors")
            for tag in ("laion2b", "datacompxl")
        },
    ),
    "clip_vit_b_16_quickgelu": Architecture(
        partial(clip, quick=True),
        {
            "openai": _clip(
                "openai",
                "OpenAI",
                "ViT-B-16.pt",
                "vit_base_patch16_clip_224.openai/open_clip_model.safetensors",
                "vit_base_patch16_clip_224.openai/model.safetensors",
            ),
            "metaclip_400m": _clip(
                "timm", "MetaCLIP", "vit_base_patch16_clip_224.metaclip_400m/model.safetensors"
            ),
        },
    ),
    "tiny_vit_5m_224": _tiny_vit("tiny_vit_5m_224", in1k=79.1, distilled=80.7),
    "tiny_vit_11m_224": _tiny_vit("tiny_vit_11m_224", in1k=81.5, distilled=83.2),
    "tiny_vit_21m_224": _tiny_vit("tiny_vit_21m_224", in1k=83.1, distilled=84.8),
    "tiny_vit_21m_384": _tiny_vit("tiny_vit_21m_384", distilled=86.2),
    "digits_cnn": Architecture(digits_cnn, {"digits": DIGITS}),
}


class ModelRow(NamedTuple):
    """What is known of one weight tag of an architecture.

    Attributes:
      parameters: of the whole network.
      input: pixels a side.
      feature_map: height, width, channels.
      top1: published accuracy in per cent, where one is.
      source: whose weights they are.
      checkpoints: published file names.
      layers: at the ends of its blocks.
    """

    architecture: str
    tag: str
    parameters: int
    input: int
    feature_map: tuple[int, int, int]
    top1: float | None
    source: str
    checkpoints: tuple[str, ...]
    layers: tuple[str, ...]


def model_rows(name: str | None = None) -> list[ModelRow]:
    """All tags, or those of one architecture ("resnet50"), or one ("resnet50.a1_in1k").

    Raises:
      UsageError: for an unknown name.
    """
    names, only = list(ARCHITECTURES), None
    if name is not None:
        architecture, only = find_architecture(name, "name")
        names = [architecture]
    rows = []
    for architecture in names:
        body, channels, stride, block_ends, together = SIZES[architecture]
        for tag, weights in ARCHITECTURES[architecture].tags.items():
            pixels, classes = weights.preprocessing.crop, weights.num_classes
            rows.append(
                ModelRow(
                    architecture,
                    tag,
                    body + (together * channels + 1) * classes,
                    pixels,
                    (pixels // stride, pixels // stride, channels),
                    weights.top1,
                    weights.source,
                    weights.checkpoints,
                    block_ends,
                )
            )
    return [row for row in rows if only in (None, row.tag)]


def find_architecture(text: str, argument: str) -> tuple[str, str | None]:
    """An architecture, and the tag where the text names one: "resnet50", "resnet50.a1_in1k".

    Raises:
      UsageError: an unknown name or tag; `argument` is what it calls it.
    """
    name, dot, tag = text.partition(".")
    choose(argument, name, ARCHITECTURES)
    return name, choose(argument, tag, ARCHITECTURES[name].tags) if dot else None


def find_tag(architecture: str, tag: str) -> WeightTag:
    tags = ARCHITECTURES[choose("model", architecture, ARCHITECTURES)].tags
    return tags[choose("tag", tag, tags)]
