"""Lists of images in text files: paths with labels, in one of three forms.

.csv: a header that names the column `path`, and `label` where there are labels: class indices, or
names of classes; other columns are not read.

.txt: a path a line, and a class index after a blank, in every line or in none. Which blank, and
what a label of -1 means, is a convention:

  jaxood   after the last one; a path may have blanks
  openood  after the first one, as OpenOOD reads its lists; -1 stands for no class
"""

import csv
import re
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxood.errors import UsageError, require
from jaxood.files import printable

SUFFIXES = (".txt", ".csv")
CONVENTIONS = ("jaxood", "openood")
LARGEST_LABEL = 2**31 - 1

_number = re.compile(r"[+-]*\d+").fullmatch  # whatever reads as one, so that a wrong one is told
_label = re.compile("-?[0-9]{1,10}").fullmatch


class Listed(NamedTuple):
    """What a list says of its images.

    Attributes:
      files: paths, as they are written there.
      labels: class indices; None where it has none.
      labels_are_classes: whether it gives indices; names are numbered in sorted order.
      class_names: those names, in that order.
    """

    files: tuple[str, ...]
    labels: Int[np.ndarray, " n"] | None = None
    labels_are_classes: bool = False
    class_names: tuple[str, ...] = ()


def read_list(file: Path, convention: str = "jaxood", argument: str = "images") -> Listed:
    """Reads a list.

    Args:
      convention: of a .txt list, one of `CONVENTIONS`.
      argument: the parameter that an error names.

    Raises:
      UsageError: when it cannot be read as such a list, with the number of the line.
    """
    shown = printable(file)
    require(file.is_file(), argument, f"{shown}, which is no regular file", "a list to read")
    try:
        with file.open(encoding="utf-8-sig", newline="\n") as lines:
            if file.suffix == ".csv":
                return _from_csv(lines, shown, argument)
            return _from_lines(lines, convention, shown, argument)
    except OSError as error:
        raise UsageError(argument, f"{shown} ({error.strerror})", "a list to read") from None
    except UnicodeDecodeError:
        raise UsageError(argument, f"{shown}, which is not text", "one path a line") from None


def _from_lines(lines: Iterable[str], convention: str, shown: str, argument: str) -> Listed:
    """A line after the other, not all at once: a list of ImageNet has 1.3 million."""
    split, blank = (
        (_at_first_blank, "first") if convention == "openood" else (_at_last_blank, "last")
    )
    wanted = f"a class index up to {LARGEST_LABEL} after the {blank} blank"
    files: list[str] = []
    labels = array("q")
    without = 0  # the first line without a label
    for number, line in enumerate(_without_nul(lines, shown, argument), 1):
        line = line.strip()
        if not line:
            continue
        path, label = split(line)
        files.append(path)
        if label:
            labels.append(_class_index(label, shown, number, argument, wanted))
        else:
            without = without or number
    if not files:
        raise UsageError(argument, f"{shown}, which is empty", "one path a line")
    if labels and without:
        got = f"{shown}, line {without}: no label"
        raise UsageError(argument, got, f"{wanted}, as other lines have it")
    indices = np.array(labels, np.int64)
    if not labels or (convention == "openood" and (indices == -1).all()):
        return Listed(tuple(files))
    return Listed(tuple(files), indices, labels_are_classes=True)


def _without_nul(lines: Iterable[str], shown: str, argument: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise UsageError(argument, f"{shown}, line {number}: a NUL character", "a path")
        yield line


def _at_first_blank(line: str) -> tuple[str, str]:
    path, _, label = line.partition(" ")
    return path, label.strip()


def _at_last_blank(line: str) -> tuple[str, str]:
    parts = line.rsplit(maxsplit=1)
    return (parts[0], parts[1]) if len(parts) == 2 and _number(parts[1]) else (line, "")


def _class_index(text: str, shown: str, number: int, argument: str, wanted: str) -> int:
    if not _label(text) or abs(int(text)) > LARGEST_LABEL:
        got = f"{shown}, line {number}: label {printable(text)}"
        raise UsageError(argument, got, wanted)
    return int(text)


def _from_csv(lines: Iterable[str], shown: str, argument: str) -> Listed:
    reader = csv.reader(_without_nul(lines, shown, argument), strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        rows.extend((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        got = f"{shown}, line {reader.line_num}: {error}"
        raise UsageError(argument, got, "values with commas between them") from None
    header = [name.strip() for name in rows[0][1]] if rows else []
    if header.count("path") != 1 or header.count("label") > 1:
        got = f"{shown} with the columns {printable(', '.join(header)) or '(none)'}"
        wanted = "a header that names one column path, and at most one label"
        raise UsageError(argument, got, wanted)
    if len(rows) == 1:
        raise UsageError(argument, f"{shown} without a row", "one path a row")
    for number, row in rows[1:]:
        if len(row) != len(header):
            got = f"{shown}, line {number}: {len(row)} values"
            raise UsageError(argument, got, f"{len(header)}, as the header has")
    files = tuple(row[header.index("path")].strip() for _, row in rows[1:])
    texts = []
    if "label" in header:
        texts = [row[header.index("label")].strip() for _, row in rows[1:]]
    for (number, _), file, name in zip(rows[1:], files, texts or files, strict=True):
        if not file or not name:
            got = f"{shown}, line {number}: no {'label' if file else 'path'}"
            raise UsageError(argument, got, "one in every row")
    if not texts:
        return Listed(files)
    if all(map(_number, texts)):
        wanted = f"a class index up to {LARGEST_LABEL}, or names of classes in all rows"
        labels = [
            _class_index(name, shown, number, argument, wanted)
            for (number, _), name in zip(rows[1:], texts, strict=True)
        ]
        return Listed(files, np.array(labels), labels_are_classes=True)
    names = sorted(set(texts))
    index = {name: number for number, name in enumerate(names)}
    class_names = tuple(map(printable, names))
    return Listed(files, np.array([index[name] for name in texts]), class_names=class_names)
