"""Miniatures of published data, in the folders and lists that their authors use.

Written down from the authors' code and lists, not from jaxood's tables. Every file is one colour of
its own, so that what a network makes of it is known.
"""

import colorsys
import io
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = ("n01440764", "n01443537", "n15075141")  # classes 0, 1 and 999 of ImageNet
OOD = (-1,)
CROP = 32  # what the tests' networks take: ImageNet-C's images have this size, as 224 in truth


@cache
def picture(path: str) -> np.ndarray:
    """What is in a file, by its path in the list or below the folder of its set."""
    hue = np.random.default_rng(list(path.encode())).random()
    colour = [round(255 * value) for value in colorsys.hsv_to_rgb(hue, 1.0, 0.8)]
    if not path.startswith("imagenet_c/"):
        return np.full((44, 50, 3), colour, np.uint8)
    framed = np.zeros((CROP, CROP, 3), np.uint8)  # a crop would cut off of the black frame
    framed[4:-4, 4:-4] = colour
    return framed


def write_images(root: Path, paths: Iterable[str]) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        Image.fromarray(picture(path)).save(content, "PNG")  # without loss, whatever it is called
        (root / path).write_bytes(content.getvalue())


def lines(path: str, labels: Sequence[int]) -> list[str]:
    return [f"{path.format(i)} {label}" for i, label in enumerate(labels)]


def imagenet(name: str, last: int) -> dict[str, list[str]]:
    """The lists of the benchmark of all classes, or of 200 of them, the last with this number."""
    train, val = "imagenet_1k/train/{}/{}_1{{}}.JPEG", "imagenet_1k/val/ILSVRC2012_val_0000{}.JPEG"
    shifted = {
        "v2": lines("imagenet_v2/695/1638b8f31ee2{}.jpeg", [last, 0]),
        "c": lines("imagenet_c/jpeg_compression/{}/ILSVRC2012_val_00028158.JPEG", [0, 0]),
        "r": lines("imagenet_r/n02607072/misc_{}.jpg", [1, 1, 1]),
    }
    if name == "imagenet":
        shifted["es"] = lines("imagenet_es/es-test/n01443537/{}.JPEG", [1])
    return {
        f"train_{name}": lines(train.format(WNIDS[0], WNIDS[0]), [0] * 4)
        + lines(train.format(WNIDS[2], WNIDS[2]), [last] * 4),
        f"val_{name}": lines(val.format("6{}"), [0, 1, 0, 1, last]),
        f"test_{name}": [f"{line}  " for line in lines(val.format("2{}"), [0, 1, 1, last, 0, 1])],
        "val_openimage_o": lines("openimage_o/images/142782398b3af71{}.jpg", OOD),
        "test_ssb_hard": lines("ssb_hard/n11622368/n11622368_106{}.JPEG", OOD * 4),
        "test_ninco": lines("ninco/amphiuma_means/amphiuma_means_059_{}.jpg", OOD * 3),
        "test_inaturalist": lines("inaturalist/images/98945524784{}.jpg", OOD * 3),
        "test_textures": lines("texture/banded/banded_000{}.jpg", OOD * 2),
        "test_openimage_o": lines("openimage_o/images/b85bd6c20e9c378{}.jpg", OOD * 5),
        **{f"test_{name}_{kind}": found for kind, found in shifted.items()},
        "test_texture": lines("decoy/banded_000{}.jpg", OOD),  # version 1 of the benchmark
    }


def cifar(name: str, other: str, classes: tuple[str, str]) -> dict[str, list[str]]:
    train = [lines(f"{name}/train/{kind}/000{{}}.png", [i] * 4) for i, kind in enumerate(classes)]
    return {
        f"train_{name}": train[0] + train[1],
        f"val_{name}": lines(f"{name}/test/{classes[0]}/018{{}}.png", [0, 0, 0]),
        f"test_{name}": lines(f"{name}/test/{classes[1]}/029{{}}.png", [1, 1, 1, 1, 1]),
        "val_tin": lines("tin/val/images/val_2{}.JPEG", OOD),
        f"test_{other}": lines(f"{other}/test/streetcar/006{{}}.png", OOD * 3),
        "test_tin": lines("tin/val/images/val_1{}.JPEG", OOD * 2),
        "test_mnist": lines("mnist/test/8_848{}.jpg", OOD) + lines("mnist/train/3_{}.jpg", OOD * 2),
        "test_svhn": lines("svhn/test/02200{}_2.jpg", OOD * 2),
        "test_texture": lines("texture/gauzy/gauzy_013{}.jpg", OOD * 4),
        "test_places365": lines("places365/field-cultivated/Places365_val_{}.jpg", OOD * 2),
        "test_textures": lines("decoy/banded_000{}.jpg", OOD),  # ImageNet's, elsewhere
    }


OPENOOD = {
    "imagenet": imagenet("imagenet", 999),
    "imagenet200": imagenet("imagenet200", 199),
    "cifar10": cifar("cifar10", "cifar100", ("airplane", "cat"))
    | {"test_cifar10c": lines("cifar10c/04972_{}.png", [8, 0])},
    "cifar100": cifar("cifar100", "cifar10", ("apple", "bear")),
}


def image_root(benchmark: str, line: str) -> str:
    """ImageNet's sets lie together, but for Textures, which is with CIFAR's."""
    classic = benchmark.startswith("cifar") or line.startswith("texture/")
    return "images_classic" if classic else "images_largescale"


def write_openood(root: Path, benchmark: str, ending: str = "\n") -> Path:
    """OpenOOD's folder "data" with one of its four benchmarks.

    Args:
      ending: of lines; copies of the lists that have "\\r\\n" are in use.
    """
    folder = root / "benchmark_imglist" / benchmark
    folder.mkdir(parents=True)
    for name, found in OPENOOD[benchmark].items():
        (folder / f"{name}.txt").write_bytes("".join(line + ending for line in found).encode())
        for line in found:
            write_images(root / image_root(benchmark, line), [line.split(" ")[0]])
    return root


VAL = tuple(f"{wnid}/ILSVRC2012_val_0000029{i}.JPEG" for i, wnid in enumerate(WNIDS))
TEXTURES = ("banded/banded_0002.jpg", "zigzagged/zigzagged_0001.jpg")
SUN = ("sun_aaaevyiuguntlerb.jpg", "sun_aaaxbrksvmdyrhpe.jpg", "sun_dyzllobcgjpcvijp.jpg")
V2 = "imagenet1k-v2/imagenetv2-{}-format-val"
NNGUIDE = {
    "imagenet1k/imagenet/train": tuple(f"{w}/{w}_{i}.JPEG" for w in WNIDS for i in range(3)),
    "imagenet1k/imagenet/val": VAL,
    "inaturalist/iNaturalist/images": ("000309dd0c724a51.jpg", "0008e0e9c0ec7ec8.jpg"),
    "sun/SUN/images": SUN,
    "places/Places/images": ("b_badlands_00000038.jpg",),
    "textures/dtd/images": TEXTURES,
    "openimage-o/images": ("000d5efd9500e718.jpg", "0010a3d096cd57b2.jpg"),
    V2.format("threshold0.7"): ("0/a.jpeg", "1/b.jpeg", "10/c.jpeg", "999/d.jpeg"),
    V2.format("matched-frequency"): ("0/e.jpeg", "999/f.jpeg"),
    V2.format("top-images"): ("0/g.jpeg",),
}
SFP = {
    "datasets/images/val": VAL,
    "datasets/images/SUN": tuple(f"images/{name}" for name in SUN),
    "datasets/images/Places": ("images/b_badlands_00000038.jpg",),
    "datasets/images/dtd": tuple(f"images/{name}" for name in TEXTURES),
    "datasets/images/iNaturalist": ("images/000309dd0c724a51.jpg",),
}


def write_folders(root: Path, layout: Mapping[str, tuple[str, ...]]) -> Path:
    """`NNGUIDE` or `SFP`."""
    for folder, files in layout.items():
        write_images(root / folder, files)
    return root
