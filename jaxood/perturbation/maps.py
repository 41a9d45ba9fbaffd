"""Maps from elsewhere, to be tested beside our own."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxood.errors import UsageError, require

MapSource = str | Path | Float[np.ndarray, "n h w"]


def unique(ids: Sequence[str]) -> list[str]:
    """The ids, those that come again with a number: "a.png", "a.png (2)"."""
    seen: dict[str, int] = {}
    names = []
    for image in ids:
        seen[image] = seen.get(image, 0) + 1
        names.append(image if seen[image] == 1 else f"{image} ({seen[image]})")
    return names


def read_maps(
    sources: Mapping[str, MapSource], ids: Sequence[str], taken: Sequence[str] = ()
) -> dict[str, list[Float[np.ndarray, "h w"]]]:
    """Maps by name, one an image of `ids`.

    Args:
      sources: by name, an NPZ file with `ids`, an image name each, and an array of that name; or
        the array [n, h, w] itself, in the order of `ids`.
      taken: names that maps may not have.

    Raises:
      UsageError: for what is no such file, or lacks an array or an image that is needed.
    """
    found = {}
    for name, source in sources.items():
        require(bool(name) and "/" not in name, "maps", repr(name), "a name without a slash")
        free = name not in taken and name != "random"
        require(free, "maps", name, "a name that is not taken")
        if isinstance(source, np.ndarray):
            _require_maps(name, source, len(ids))
            found[name] = list(source.astype(np.float32))
            continue
        listed, maps = _arrays(str(source), name)
        by_id = dict(zip(listed, maps.astype(np.float32), strict=True))
        twice = len(listed) - len(by_id)
        require(not twice, "maps", f"{source} with {twice} ids that repeat", "an id once")
        lacking = [image for image in ids if image not in by_id]
        if lacking:
            wanted = f"a map of every image: {lacking[0]} has none"
            raise UsageError("maps", f"{source} without {len(lacking)} images", wanted)
        found[name] = [by_id[image] for image in ids]
    return found


def _arrays(file: str, name: str) -> tuple[list[str], np.ndarray]:
    """`ids` and the array of that name in an NPZ file."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            if not hasattr(arrays, "files"):
                raise ValueError("one array, not several by name")
            for needed in ("ids", name):
                if needed not in arrays.files:
                    wanted = f"arrays ids and {name}"
                    raise UsageError("maps", f"{file} with {', '.join(arrays.files)}", wanted)
            ids, maps = arrays["ids"], arrays[name]
    except UsageError:
        raise
    except (OSError, ValueError, TypeError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise UsageError("maps", f"{file} ({error})", "an NPZ file of arrays") from None
    except Exception as error:  # zlib's and the header parser's
        wanted = "an NPZ file of arrays"
        raise UsageError("maps", f"{file} ({type(error).__name__})", wanted) from None
    require(ids.ndim == 1, "maps", f"ids {ids.shape} in {file}", "a list of image names")
    _require_maps(f"{name} in {file}", maps, len(ids))
    return list(map(str, ids)), maps


def _require_maps(name: str, maps: np.ndarray, images: int) -> None:
    numbers = np.issubdtype(maps.dtype, np.floating) or np.issubdtype(maps.dtype, np.integer)
    fits = numbers and maps.ndim == 3 and len(maps) == images and maps.size > 0
    got = f"{name}, {maps.dtype} {maps.shape}"
    require(fits, "maps", got, f"numbers [{images}, h, w], a map an image")
    require(bool(np.isfinite(maps).all()), "maps", f"{name} with nan or inf", "finite values")
