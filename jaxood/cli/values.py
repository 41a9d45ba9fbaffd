"""What options may be, for argparse; and the bar that tells how far a run is."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path


def positive(text: str) -> int:
    """An integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def fraction(text: str) -> float:
    """A number in (0, 1]."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in (0, 1]")
    return value


def coalitions(text: str) -> int | str:
    """A number of coalitions, or "auto"."""
    return text if text == "auto" else positive(text)


def output_folder(text: str) -> Path:
    """A folder that is there or can be made: known before hours are spent."""
    try:
        if "\0" in text:
            raise ValueError("a NUL character")
        path = Path(text).absolute()
        present = next(folder for folder in (path, *path.parents) if folder.exists())
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be made: {error}") from None
    if not present.is_dir() or not os.access(present, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be made: {present} is no writable folder")
    return Path(text)


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
