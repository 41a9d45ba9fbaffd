"""Suites by name: what a model was trained on, what it is tested on, what is foreign to it."""

import functools
import logging
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from jaxood.data.digits import digits_suite
from jaxood.data.images import ImageSet
from jaxood.data.photos import photos_suite
from jaxood.data.suite import Suite
from jaxood.data.suite_table import MissingImages, SetEntry, SuiteTable
from jaxood.data.suite_toml import read_table
from jaxood.errors import UsageError, choose, require
from jaxood.spelling import imported

# What packages carry, ready to use: how it is made, and what it is.
BUILT: dict[str, tuple[Callable[[], Suite], str]] = {
    "digits": (
        digits_suite,
        "scikit-learn's digits 0-5 against digits 6-9, patches of photographs, noise",
    ),
    "photos": (
        photos_suite,
        "31 ImageNet photographs against 18 pictures of no ImageNet object",
    ),
}


@functools.cache
def tables() -> dict[str, SuiteTable]:
    """The tables that jaxood carries, by name."""
    with resources.as_file(resources.files("jaxood.data") / "suite_tables") as folder:
        return {file.stem: read_table(file) for file in sorted(folder.glob("*.toml"))}


def descriptions() -> dict[str, str]:
    """What each suite is that has a name."""
    built = {name: description for name, (_, description) in BUILT.items()}
    return built | {name: table.description for name, table in tables().items()}


def suite(source: str | Path | Suite, root: Path | str | None = None) -> Suite:
    """The suite of that name, with all of its sets that are on the disk.

    Args:
      source: a name (`jaxood.list_suites`); a TOML table of your own, see `jaxood.data.suite_toml`;
        `package.module:name` of a Suite, or of a function that makes one; or a Suite, which is
        given back.
      root: the folder in which its images lie; default, for a table of your own: the table's.

    Raises:
      UsageError: when there is none; when its test images or an OOD set are not there, or a set is
        not as the suite says. Other sets may be missing: a method that needs them says so.
    """
    found = source_of(source)
    if isinstance(found, SuiteTable):
        return opened(found, found.require_root(folder_of(source) if root is None else root))
    require_no_root(root)
    return found


def source_of(source: str | Path | Suite) -> SuiteTable | Suite:
    """A table where there is one for it, else the suite itself.

    Raises:
      UsageError: when there is none, or a package that carries its images is missing.
    """
    if isinstance(source, Suite):
        return source
    if is_table(source):
        return read_table(Path(source))
    name = str(source)
    if ":" not in name:
        known = choose("suite", name, descriptions())
        return BUILT[known][0]() if known in BUILT else tables()[known]
    made = imported(name, "suite")
    wanted = "a jaxood.Suite, or a function that makes one"
    try:
        made = made() if callable(made) else made
    except TypeError as error:  # it wants arguments
        raise UsageError("suite", f"{name} ({error})", wanted) from error
    if not isinstance(made, Suite):
        raise UsageError("suite", f"{name}, {type(made).__name__}", wanted)
    return made


def is_table(source: str | Path) -> bool:
    """Whether it is the name of a TOML file."""
    return Path(source).suffix == ".toml"


def folder_of(source: str | Path | Suite) -> Path | None:
    """Where a table of the user's own lies, which is its root when none is given."""
    return None if isinstance(source, Suite) or not is_table(source) else Path(source).parent


def require_no_root(root: Path | str | None) -> None:
    """Raises UsageError for a root beside a suite that brings its images."""
    require(root is None, "root", root, "none, as the suite brings its images")


def opened(table: SuiteTable, root: Path) -> Suite:
    """Opens the sets of a table; see `suite`."""
    singles: dict[str, ImageSet] = {}
    several: dict[str, dict[str, ImageSet]] = {"ood": {}, "shifted": {}}
    missing = {}
    for entry in table.entries:
        try:
            images = entry.opened(root)
        except MissingImages as error:
            if entry.role in ("id_test", "ood"):
                raise
            missing[entry.key] = str(error.got)
            continue
        _tell_count(table, entry, images)
        if entry.role in several:
            several[entry.role][entry.name] = images
        else:
            singles[entry.role] = images
    return Suite(
        table.name,
        singles.get("train"),
        singles["id_test"],
        several["ood"],
        singles.get("id_validation"),
        singles.get("ood_validation"),
        several["shifted"],
        table.groups,
        table.classes,
        missing,
    )


def _tell_count(table: SuiteTable, entry: SetEntry, images: ImageSet) -> None:
    if entry.count not in (None, len(images)):
        told = "%s: %s has %d images, %d are expected"
        log = logging.getLogger("jaxood")
        log.warning(told, table.name, entry.key, len(images), entry.count)
