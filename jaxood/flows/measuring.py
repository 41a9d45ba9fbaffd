"""One pass of measures over images with their maps: what is found is kept as it comes."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxood.data.shares import require_same_images
from jaxood.errors import UsageError
from jaxood.files import fingerprint, make_folder, write_whole
from jaxood.flows.maps import MapsOfImages
from jaxood.perturbation.measure import Finding, Laboratory, Measure, RowMeasure, row_findings
from jaxood.perturbation.subject import Subject, require_map
from jaxood.processes import gathered_values, own_name, require_agreed, share_of
from jaxood.runner.features import Skipped
from jaxood.runner.runner import Progress

STORE = "measured.jsonl"


class Measured(NamedTuple):
    """What measures found.

    Attributes:
      findings: in the order of measures, methods and images.
      kept: the first images that this process measured now.
    """

    findings: list[Finding]
    skipped: list[Skipped]
    kept: list[Subject]


def measured(
    source: MapsOfImages,
    measures: Sequence[Measure],
    store: Path | str | None = None,
    progress: Progress | None = None,
    keep: int = 1,
) -> Measured:
    """Findings of every image, map and measure, those of an earlier run among them.

    Each of several processes measures its share of the images; all get all findings.

    Args:
      store: folder for measured.jsonl, from which an interrupted run goes on; for each of several
        processes in a folder of its own there.
      progress: told how much is classified, and how much there is, in images.
      keep: images whose maps are kept, at most.

    Raises:
      UsageError: when not one image can be decoded; for a map that is not finite.
    """
    path = None if store is None else Path(store) / own_name() / STORE
    by_key = {measure.key: measure for measure in measures}
    methods = {
        key: list(source.extractors) if measure.again else source.wanted
        for key, measure in by_key.items()
    }
    prints = {key: source.fingerprints(measure) for key, measure in by_key.items()}
    require_same_images([source.images])
    require_agreed("arguments", fingerprint(prints, source.batch_size), "other ones")
    index = {name: i for i, name in enumerate(source.names)}
    findings = [] if path is None else load_findings(path, prints)
    share = share_of(len(index))
    findings = [finding for finding in findings if index.get(finding.id, -1) in share]
    done = {(finding.id, finding.measure, finding.method) for finding in findings}

    def pending(name: str) -> dict[Measure, list[str]]:
        lacking = {
            by_key[key]: [method for method in wanted if (name, key, method) not in done]
            for key, wanted in methods.items()
        }
        return {measure: found for measure, found in lacking.items() if found}

    def work(name: str) -> int:
        return sum(measure.work(len(lacking)) for measure, lacking in pending(name).items())

    todo = [i for name, i in index.items() if i in share and pending(name)]
    classified, total = 0.0, sum(work(source.names[i]) for i in todo)
    kept: list[Subject] = []
    skipped: list[Skipped] = []

    def told(images: int | float) -> None:
        nonlocal classified
        classified += images
        if progress:
            left_out = sum(work(source.names[image.index]) for image in skipped)
            progress(round(classified), total - left_out)

    laboratory = Laboratory(source.runner, source.extractors, source.batch_size, source.seed, told)
    if todo:
        told(0)
        with closing(source.of(todo, skipped)) as groups:
            for subjects in groups:
                kept += subjects[: keep - len(kept)]
                for subject in subjects:
                    for method, given in subject.maps.items():
                        require_map(subject.id, subject.size, method, given)
                tasks = [(subject, pending(subject.id)) for subject in subjects]
                for finding in _of_group(laboratory, tasks):
                    if path is not None:
                        append_finding(path, finding, prints[finding.measure][finding.method])
                    findings.append(finding)
    if jax.process_count() > 1:
        findings, skipped = _of_all_processes(findings, skipped)
    if not findings:
        wrong = f"{len(index)}, none of which can be decoded"
        raise UsageError("images", wrong, "images", f"{skipped[0].id}: {skipped[0].reason}")
    order = {
        (key, method): row
        for row, (key, method) in enumerate(
            (key, method) for key, wanted in methods.items() for method in wanted
        )
    }
    findings.sort(key=lambda one: (order[one.measure, one.method], index[one.id]))
    return Measured(findings, skipped, kept)


def _of_all_processes(
    findings: Sequence[Finding], skipped: Sequence[Skipped]
) -> tuple[list[Finding], list[Skipped]]:
    """What all processes found, in their order."""
    rows, told = [one._asdict() for one in findings], [astuple(image) for image in skipped]
    every = gathered_values((rows, told))
    return (
        [Finding(**row) for rows, _ in every for row in rows],
        [Skipped(*image) for _, told in every for image in told],
    )


def _of_group(
    laboratory: Laboratory, tasks: Sequence[tuple[Subject, Mapping[Measure, Sequence[str]]]]
) -> Iterator[Finding]:
    """What is found on some images: rows of one image in one stream, then the other measures."""
    others: dict[Measure, list[Subject]] = {}
    for subject, lacking in tasks:
        rows = {one: names for one, names in lacking.items() if isinstance(one, RowMeasure)}
        if rows:
            yield from row_findings(laboratory, subject, rows)
        for measure, names in lacking.items():
            if measure not in rows:
                maps = {name: subject.maps[name] for name in names}
                others.setdefault(measure, []).append(replace(subject, maps=maps))
    for measure, subjects in others.items():
        yield from measure.findings(laboratory, subjects)


def load_findings(path: Path, fingerprints: Mapping[str, Mapping[str, str]]) -> list[Finding]:
    """The findings of an earlier run whose measure and method have the same fingerprint now.

    Lines that are not as they were written are taken off the file and told of, but for a last one
    that an interruption cut short.
    """
    if not path.exists():
        return []
    *lines, last = path.read_bytes().split(b"\n")
    read = [_read(line) for line in lines]
    damaged = read.count(None)
    if damaged or last:
        kept = (line + b"\n" for line, values in zip(lines, read, strict=True) if values)
        write_whole(path, b"".join(kept))
    if damaged:
        told = "%s: %d damaged lines: computed again"
        logging.getLogger("jaxood").warning(told, path, damaged)
    found = []
    for values in filter(None, read):
        known = fingerprints.get(values["measure"], {}).get(values["method"])
        if values.pop("fingerprint") == known:
            found.append(Finding(**values))
    return found


def append_finding(path: Path, finding: Finding, identity: str) -> None:
    """One line of JSON."""
    make_folder(path.parent)
    with path.open("ab") as file:
        file.write(_line(finding._asdict() | {"fingerprint": identity}) + b"\n")


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values | {"digest": fingerprint(json.dumps(values))}).encode()


def _read(line: bytes) -> dict[str, Any] | None:
    """What `_line` made a line of; None for any other."""
    try:
        values = json.loads(line)
        del values["digest"]
        return values if _line(values) == line else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
