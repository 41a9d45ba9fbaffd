"""Suites as data: a TOML table says which sets there are, where they lie and what they hold.

  description = "what it is, in a line"
  classes = 1000             # of a model that the labels are for; may be left out
  lists = "openood"          # how .txt lists are read, see `jaxood.data.lists`; default: "jaxood"

  [train]                    # [id_validation], [id_test] and [ood_validation] are of the same form
  list = "lists/train.txt"   # or path = "train": a folder, an image, or "tfds:name/config:split"
  images = "images"          # what the list's paths are relative to; default: the list's folder
  count = 1281167            # images that are expected; may be left out, as all that follow
  source = "train.tar"       # where they come from
  labels = "wnid"            # what class folders must be called: "wnid" or "number"; "none": their
                             # names, or a list's labels, say nothing

  [ood.sun]                  # any number of them, and of [shifted.NAME]
  path = ["SUN/images", "sun"]  # of several, the first that is there
  group = "far"

  [shifted.corrupted]
  list = "lists/c.txt"
  spellings = ["image_c", "imagec"]  # names that one folder of its images goes by
  cropped = true             # they are cut already: resized to the crop of a model, not cut again

[id_test], which may have a `name`, and one [ood.NAME] must be there. Paths are relative to the root
that is given with the table; absolute ones, and ones that leave the root, are taken as they are.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxood.data.lists import CONVENTIONS, SUFFIXES
from jaxood.data.suite_table import LABELS, ROLES, SEVERAL, TFDS, SetEntry, SuiteTable
from jaxood.errors import UsageError, require
from jaxood.files import printable

KEYS = {
    "path": "texts",
    "list": "texts",
    "images": "text",
    "spellings": "texts",
    "count": "number",
    "source": "text",
    "labels": "text",
    "cropped": "truth",
    "group": "text",
    "name": "text",
}
NAMES = {
    "train": "train",
    "id_validation": "ID validation",
    "id_test": "in distribution",
    "ood_validation": "OOD validation",
}
KINDS = {
    "text": "text",
    "texts": "text, or a list of texts",
    "number": "a whole number of at least 1",
    "truth": "true or false",
    "table": "a table",
}


def read_table(file: Path) -> SuiteTable:
    """Reads a table; the suite is called as the file is.

    Raises:
      UsageError: for a file that is none, and for whatever in it is unknown, missing, or of another
        kind.
    """
    shown = printable(file)
    require(file.is_file(), "suite", shown, "a TOML file that exists")
    try:
        values = tomllib.loads(file.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise UsageError("suite", f"{shown} ({reason})", "a TOML file") from None
    _require_known(values, ("description", "classes", "lists", *ROLES), shown)
    convention = _value(values, "lists", "text", shown) or "jaxood"
    got, wanted = f"{shown}: lists {convention!r}", f"one of {', '.join(CONVENTIONS)}"
    require(convention in CONVENTIONS, "suite", got, wanted)
    entries: list[SetEntry] = []
    for role in ROLES:
        found = _value(values, role, "table", shown)
        if found is None:
            continue
        if role not in SEVERAL:
            entries.append(_entry(found, role, "", convention, f"{shown}: [{role}]"))
            continue
        for name in found:
            table = _value(found, name, "table", f"{shown}: {role}")
            entries.append(_entry(table, role, name, convention, f"{shown}: [{role}.{name}]"))
    for role, heading in (("id_test", "[id_test]"), ("ood", "[ood.NAME]")):
        lacking = all(entry.role != role for entry in entries)
        require(not lacking, "suite", f"{shown} without {heading}", "it")
    return SuiteTable(
        printable(file.stem),
        _value(values, "description", "text", shown) or "",
        tuple(entries),
        _value(values, "classes", "number", shown),
    )


def _entry(
    values: Mapping[str, Any], role: str, name: str, convention: str, shown: str
) -> SetEntry:
    _require_known(values, KEYS, shown)
    given = {
        key: value
        for key, kind in KEYS.items()
        if (value := _value(values, key, kind, shown)) is not None
    }
    is_list = "list" in given
    got = f"{shown} with {'both' if is_list and 'path' in given else 'neither'}"
    require(is_list != ("path" in given), "suite", got, "one of path and list")
    paths = given.pop("list" if is_list else "path")
    remote = any(path.startswith(TFDS) for path in paths)
    lists = [path for path in paths if path.endswith(SUFFIXES)]
    got, wanted = f"{shown}: {lists or paths}", "a list as list, and as path anything else"
    require(len(lists) == (len(paths) if is_list else 0), "suite", got, wanted)
    known = role not in ("ood", "ood_validation")
    labels = given.get("labels", "none")
    for key, holds, wanted in (
        ("images", is_list, "it beside list only"),
        ("spellings", is_list, "it beside list only"),
        ("group", role == "ood", "it in [ood.NAME] only"),
        ("name", role == "id_test", "it in [id_test] only"),
        ("labels", known, "it in distribution only"),
        ("labels", labels in LABELS, f"one of {', '.join(LABELS)}"),
        ("labels", labels == "none" or not is_list, "none, as a list has labels or has none"),
        ("labels", not remote, f"it without {TFDS}"),
        ("cropped", not remote, f"it without {TFDS}"),
    ):
        got = f"{shown}: {key} {given.get(key)!r}"
        require(holds or key not in given, "suite", got, wanted)
    name = name or given.pop("name", NAMES[role])
    spelled = given | {"convention": convention} if is_list else given
    return SetEntry(role, name, paths, is_list, **spelled)


def _require_known(values: Mapping[str, Any], known: Iterable[str], shown: str) -> None:
    names = list(known)
    for key in values:
        if key not in names:
            close = difflib.get_close_matches(key, names, n=1)
            remedy = f"Did you mean {close[0]}?" if close else ""
            got = f"{shown}: {printable(key)}"
            raise UsageError("suite", got, f"one of {', '.join(names)}", remedy)


def _value(values: Mapping[str, Any], key: str, kind: str, shown: str) -> Any:
    """The value of a key, None where it is not there.

    Raises:
      UsageError: when it is not of that kind.
    """
    if key not in values:
        return None
    value = values[key]

    def text(one: object) -> bool:
        return isinstance(one, str) and bool(one) and "\0" not in one

    holds = {
        "text": text(value),
        "texts": text(value) or (isinstance(value, list) and bool(value) and all(map(text, value))),
        "number": type(value) is int and value >= 1,
        "truth": type(value) is bool,
        "table": isinstance(value, dict),
    }
    got = f"{shown}: {printable(key)} {printable(repr(value)[:80])}"
    require(holds[kind], "suite", got, KINDS[kind])
    if kind == "texts":
        return (value,) if isinstance(value, str) else tuple(value)
    return value
