"""What a user calls a model, and a set of class names, as what the flows work with."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from flax import nnx

from jaxood.data.images import ImageSet
from jaxood.errors import UsageError
from jaxood.files import cache_dir
from jaxood.models.loading import load_weights, own_model
from jaxood.models.registry import ARCHITECTURES, LoadedModel, find_architecture
from jaxood.models.weights_file import CONVERT
from jaxood.spelling import imported, name_of

EMBEDDED = "digits_cnn"
ModelSource = str | Path | LoadedModel | nnx.Module | Callable[[], nnx.Module]


def load_model(
    source: ModelSource = EMBEDDED,
    *,
    arch: str | None = None,
    tag: str | None = None,
    dtype: str = "float32",
    classes: str | Path | Sequence[str] = (),
    cache: Path | str | None = None,
) -> LoadedModel:
    """A model that is ready to use.

    Args:
      source: a weights file, as `jaxood.convert` makes them; a Flax module of your own that gives
        ModelOutputs and has a `head`, or a function that makes one, or its import path
        "package.module:function"; or "digits_cnn", the embedded digits network.
      arch: the architecture that a weights file must be of.
      tag: takes the preprocessing of this published tag instead of the weights file's.
      dtype: of the backbone's arithmetic: "float32"; "tensorfloat32", in which NVIDIA GPUs shorten
        the factors of products to ten bits; "bfloat16". The head stays float32.
      classes: names of the classes, or a text file with one a line.
      cache: folder of the digits network, which is trained when it is not there (seconds).

    Raises:
      UsageError: what is missing, damaged or not such a model; in one line.
    """
    if isinstance(source, LoadedModel):
        return source
    names = class_names_of(classes)
    if isinstance(source, str) and (not source or "\0" in source):
        raise UsageError("model", repr(source), "a weights file or the name of a model")
    text = os.fspath(source) if isinstance(source, str | Path) else ""
    if text and not (isinstance(source, Path) or _is_file(text)):
        if ":" in text:
            return _own(imported(text, "model"), text, names, tag, dtype)
        name, _ = find_architecture(text, "model")
        if name != EMBEDDED:
            published = [one for t in ARCHITECTURES[name].tags.values() for one in t.checkpoints]
            wanted = f"a weights file for {name}"
            known = f", such as {published[0]}" if published else ""
            raise UsageError("weights", "none", wanted, f"{CONVERT}{known}")
        from jaxood.demo.digits import digits_weights

        return load_weights(digits_weights(cache_dir(cache)), EMBEDDED, tag, dtype, names)
    if text:
        named = None
        if arch is not None:
            arch, named = find_architecture(arch, "model")
        return load_weights(Path(text), arch, tag or named, dtype, names)
    return _own(source, "", names, tag, dtype)


def model_of_suite(name: str, cache: Path | str | None = None) -> str | Path:
    """The `source` of the model that belongs to a suite of ours.

    Raises:
      UsageError: for a suite that has none, or a package that carries its weights is missing.
    """
    if name == "photos":
        from jaxood.demo.photos import photos_weights

        return photos_weights(cache_dir(cache))
    if name != "digits":
        raise UsageError("weights", "nothing", "the weights of a model for these images")
    return EMBEDDED


def _is_file(text: str) -> bool:
    """Whether it is meant as a file, be it there or not."""
    return text.endswith(".safetensors") or "/" in text or os.sep in text or os.path.isfile(text)


def _own(made, name: str, names, tag: str | None, dtype: str) -> LoadedModel:
    """A module of the user's own, or what a function makes."""
    if tag is not None:
        raise UsageError("tag", tag, "none", "A model of your own has its own preprocessing")
    if dtype != "float32":
        raise UsageError("dtype", dtype, "float32", "A model of your own chooses its types")
    wanted = "a flax.nnx.Module, or a function without arguments that returns one"
    module = made
    if not isinstance(made, nnx.Module):
        if not callable(made):
            raise UsageError("model", f"{name or type(made).__name__}", wanted)
        try:
            module = made()
        except TypeError as error:
            raise UsageError("model", f"{name or name_of(made)} ({error})", wanted) from error
    if not isinstance(module, nnx.Module):
        got = f"{name or name_of(made)}, which gave {type(module).__name__}"
        raise UsageError("model", got, wanted)
    return own_model(module, name or name_of(module), names)


def class_names_of(classes: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Names as they are given, or the lines of a text file.

    Raises:
      UsageError: for a file that cannot be read or has an empty line.
    """
    if not isinstance(classes, str | Path):
        return tuple(classes)
    try:
        if os.path.exists(classes) and not os.path.isfile(classes):
            raise OSError("not a regular file")  # /dev/zero has no end
        lines = Path(classes).read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError("classes", f"{classes} ({error})", "a text file, a name a line") from None
    names = tuple(line.strip() for line in lines)
    if not names or not all(names):
        raise UsageError("classes", f"{classes} with empty lines", "a name a line")
    return names


def names_of_folders(model: LoadedModel, *sets: ImageSet | None) -> LoadedModel:
    """The model, with the names of class folders where it has none of its own."""
    if model.class_names == tuple(f"class {i}" for i in range(model.classes)):
        for images in sets:
            if images is not None and len(images.class_names) == model.classes:
                return replace(model, class_names=images.class_names)
    return model
