"""What a run was: enough to do it again, and to see why two runs differ."""

import importlib.metadata
import itertools
import json
import logging
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxood.data.images import ImageSet
from jaxood.files import COMMAND_FILE, printable, write_whole
from jaxood.models.registry import LoadedModel
from jaxood.report.figures import FORMATS
from jaxood.runner.features import Skipped

PACKAGES = ("jaxood", "jax", "jaxlib", "flax", "numpy", "pillow")


def manifest(
    arguments: Mapping[str, object],
    model: LoadedModel,
    data: Mapping[str, tuple[ImageSet, Iterable[Skipped]]],
    **more: object,
) -> dict:
    """Arguments, weights, preprocessing, data with what was skipped, versions, device.

    Args:
      data: by name, each set and the images of it that a result lacks.
      more: what else is told, by name.
    """
    import jax

    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return {
        "arguments": {name: plain(value) for name, value in arguments.items()},
        "model": {
            "name": model.name,
            "tag": model.tag,
            "weights_sha256": model.weights_hash,
            "dtype": model.dtype,
            "matmul_precision": precision or "default",
            "preprocessing": model.preprocessing.as_dict(),
        },
        "data": {
            name: {
                "images": len(images),
                "fingerprint": images.fingerprint(),
                "skipped": {image.id: image.reason for image in sorted(skipped)},
            }
            for name, (images, skipped) in data.items()
        },
        "versions": {"python": platform.python_version()} | _versions(),
        "device": {
            "kind": jax.local_devices()[0].device_kind,
            "count": jax.device_count(),
            "processes": jax.process_count(),
        },
    } | {name: plain(value) for name, value in more.items()}


def put_aside(folder: Path, names: Iterable[str], about: Mapping[str, object]) -> None:
    """Keeps an earlier result, when it is not of the same run, as `folder/earlier-N`, and says so.

    Args:
      names: files and folders that results consist of.
      about: the manifest of the result that comes.
    """
    try:
        found = json.loads((folder / "manifest.json").read_bytes())
    except OSError:  # there is none
        return
    except (ValueError, RecursionError):
        found = None
    earlier = found if isinstance(found, dict) else {}  # a damaged one is of another run
    coming = json.loads(json.dumps(plain(about)))
    machine = ("versions", "device")
    if earlier | dict.fromkeys(machine) == coming | dict.fromkeys(machine):
        return
    number = next(n for n in itertools.count(1) if not (folder / f"earlier-{n}").exists())
    kept = folder / f"earlier-{number}"
    kept.mkdir()
    pictures = [Path(name).with_suffix(f".{kind}") for name in names for kind in FORMATS[1:]]
    for name in (*names, COMMAND_FILE, *map(str, pictures)):
        if (folder / name).exists():
            (folder / name).rename(kept / name)
    logging.getLogger("jaxood").warning("the result of another run was moved to %s", kept)


def write_json(path: Path, values: object) -> None:
    """Indented, whole or not at all."""
    write_whole(path, (json.dumps(plain(values), indent=2) + "\n").encode())


def plain(value: object) -> object:
    """A value as JSON has it."""
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, Path):
        return printable(value)
    if hasattr(value, "tolist"):  # NumPy
        return value.tolist()
    return value


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
