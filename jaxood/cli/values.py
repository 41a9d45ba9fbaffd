"""What options may be, for argparse; and the bar that tells how far a run is."""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from jaxood.files import printable

REDRAWN = 1.0  # seconds
BETWEEN_LINES = 30.0  # seconds

Value = TypeVar("Value", int, float)


def whole(text: str) -> int:
    """An integer in digits 0 to 9."""
    return _read(int, text, "a whole number")


def number(text: str) -> float:
    """A number in digits 0 to 9."""
    return _read(float, text, "a number")


def positive(text: str) -> int:
    """An integer of at least 1."""
    return _read(int, text, "a whole number of at least 1", lambda value: value >= 1)


def positive_or_auto(text: str) -> int | str:
    """The same, or "auto"."""
    if text == "auto":
        return text
    return _read(int, text, "a whole number of at least 1, or auto", lambda value: value >= 1)


def fraction(text: str) -> float:
    """A number in (0, 1]."""
    return _read(float, text, "a number above 0 and at most 1", lambda value: 0 < value <= 1)


def _read(
    kind: Callable[[str], Value],
    text: str,
    wanted: str,
    fits: Callable[[Value], bool] = lambda value: True,
) -> Value:
    try:
        if text.isascii() and fits(value := kind(text)):  # int() takes the digits of all scripts
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"got {text!r}, wanted {wanted}")


def output_folder(text: str) -> Path:
    """A folder that is there or can be made: tried before hours are spent."""
    return _writable(text, Path(text))


def output_file(text: str) -> Path:
    """A file in such a folder."""
    if os.path.exists(text or ".") and not os.path.isfile(text):
        raise _unwritable(text, "it is no regular file")
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
        raise _unwritable(text, reason) from None
    return Path(text)


def _unwritable(text: str, reason: object) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"got {text!r}, wanted what can be written: {reason}")


def as_json(rows: Iterable[Any]) -> str:
    """Named tuples or dataclasses as a JSON list, an object each."""
    plain = [row._asdict() if hasattr(row, "_asdict") else asdict(row) for row in rows]
    return json.dumps(plain, indent=2, ensure_ascii=False)


@contextlib.contextmanager
def telling_replaced(*files: Path | None) -> Iterator[None]:
    """Says which files were written over, when they were."""
    there = [file for file in files if file is not None and file.exists()]
    yield
    for file in there:
        print(f"replaced: {printable(file)}", file=sys.stderr)


def is_terminal(stream: Any) -> bool:
    """Whether bold letters are seen there as such, and wanted (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain


def progress_bar(name: str, unit: str = " images") -> Callable[[int, int], None]:
    """Shows how far one image set is; returns what is told (images done, images in all).

    On a terminal a bar, whose time moves while a batch takes long; elsewhere a line now and then.
    """
    show = _Bar if sys.stderr.isatty() else _Lines
    return show(name, unit)


class _Bar:
    """tqdm's bar, drawn anew every second."""

    def __init__(self, name: str, unit: str):
        self._name, self._unit = name, unit
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None:  # images of an earlier, interrupted run do not count in the rate
            how = {"unit": self._unit, "file": sys.stderr, "smoothing": 0.1}
            self._bar = tqdm(desc=self._name, total=total, initial=done, **how)
            threading.Thread(target=self._draw, args=(self._bar,), daemon=True).start()
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        if done == total:
            self._bar.close()

    def _draw(self, bar) -> None:
        while not bar.disable:  # closed
            time.sleep(REDRAWN)
            if not bar.disable:
                bar.refresh()


class _Lines:
    """How far it is, every so many seconds and at the end, each number once."""

    def __init__(self, name: str, unit: str):
        self._name, self._unit = name, unit
        self._first: int | None = None
        self._last = -1
        self._began = self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._began = done, now
        if done in (self._first, self._last) or (done < total and now - self._told < BETWEEN_LINES):
            return
        rate = (done - self._first) / max(now - self._began, 1e-9)
        left = "" if done == total else f", {(total - done) / rate:.0f} s left"
        line = f"{self._name}: {done} of {total}{self._unit}, {rate:.1f} a second{left}"
        print(line, file=sys.stderr, flush=True)
        self._told, self._last = now, done
