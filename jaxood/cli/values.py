"""What options may be, for argparse; and the bar that tells how far a run is."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from jaxood.files import printable


def whole(text: str) -> int:
    """An integer in digits 0 to 9."""
    return int(_ascii(text))


def number(text: str) -> float:
    """A number in digits 0 to 9."""
    return float(_ascii(text))


def _ascii(text: str) -> str:
    if not text.isascii():  # int() takes the digits of all scripts
        raise ValueError
    return text


def positive(text: str) -> int:
    """An integer of at least 1."""
    value = whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def fraction(text: str) -> float:
    """A number in (0, 1]."""
    value = number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in (0, 1]")
    return value


def coalitions(text: str) -> int | str:
    """A number of coalitions, or "auto"."""
    return text if text == "auto" else positive(text)


def output_folder(text: str) -> Path:
    """A folder that is there or can be made: tried before hours are spent."""
    return _writable(text, Path(text))


def output_file(text: str) -> Path:
    """A file in such a folder."""
    if os.path.exists(text or ".") and not os.path.isfile(text):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: it is no regular file")
    return _writable(text, Path(text).parent)


def _writable(text: str, folder: Path) -> Path:
    try:
        if "\0" in text:
            raise ValueError("a NUL character")
        Path(text).exists()  # not so for a name that is too long
        folder = folder.absolute()
        present = next(one for one in (folder, *folder.parents) if one.exists())
        with tempfile.TemporaryFile(dir=present):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: {reason}") from None
    return Path(text)


def tell_replaced(*files: Path | None) -> None:
    """Says what is about to be written over."""
    for file in files:
        if file is not None and file.exists():
            print(f"replaced: {printable(file)}", file=sys.stderr)


def progress_bar(name: str, unit: str = " images") -> Callable[[int, int], None]:
    """A bar for one image set; returns what is told (images done, images in all)."""
    from tqdm import tqdm

    bar = None

    def update(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:  # images of an earlier, interrupted run do not count in the rate
            bar = tqdm(
                desc=name, total=total, initial=done, unit=unit, file=sys.stderr, smoothing=0.1
            )
        bar.total = total
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return update
