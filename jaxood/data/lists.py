"""Lists of images in text files: paths with labels, in one of three forms.

.csv: a header that names the column `path`, and `label` where there are labels: class indices, or
names of classes; other columns are not read.

.txt: a path a line, and a class index after a blank, in every line or in none. Which blank, and
what a label of -1 means, is a convention:

  jaxood   after the last one; a path may have blanks
  openood  after the first one, as OpenOOD reads its lists; -1 stands for no class
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxood.errors import UsageError
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
    try:
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise UsageError(argument, f"{shown} ({error.strerror})", "a list to read") from None
    except UnicodeDecodeError:
        raise UsageError(argument, f"{shown}, which is not text", "one path a line") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UsageError(argument, f"{shown}, line {line}: a NUL character", "a path")
    if file.suffix == ".csv":
        return _from_csv(text, shown, argument)
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise UsageError(argument, f"{shown}, which is empty", "one path a line")
    if convention == "openood":
        return _split_at_first(lines, shown, argument)
    return _split_at_last(lines, shown, argument)


def _split_at_last(lines: Sequence[tuple[int, str]], shown: str, argument: str) -> Listed:
    split = [line.rsplit(maxsplit=1) for _, line in lines]
    labelled = [len(parts) == 2 and bool(_number(parts[1])) for parts in split]
    if not any(labelled):
        return Listed(tuple(line for _, line in lines))
    wanted = f"a class index up to {LARGEST_LABEL} after the last blank"
    labels = []
    for (number, _), parts, has_label in zip(lines, split, labelled, strict=True):
        line = f"{shown}, line {number}"
        if not has_label:
            raise UsageError(argument, f"{line}: no label", f"{wanted}, as other lines have it")
        labels.append(_class_index(parts[1], line, argument, wanted))
    return Listed(tuple(parts[0] for parts in split), np.array(labels), labels_are_classes=True)


def _split_at_first(lines: Sequence[tuple[int, str]], shown: str, argument: str) -> Listed:
    split = [line.partition(" ") for _, line in lines]
    files = tuple(path for path, _, _ in split)
    if not any(blank for _, blank, _ in split):
        return Listed(files)
    wanted = f"a class index up to {LARGEST_LABEL} after the first blank"
    labels = []
    for (number, _), (_, blank, rest) in zip(lines, split, strict=True):
        line = f"{shown}, line {number}"
        if not blank:
            raise UsageError(argument, f"{line}: no label", f"{wanted}, as other lines have it")
        labels.append(_class_index(rest.strip(), line, argument, wanted))
    if set(labels) == {-1}:
        return Listed(files)
    return Listed(files, np.array(labels), labels_are_classes=True)


def _class_index(text: str, line: str, argument: str, wanted: str) -> int:
    if not _label(text) or abs(int(text)) > LARGEST_LABEL:
        raise UsageError(argument, f"{line}: label {printable(text)}", wanted)
    return int(text)


def _from_csv(text: str, shown: str, argument: str) -> Listed:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
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
            _class_index(name, f"{shown}, line {number}", argument, wanted)
            for (number, _), name in zip(rows[1:], texts, strict=True)
        ]
        return Listed(files, np.array(labels), labels_are_classes=True)
    names = sorted(set(texts))
    index = {name: number for number, name in enumerate(names)}
    class_names = tuple(map(printable, names))
    return Listed(files, np.array([index[name] for name in texts]), class_names=class_names)
