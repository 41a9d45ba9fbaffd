"""Maps from elsewhere, to be tested beside our own."""

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxood.errors import UsageError, require
from jaxood.outputs import AnyArray

MapSource = str | Path | AnyArray  # a file, or [n, h, w]


def unique(ids: Sequence[str]) -> list[str]:
    """The ids, those that come again with a number: "a.png", "a.png (2)"."""
    taken, seen = set(ids), dict.fromkeys(ids, 0)
    names = []
    for image in ids:
        seen[image] += 1
        name = image
        while seen[image] > 1 and (name := f"{image} ({seen[image]})") in taken:
            seen[image] += 1
        taken.add(name)
        names.append(name)
    return names


def read_maps(
    sources: Mapping[str, MapSource], ids: Sequence[str], taken: Sequence[str] = ()
) -> dict[str, list[Float[np.ndarray, "h w"] | None]]:
    """Maps by name, one an image of `ids`; None where a file has none of it.

    Args:
      sources: by name, an NPZ file with `ids`, an image name each, and an array of that name; or
        the array [n, h, w] itself, in the order of `ids`.
      taken: names that maps may not have.

    Raises:
      UsageError: for what is no such file, or lacks the array.
    """
    found: dict[str, list[Float[np.ndarray, "h w"] | None]] = {}
    for name, source in sources.items():
        require(bool(name) and "/" not in name, "maps", repr(name), "a name without a slash")
        free = name not in taken and name != "random"
        require(free, "maps", name, "a name that is not taken")
        if not isinstance(source, str | os.PathLike):
            found[name] = list(_maps(name, np.asarray(source), len(ids)))
            continue
        listed, maps = _arrays(str(source), name)
        by_id = dict(zip(listed, maps, strict=True))
        twice = len(listed) - len(by_id)
        require(not twice, "maps", f"{source} with {twice} ids that repeat", "an id once")
        found[name] = [by_id.get(image) for image in ids]
    return found


def _arrays(file: str, name: str) -> tuple[list[str], Float[np.ndarray, "n h w"]]:
    """`ids` and the array of that name in an NPZ file."""
    try:
        if os.path.exists(file) and not os.path.isfile(file):
            raise OSError("not a regular file")  # a pipe would be waited for
        with open(file, "rb") as opened, np.load(opened, allow_pickle=False) as arrays:
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
    return list(map(str, ids)), _maps(f"{name} in {file}", maps, len(ids))


def _maps(name: str, maps: np.ndarray, images: int) -> Float[np.ndarray, "n h w"]:
    """Maps in float32, when they are a map an image."""
    numbers = np.issubdtype(maps.dtype, np.floating) or np.issubdtype(maps.dtype, np.integer)
    fits = numbers and maps.ndim == 3 and len(maps) == images and maps.size > 0
    got = f"{name}, {maps.dtype} {maps.shape}"
    require(fits, "maps", got, f"numbers [{images}, h, w], a map an image")
    with np.errstate(over="ignore"):
        maps = maps.astype(np.float32)
    wanted = "values that are finite in float32"
    require(bool(np.isfinite(maps).all()), "maps", f"{name} with nan or inf", wanted)
    return maps
