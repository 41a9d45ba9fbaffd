"""The rules: folding by hand, every published layout complete, and all problems at once."""

import numpy as np
import pytest
from references import import_timm, import_torchvision

from jaxood.conversion import convert_state_dict
from jaxood.conversion.convert import recognise
from jaxood.conversion.layouts import layouts_of
from jaxood.conversion.rules import Layout, carry_out, conv, linear, make_plan
from jaxood.errors import UsageError
from jaxood.models.registry import ARCHITECTURES

torch = pytest.importorskip("torch")


def test_batch_norm_folds_as_by_hand():
    layout = Layout(
        "hand", "hand", (conv("c", "b", "conv"), linear("f", "classifier")), epsilon=0.25
    )
    arrays = {
        "c.weight": np.array([[[[2.0]]], [[[4.0]]]], np.float32),
        "b.weight": np.array([3.0, 1.0], np.float32),
        "b.bias": np.array([1.0, 0.0], np.float32),
        "b.running_mean": np.array([10.0, 8.0], np.float32),
        "b.running_var": np.array([2.0, 3.75], np.float32),  # + 0.25: deviations 1.5 and 2
        "f.weight": np.array([[5.0, 6.0]], np.float32),
        "f.bias": np.array([7.0], np.float32),
    }
    targets = {
        "conv/kernel": (1, 1, 1, 2),
        "conv/bias": (2,),
        "classifier/kernel": (2, 1),
        "classifier/bias": (1,),
    }
    plan = make_plan({key: value.shape for key, value in arrays.items()}, targets, layout)
    assert plan.problems == []
    made = {path: carry_out(plan.steps[path], arrays.__getitem__, 0.25) for path in targets}
    np.testing.assert_array_equal(made["conv/kernel"].ravel(), [4.0, 2.0])
    np.testing.assert_array_equal(made["conv/bias"], [-19.0, -4.0])
    np.testing.assert_array_equal(made["classifier/kernel"], [[5.0], [6.0]])
    assert {array.dtype for array in made.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("fc.weight", np.inf, "fc.weight, which"),
        ("fc.bias", np.nan, "fc.bias, which"),
        ("fc.bias", 1e39, "fc.bias, which"),  # in float64: too large here
        ("bn1.running_var", -1.0, "conv1.weight and bn1, which"),
        ("bn1.running_mean", np.nan, "bn1, which"),
        ("bn1.weight", -np.inf, "bn1, which"),
    ],
)
def test_values_that_are_not_finite_are_named(key, value, named):
    network = import_torchvision("torchvision.models").resnet18(num_classes=3)
    arrays = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    arrays[key].flat[-1] = value
    with pytest.raises(UsageError, match=f"^checkpoint: got .*{named} give values that are not"):
        convert_state_dict(arrays, "resnet18")


@pytest.fixture(scope="module")
def mobilenet():
    with torch.device("meta"):
        network = import_torchvision("torchvision.models").mobilenet_v2()
    zero = np.float32(0)
    return {k: np.broadcast_to(zero, tuple(v.shape)) for k, v in network.state_dict().items()}


def test_all_problems_are_in_one_message(mobilenet):
    wrong = dict(mobilenet)
    del wrong["features.0.0.weight"], wrong["features.3.conv.1.1.running_var"]
    wrong["extra.weight"] = np.zeros(3)
    wrong["features.18.0.bias_"] = np.zeros(3)
    wrong["features.5.conv.2.weight"] = np.zeros((32, 100, 1, 1))
    wrong["features.6.conv.3.bias"] = np.zeros(31)
    wrong["features.7.conv.3.running_mean"] = np.zeros(1)  # would broadcast
    with pytest.raises(UsageError) as caught:
        convert_state_dict(wrong, "mobilenet_v2")
    message = str(caught.value)
    for part in (
        "not fit mobilenet_v2 in the torchvision layout",
        "missing in the checkpoint: features.3.conv.1.1.running_var",
        "left over in the checkpoint: extra.weight (3,)",
        "left over in the checkpoint: features.18.0.bias_ (3,)",
        "not filled: stages/features.0/kernel (3, 3, 3, 32)",
        "shape differs: features.5.conv.2.weight gives stages/features.5/project/kernel"
        " (1, 1, 100, 32), wanted (1, 1, 192, 32)",
        "shape differs: features.6.conv.3.bias",
        "shape differs: features.7.conv.3.running_mean gives stages/features.7/project/bias (1,)",
    ):
        assert part in message, message


def test_a_layer_too_many_is_named(mobilenet):
    wrong = dict(mobilenet)
    for part in ("weight", "bias", "running_mean", "running_var"):
        wrong[f"features.19.conv.3.{part}"] = np.zeros(320)
    wrong["features.19.conv.2.weight"] = np.zeros((320, 960, 1, 1))
    with pytest.raises(UsageError, match="no place for: features.19.conv.2.weight"):
        convert_state_dict(wrong, "mobilenet_v2")


def test_two_arrays_for_one_parameter_are_named():
    names = ("vit_b_16", "encoder.layers.encoder_layer_3.mlp.")
    with torch.device("meta"):
        network = import_torchvision("torchvision.models").vit_b_16()
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    shapes[f"{names[1]}linear_1.bias"] = (3072,)
    with pytest.raises(UsageError, match=f"two of the same: {names[1]}0.bias and {names[1]}linear"):
        recognise(shapes, names[0])


def test_another_architecture_is_told_apart(mobilenet):
    shapes = {key: value.shape for key, value in mobilenet.items()}
    assert recognise(shapes, None).architecture == "mobilenet_v2"
    with pytest.raises(UsageError, match=r"^checkpoint: got keys such as features.0.0.weight"):
        recognise(shapes, "resnet50")
    with pytest.raises(UsageError, match="Did you mean mobilenet_v2"):
        recognise(shapes, "mobilenetv2")


def meta_shapes(build):
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in build().state_dict().items()}


PUBLISHED = [
    *((name, "torchvision", "torchvision") for name in ("resnet18", "resnet34", "resnet101")),
    ("resnet50", "torchvision", "torchvision"),
    ("resnet50", "timm", "torchvision"),
    ("mobilenet_v2", "torchvision", "torchvision"),
    ("mobilenet_v2", "timm", "timm"),
    ("efficientnet_lite0", "timm", "timm"),
    ("vit_b_16", "torchvision", "torchvision"),
    ("vit_b_16_384", "torchvision", "torchvision"),
    *((f"tiny_vit_{size}", "timm", "timm") for size in ("5m_224", "11m_224", "21m_384")),
    ("tiny_vit_21m_224", "timm", "timm"),
]
TIMM = {"mobilenet_v2": "mobilenetv2_100", "efficientnet_lite0": "tf_efficientnet_lite0"}


@pytest.mark.long
@pytest.mark.parametrize(("name", "source", "layout"), PUBLISHED)
def test_every_published_layout_is_complete_and_recognised(name, source, layout):
    if source == "timm":
        timm = import_timm()
        shapes = meta_shapes(lambda: timm.create_model(TIMM.get(name, name), num_classes=11))
    else:
        models = import_torchvision("torchvision.models")
        size = {"image_size": 384} if name.endswith("_384") else {}
        builder = getattr(models, name.removesuffix("_384"))
        shapes = meta_shapes(lambda: builder(num_classes=11, **size))
    match = recognise(shapes, name)
    assert (match.architecture, match.num_classes) == (name, 11)
    assert match.plan.layout.name == layout
    assert recognise(shapes, None) == match


def test_regnet_is_complete_and_recognised():
    models = import_torchvision("torchvision.models")
    shapes = {k: tuple(v.shape) for k, v in models.regnet_y_400mf().state_dict().items()}
    assert recognise(shapes, None).architecture == "regnet_y_400mf"


def test_every_tag_has_its_layout():
    for name, entry in ARCHITECTURES.items():
        for tag, weights in entry.tags.items():
            assert weights.layout in layouts_of(name) or not weights.layout, (name, tag)
