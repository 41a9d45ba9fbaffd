"""Embeddings of texts in a file: what the classes are called, and what they are not.

  .npz  arrays `classes` [k, c]; and, where there are any, `names` [k] of the classes, `negatives`
        [m, c] of texts that name no class, `scale` () of the cosines, one over the temperature
  .npy  `classes` alone

Rows may have any length. Arrays only: a file that holds pickled objects is refused.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxood.errors import UsageError, require

PARTS = ("classes", "names", "negatives", "scale")


class Texts(NamedTuple):
    """Attributes:
    names: of the classes; () where the file does not tell.
    scale: of the cosines; None where the file does not tell.
    """

    classes: Float[np.ndarray, "k c"]
    names: tuple[str, ...] = ()
    negatives: Float[np.ndarray, "m c"] | None = None
    scale: float | None = None


def read_texts(path: Path) -> Texts:
    """Reads and checks a file of embeddings.

    Raises:
      UsageError: no such file, another kind of file, or arrays that do not go together.
    """
    require(path.is_file(), "texts", path, "an existing .npz or .npy file")
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            arrays = {"classes": found} if isinstance(found, np.ndarray) else {**found}
    except Exception as error:  # zipfile's and NumPy's own, for a damaged file
        wanted = "a whole .npz or .npy file of arrays, without pickled objects"
        raise UsageError("texts", f"{path} ({type(error).__name__})", wanted) from error
    unknown = sorted(arrays.keys() - set(PARTS))
    require(not unknown, "texts", f"an array {unknown[:1]}", f"only {', '.join(PARTS)}")
    require("classes" in arrays, "texts", f"{path} without classes", "an array `classes` [k, c]")
    classes = _rows(arrays["classes"], "classes")
    negatives, scale, names = (arrays.get(part) for part in ("negatives", "scale", "names"))
    if negatives is not None:
        negatives = _rows(negatives, "negatives", classes.shape[1])
    if names is not None:
        texts = names.ndim == 1 and names.dtype.kind == "U" and len(names) == len(classes)
        got = f"names, {names.dtype} {names.shape}"
        require(texts, "texts", got, f"{len(classes)} texts, one a class")
    if scale is not None:
        number = scale.ndim == 0 and scale.dtype.kind in "fiu" and 0 < scale < np.inf
        require(number, "texts", f"scale {scale}", "a number above 0")
    return Texts(
        classes,
        () if names is None else tuple(map(str, names)),
        negatives,
        None if scale is None else float(scale),
    )


def _rows(array: np.ndarray, name: str, channels: int | None = None) -> np.ndarray:
    """Embeddings as float32.

    Raises:
      UsageError: for other arrays, and rows that have no direction.
    """
    got = f"{name}, {array.dtype} {array.shape}"
    width = "c" if channels is None else channels
    fits = array.ndim == 2 and array.dtype.kind == "f" and len(array) > 0
    fits = fits and channels in (None, array.shape[1])
    require(fits, "texts", got, f"floating point numbers [n, {width}]")
    rows = array.astype(np.float32)
    whole = np.isfinite(rows).all() and np.abs(rows).max(axis=1).min(initial=np.inf) > 0
    require(whole, "texts", f"{name} with rows that are not finite, or 0", "directions")
    return rows
