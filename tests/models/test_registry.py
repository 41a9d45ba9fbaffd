"""Published weights as the publishers' tables describe them; sizes as the networks have them."""

import functools
import math

import jax
import numpy as np
import pytest
from flax import nnx
from references import import_timm, import_torchvision

from jaxood.cli import main
from jaxood.errors import UsageError
from jaxood.models.loading import abstract_model, parameters
from jaxood.models.registry import (
    ARCHITECTURES,
    Architecture,
    ModelRow,
    find_architecture,
    model_rows,
)
from jaxood.models.sizes import SIZES
from jaxood.outputs import ModelOutputs


def tags(prefix: str) -> list:
    return [
        pytest.param(name, tag, id=f"{name}-{tag}")
        for name, architecture in ARCHITECTURES.items()
        for tag in architecture.tags
        if tag.startswith(prefix) and not name.endswith("_384")
    ]


@pytest.mark.parametrize(("name", "tag"), tags("IMAGENET1K_V"))
def test_tags_of_torchvision(name, tag):
    check_torchvision(ARCHITECTURES[name], name, tag)


@pytest.mark.parametrize("name", ["regnet_y_16gf"])
@pytest.mark.parametrize("tag", ["IMAGENET1K_SWAG_E2E_V1", "IMAGENET1K_SWAG_LINEAR_V1"])
def test_tags_of_weakly_supervised_weights(name, tag):
    check_torchvision(ARCHITECTURES[name], name, tag)


def check_torchvision(architecture: Architecture, name: str, tag: str):
    ours = architecture.tags[tag]
    theirs = import_torchvision("torchvision.models").get_model_weights(name)[tag]
    transform = theirs.transforms()
    assert ours.checkpoints[0] == theirs.url.rpartition("/")[2]
    assert ours.preprocessing.resize == transform.resize_size[0]
    assert ours.preprocessing.crop == transform.crop_size[0]
    assert ours.preprocessing.interpolation == transform.interpolation.value
    assert list(ours.preprocessing.mean) == transform.mean
    assert list(ours.preprocessing.std) == transform.std
    assert ours.top1 == theirs.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert ours.num_classes == len(theirs.meta["categories"])


@pytest.mark.parametrize(
    ("name", "tag", "published"),
    [
        ("resnet18", "a1_in1k", "resnet18.a1_in1k"),
        ("resnet34", "a1_in1k", "resnet34.a1_in1k"),
        ("resnet50", "a1_in1k", "resnet50.a1_in1k"),
        ("resnet101", "a1_in1k", "resnet101.a1_in1k"),
        ("mobilenet_v2", "ra_in1k", "mobilenetv2_100.ra_in1k"),
        ("efficientnet_lite0", "tf_in1k", "tf_efficientnet_lite0.in1k"),
        ("vit_s_16", "deit_in1k", "deit_small_patch16_224.fb_in1k"),
        ("vit_s_16", "augreg_in1k", "vit_small_patch16_224.augreg_in1k"),
        ("vit_s_16", "augreg_in21k_ft_in1k", "vit_small_patch16_224.augreg_in21k_ft_in1k"),
        ("vit_b_16", "deit_in1k", "deit_base_patch16_224.fb_in1k"),
        ("vit_b_16", "augreg_in1k", "vit_base_patch16_224.augreg_in1k"),
        ("vit_b_16", "augreg_in21k_ft_in1k", "vit_base_patch16_224.augreg_in21k_ft_in1k"),
        ("vit_b_16", "augreg2_in21k_ft_in1k", "vit_base_patch16_224.augreg2_in21k_ft_in1k"),
        ("clip_vit_b_16", "laion2b", "vit_base_patch16_clip_224.laion2b"),
        ("clip_vit_b_16", "datacompxl", "vit_base_patch16_clip_224.datacompxl"),
        (
            "clip_vit_b_16_quickgelu",
            "metaclip_400m",
            "vit_base_patch16_clip_224.metaclip_400m",
        ),
        ("convnext_tiny", "fb_in1k", "convnext_tiny.fb_in1k"),
        ("convnext_tiny", "fb_in22k_ft_in1k", "convnext_tiny.fb_in22k_ft_in1k"),
        ("convnext_base", "fb_in1k", "convnext_base.fb_in1k"),
        ("convnext_base", "fb_in22k_ft_in1k", "convnext_base.fb_in22k_ft_in1k"),
    ],
)
def test_tags_of_timm(name, tag, published):
    ours = ARCHITECTURES[name].tags[tag]
    theirs = import_timm().get_pretrained_cfg(published)
    # On the hub a folder a model; elsewhere the file's own name.
    hub = ours.checkpoints[0] == f"{published}/model.safetensors" and theirs.hf_hub_id
    assert hub or ours.checkpoints[0] == theirs.url.rpartition("/")[2]
    assert ours.preprocessing.crop == theirs.input_size[-1]
    assert ours.preprocessing.resize == int(theirs.input_size[-1] / theirs.crop_pct)
    assert ours.preprocessing.interpolation == theirs.interpolation
    assert ours.preprocessing.mean == theirs.mean
    assert ours.preprocessing.std == theirs.std


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet18_32x32",
        "mobilenet_v2",
        "efficientnet_lite0",
        "regnet_y_400mf",
        "vit_s_16",
        "dinov2_vits14",
        "dinov2_vits14_reg4",
        "clip_vit_b_16",
        "tiny_vit_5m_224",
        "swin_t",
        "convnext_tiny",
        "digits_cnn",
    ],
)
def test_blocks_end_where_the_resolution_changes(name):
    """Without a stem that has a resolution of its own; in a plain transformer, by quarters."""
    (tag, *_) = ARCHITECTURES[name].tags.values()
    network = abstract_model(name, tag.num_classes)
    side = tag.preprocessing.crop
    activation, sizes = jax.ShapeDtypeStruct((1, side, side, 3), np.float32), {}
    for stage in network.stage_names:

        def run(model, x, stage=stage):
            return model.stages[stage](x)

        activation = nnx.eval_shape(run, network, activation)
        spatial = nnx.eval_shape(lambda model, x: model.spatial(x), network, activation)
        sizes[spatial.shape[1]] = stage
    if len(sizes) == 1:
        quarters = [network.stage_names[1 + index] for index in (2, 5, 8)]
        expected = (*quarters, network.stage_names[-1])
    else:
        stem = len(sizes) > 2 and network.stage_names[0] in sizes.values()
        expected = tuple(sizes.values())[stem:]
    assert network.block_ends == expected


@functools.cache
def shapes_of(name: str, classes: int, crop: int) -> tuple[int, ModelOutputs]:
    """The parameters' number, and what one image of that size gives, traced."""
    network = abstract_model(name, classes)
    images = jax.ShapeDtypeStruct((1, crop, crop, 3), np.float32)
    outputs = nnx.eval_shape(lambda model, x: model(x), network, images)
    return sum(math.prod(array.shape) for array in parameters(network).values()), outputs


@pytest.mark.long
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_row_is_what_its_network_has(name):
    tags = ARCHITECTURES[name].tags
    rows = model_rows(name)
    assert [row.tag for row in rows] == list(tags)
    for row in rows:
        tag = tags[row.tag]
        assert row.input == tag.preprocessing.crop
        count, outputs = shapes_of(name, tag.num_classes, row.input)
        assert row.parameters == count
        assert (1, *row.feature_map) == outputs.feature_map.shape
        assert outputs.pooled.shape == (1, SIZES[name].together * row.feature_map[2])
        assert outputs.logits.shape == (1, tag.num_classes)


def test_no_network_is_listed_without_its_size():
    assert SIZES.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_listed_layers_are_the_networks(name):
    assert abstract_model(name, 10).block_ends == SIZES[name].block_ends


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50",
        "resnet101",
        "mobilenet_v2",
        "vit_b_16",
        "swin_t",
        "convnext_tiny",
        "convnext_base",
        "regnet_y_400mf",
    ],
)
def test_parameters_are_as_many_as_torchvisions_but_for_folded_norms(name):
    torch = pytest.importorskip("torch")
    models = import_torchvision("torchvision.models")
    with torch.device("cpu" if "regnet" in name else "meta"):  # RegNet reads its widths off tensors
        network = models.get_model(name)
    count = sum(parameter.numel() for parameter in network.parameters())
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    folded = sum(norm.num_features for norm in norms)  # scale and shift there, one bias here
    found = {
        row.parameters
        for row in model_rows(name)
        if ARCHITECTURES[name].tags[row.tag].num_classes == 1000
    }
    assert found == {count - folded}


def test_rows_by_name():
    everything = model_rows()
    assert len(everything) == sum(len(entry.tags) for entry in ARCHITECTURES.values())
    (row,) = model_rows("resnet50.a1_in1k")
    assert row == ModelRow(
        "resnet50",
        "a1_in1k",
        25_557_032 - 26_560,  # torchvision's, and its norms' channels
        224,
        (7, 7, 2048),
        80.4,
        "timm",
        ("resnet50_a1_0-14fe96d1.pth",),
        ("layer1.2", "layer2.3", "layer3.5", "layer4.2"),
    )
    for name in ("resnet5", "resnet50.a2_in1k", ".a1_in1k", "resnet50."):
        with pytest.raises(UsageError, match="name: got .*, wanted one of") as caught:
            model_rows(name)
        assert "\n" not in str(caught.value)


def test_an_architecture_with_or_without_its_tag():
    assert find_architecture("resnet50", "arch") == ("resnet50", None)
    assert find_architecture("resnet50.a1_in1k", "arch") == ("resnet50", "a1_in1k")
    with pytest.raises(UsageError, match="arch: got 'resnet5', .*Did you mean resnet50"):
        find_architecture("resnet5.a1_in1k", "arch")
    with pytest.raises(UsageError, match="arch: got 'cifar10', wanted one of IMAGENET1K_V1"):
        find_architecture("resnet50.cifar10", "arch")


def test_the_list_of_models(capsys):
    assert main("models", []) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(model_rows())
    assert main("models", ["mobilenet_v2.IMAGENET1K_V1"]) == 0
    (_, line) = capsys.readouterr().out.splitlines()
    wanted = ["mobilenet_v2", "3.49", "M", "224x224", "7x7x1280", "IMAGENET1K_V1", "71.9"]
    layers = "features.1/features.3/features.6/features.13/features.18"
    assert line.split() == [*wanted, "torchvision", "mobilenet_v2-b0353104.pth", layers]
    assert main("models", ["mobilenet"]) == 2
    assert "name: got 'mobilenet', wanted one of" in capsys.readouterr().err
