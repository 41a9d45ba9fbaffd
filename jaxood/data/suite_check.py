"""What a suite consists of, and what of it is on the disk: known before anything runs."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from jaxood.data.files import ImageFiles
from jaxood.data.images import ImageSet
from jaxood.data.suite import Suite
from jaxood.data.suite_table import SEVERAL, SINGLE, MissingImages, SetEntry
from jaxood.data.suites import descriptions, folder_of, require_no_root, source_of
from jaxood.errors import UsageError
from jaxood.files import printable


@dataclass(frozen=True)
class SetCheck:
    """One set of a suite, and what is there of it.

    Attributes:
      key: its role, "train", "id_validation", "id_test", "ood_validation"; or "ood.NAME",
        "shifted.NAME".
      group: of an OOD set; "": none.
      lies: where it should be, or its name where that is not said.
      source: where it comes from; "": not said.
      expected: how many images it should have; None: not known.
      found: how many of them are there; None: not looked at.
      problem: what is wrong; "": nothing.
    """

    key: str
    group: str
    lies: str
    source: str
    expected: int | None
    found: int | None = None
    problem: str = ""


@dataclass(frozen=True)
class SuiteCheck:
    """A suite set by set; printed, a table.

    Attributes:
      name: of the suite.
    """

    name: str
    description: str
    sets: tuple[SetCheck, ...]

    @property
    def complete(self) -> bool:
        """Whether all that was looked for is there."""
        return not any(entry.problem for entry in self.sets)

    def __str__(self) -> str:
        looked = any(entry.found is not None for entry in self.sets)
        columns = {
            "set": [entry.key for entry in self.sets],
            "group": [entry.group for entry in self.sets],
            "found": [_count(entry.found) for entry in self.sets],
            "expected": [_count(entry.expected) for entry in self.sets],
            "where": [entry.lies for entry in self.sets],
            "from": [entry.source for entry in self.sets],
        }
        del columns["where" if looked else "found"]
        lines = [f"{self.name}: {self.description}" if self.description else self.name]
        for row in zip(*([title, *cells] for title, cells in columns.items()), strict=True):
            cells = [
                cell.rjust(max(map(len, [title, *column])))
                if title in ("found", "expected")
                else cell.ljust(max(map(len, [title, *column])))
                for cell, (title, column) in zip(row, columns.items(), strict=True)
            ]
            lines.append("  ".join(cells).rstrip())
        lines += [f"{entry.key}: {entry.problem}" for entry in self.sets if entry.problem]
        if looked:
            wrong = sum(bool(entry.problem) for entry in self.sets)
            lines.append(f"{wrong} of {len(self.sets)} sets not whole" if wrong else "all there")
        return "\n".join(lines)


def describe_suite(source: str | Path | Suite) -> SuiteCheck:
    """The sets of a suite, without a look at its images.

    Args:
      source: see `jaxood.suite`.

    Raises:
      UsageError: when there is no such suite, or a package that carries its images is missing.
    """
    found = source_of(source)
    if isinstance(found, Suite):
        sets = [_of_images(key, group, images) for key, group, images in _sets(found)]
        return SuiteCheck(found.name, descriptions().get(found.name, ""), tuple(sets))
    entries = tuple(_of_entry(entry) for entry in found.entries)
    return SuiteCheck(found.name, found.description, entries)


def check_suite(source: str | Path | Suite, root: Path | str | None = None) -> SuiteCheck:
    """What of a suite is on the disk: of lists, every file is looked for.

    Args:
      source: see `jaxood.suite`.
      root: see there.

    Raises:
      UsageError: when there is no such suite, or no such root.
    """
    found = source_of(source)
    if isinstance(found, Suite):
        require_no_root(root)
        return describe_suite(found)
    folder = found.require_root(root if root is not None else folder_of(source))
    sets = tuple(_checked(entry, folder) for entry in found.entries)
    return SuiteCheck(found.name, found.description, sets)


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _sets(suite: Suite) -> Iterator[tuple[str, str, ImageSet]]:
    groups = {name: group for group, names in suite.groups.items() for name in names}
    for role in SINGLE:
        if (images := getattr(suite, role)) is not None:
            yield role, "", images
    for role in SEVERAL:
        for name, images in getattr(suite, role).items():
            yield f"{role}.{name}", groups.get(name, "") if role == "ood" else "", images


def _of_images(key: str, group: str, images: ImageSet) -> SetCheck:
    lies = images.root if isinstance(images, ImageFiles) else images.name
    return SetCheck(key, group, printable(lies), "", len(images), len(images))


def _of_entry(entry: SetEntry) -> SetCheck:
    return SetCheck(entry.key, entry.group, entry.paths[0], entry.source, entry.count)


def _checked(entry: SetEntry, root: Path) -> SetCheck:
    problem, expected = "", entry.count
    try:
        images = entry.listed(root) if entry.is_list else entry.opened(root)
    except UsageError as error:
        problem = str(error.got).removeprefix(f"{entry.key}: ")
        if not isinstance(error, MissingImages):
            problem += f", wanted {error.wanted}"
        if error.remedy and (not entry.source or entry.source not in error.remedy):
            problem += f". {error.remedy}"
        return replace(_of_entry(entry), found=0, problem=problem)
    found = len(images)
    if isinstance(images, ImageFiles) and entry.is_list:
        absent = list(_absent(images))
        found -= len(absent)
        if absent:
            problem = f"{len(absent):,} of its list are not there, such as {printable(absent[0])}"
        elif entry.count not in (None, len(images)):
            problem = f"its list has {len(images):,} lines: one of another version"
        expected = entry.count or len(images)
    elif entry.count not in (None, found):
        problem = f"{found:,} images instead of {entry.count:,}"
    return replace(_of_entry(entry), found=found, expected=expected, problem=problem)


def _absent(images: ImageFiles) -> Iterator[str]:
    """Files that are not there; a folder is read once, as looking for each would take long."""
    names: dict[str, frozenset[str]] = {}
    for path in images.paths():
        folder, name = os.path.split(path)
        if folder not in names:
            try:
                names[folder] = frozenset(os.listdir(folder or "."))
            except OSError:
                names[folder] = frozenset()
        if name not in names[folder]:
            yield path
