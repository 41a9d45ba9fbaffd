"""ROAD curves on disk as they come, and what they amount to over a set of images."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from jaxood.files import fingerprint, make_folder, write_whole
from jaxood.perturbation.road import ORDERS, Curves, RoadSettings, area, mean_interval

RANDOM = "random"
AREAS = (*ORDERS, "combined")


def load_curves(path: Path, fingerprints: Mapping[str, str]) -> list[Curves]:
    """The curves of an earlier run whose method has the same fingerprint now.

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
        if values.pop("fingerprint") == fingerprints.get(values["method"]):
            values["confidence"] = np.array(values["confidence"], np.float32)
            values["agrees"] = np.array(values["agrees"], bool)
            found.append(Curves(**values))
    return found


def append_curves(path: Path, curves: Curves, identity: str) -> None:
    """One line of JSON."""
    values = curves._asdict() | {"fingerprint": identity}
    values |= {"confidence": curves.confidence.tolist(), "agrees": curves.agrees.tolist()}
    make_folder(path.parent)
    with path.open("ab") as file:
        file.write(_line(values) + b"\n")


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


def join_random(curves: Sequence[Curves]) -> dict[str, dict[str, Curves]]:
    """By method, then image; the random maps of an image ("random/0"...) as their mean."""
    methods: dict[str, dict[str, list[Curves]]] = {}
    for curve in curves:
        method = RANDOM if curve.method.startswith(f"{RANDOM}/") else curve.method
        methods.setdefault(method, {}).setdefault(curve.id, []).append(curve)

    def mean(method: str, several: list[Curves]) -> Curves:
        return several[0]._replace(
            method=method,
            confidence=np.mean([curve.confidence for curve in several], axis=0),
            agrees=np.mean([curve.agrees for curve in several], axis=0),
            iterations=max(curve.iterations for curve in several),
            residual=max(curve.residual for curve in several),
        )

    return {
        method: {image: mean(method, several) for image, several in images.items()}
        for method, images in methods.items()
    }


def summary(methods: Mapping[str, Mapping[str, Curves]], settings: RoadSettings, seed: int) -> dict:
    """Mean curves and areas with 95 % intervals over images; how often random is beaten."""
    x = settings.fractions

    def interval(values) -> dict:
        mean, low, high = mean_interval(np.asarray(values, np.float64), seed)
        return {"mean": mean, "low": low, "high": high}

    found = {}
    for method, images in methods.items():
        confidence = np.stack([curve.confidence for curve in images.values()])
        accuracy = np.stack([curve.agrees for curve in images.values()])
        areas = np.array([curve.areas(x) for curve in images.values()])
        rivals = methods[RANDOM]
        pairs = [(curve.areas(x), rivals[image].areas(x)) for image, curve in images.items()]
        summed: dict[str, Any] = {"images": len(images)}
        for i, order in enumerate(ORDERS):
            summed[order] = {
                "confidence": interval(confidence[:, i]),
                "accuracy": interval(accuracy[:, i]),
                "accuracy_area": area(accuracy[:, i].mean(axis=0), x),
            }
        summed["areas"] = {name: interval(areas[:, i]) for i, name in enumerate(AREAS)}
        summed["iterations"] = max(curve.iterations for curve in images.values())
        summed["residual"] = max(curve.residual for curve in images.values())
        summed["beats_random"] = {
            "morf": sum(bool(curve[0] < rival[0]) for curve, rival in pairs),
            "lerf": sum(bool(curve[1] > rival[1]) for curve, rival in pairs),
        }
        found[method] = summed
    return {"settings": asdict(settings), "fractions": x, "methods": found}
