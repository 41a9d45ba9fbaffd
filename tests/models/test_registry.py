"""Published weights as the publishers' own tables describe them."""

import pytest
from references import import_timm, import_torchvision

from jaxood.models.registry import ARCHITECTURES, Architecture


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
    ],
)
def test_tags_of_timm(name, tag, published):
    ours = ARCHITECTURES[name].tags[tag]
    theirs = import_timm().get_pretrained_cfg(published)
    assert ours.checkpoints[0] == theirs.url.rpartition("/")[2]
    assert ours.preprocessing.crop == theirs.input_size[-1]
    assert ours.preprocessing.resize == int(theirs.input_size[-1] / theirs.crop_pct)
    assert ours.preprocessing.interpolation == theirs.interpolation
    assert ours.preprocessing.mean == theirs.mean
    assert ours.preprocessing.std == theirs.std
