"""ROAD curves on disk as they come, and what they amount to over a set of images."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from jaxood.manifest import write_json
from jaxood.perturbation.road import ORDERS, Curves, RoadSettings, area, mean_interval
from jaxood.store import write_whole

RANDOM = "random"
AREAS = (*ORDERS, "combined")


def load_curves(path: Path, fingerprints: Mapping[str, str]) -> list[Curves]:
    """The curves of an earlier run whose method has the same fingerprint now.

    A last line that an interruption cut short is left out, and taken off the file.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    if lines[-1]:
        write_whole(path, b"".join(line + b"\n" for line in lines[:-1]))
    found = []
    for line in filter(None, lines[:-1]):
        values = json.loads(line)
        if values.pop("fingerprint") == fingerprints.get(values["method"]):
            values["confidence"] = np.array(values["confidence"], np.float32)
            values["agrees"] = np.array(values["agrees"], bool)
            found.append(Curves(**values))
    return found


def append_curves(path: Path, curves: Curves, fingerprint: str) -> None:
    """One line of JSON."""
    values = curves._asdict() | {"fingerprint": fingerprint}
    values |= {"confidence": curves.confidence.tolist(), "agrees": curves.agrees.tolist()}
    with path.open("a") as file:
        file.write(json.dumps(values) + "\n")


def join_random(curves: Sequence[Curves]) -> dict[str, dict[str, Curves]]:
    """By method, then image; the random maps of an image ("random/0"...) as their mean."""
    methods: dict[str, dict[str, list[Curves]]] = {}
    for own in curves:
        method = RANDOM if own.method.startswith(f"{RANDOM}/") else own.method
        methods.setdefault(method, {}).setdefault(own.id, []).append(own)

    def mean(method: str, several: list[Curves]) -> Curves:
        return several[0]._replace(
            method=method,
            confidence=np.mean([own.confidence for own in several], axis=0),
            agrees=np.mean([own.agrees for own in several], axis=0),
            iterations=max(own.iterations for own in several),
            residual=max(own.residual for own in several),
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
        confidence = np.stack([own.confidence for own in images.values()])
        accuracy = np.stack([own.agrees for own in images.values()])
        areas = np.array([own.areas(x) for own in images.values()])
        found[method] = {"images": len(images)}
        for i, order in enumerate(ORDERS):
            found[method][order] = {
                "confidence": interval(confidence[:, i]),
                "accuracy": interval(accuracy[:, i]),
                "accuracy_area": area(accuracy[:, i].mean(axis=0), x),
            }
        found[method]["areas"] = {name: interval(areas[:, i]) for i, name in enumerate(AREAS)}
        found[method]["iterations"] = max(own.iterations for own in images.values())
        found[method]["residual"] = max(own.residual for own in images.values())
        rivals = methods[RANDOM]
        pairs = [(own.areas(x), rivals[image].areas(x)) for image, own in images.items()]
        found[method]["beats_random"] = {
            "morf": sum(own[0] < rival[0] for own, rival in pairs),
            "lerf": sum(own[1] > rival[1] for own, rival in pairs),
        }
    return {"settings": asdict(settings), "fractions": x, "methods": found}


def table(found: dict) -> str:
    """A line a method: mean areas, their intervals, images on which the random map is beaten."""
    names = max(len(name) for name in [*found["methods"], "method"])
    titles = ("MoRF (low is good)", "LeRF (high is good)", "(LeRF - MoRF) / 2")
    head = f"{'method':<{names}}  " + "".join(f"{title:<24}" for title in titles)
    lines = [head + "beats random", "-" * (len(head) + 12)]
    for name, own in found["methods"].items():
        cells = [
            f"{own['areas'][order]['mean']:.4f} "
            f"[{own['areas'][order]['low']:.4f}, {own['areas'][order]['high']:.4f}]"
            for order in AREAS
        ]
        beats = own["beats_random"]
        last = f"{beats['morf']}/{own['images']} MoRF, {beats['lerf']}/{own['images']} LeRF"
        line = f"{name:<{names}}  " + "".join(f"{cell:<24}" for cell in cells)
        lines.append(line + ("" if name == RANDOM else last))
    return "\n".join(lines)


def write_results(folder: Path, methods: Mapping[str, Mapping[str, Curves]], found: dict) -> None:
    """curves.csv, a row an image, method, order and fraction; areas.csv; curves.json, the means."""
    x = tuple(found["fractions"])
    points, areas = [], []
    for method, images in methods.items():
        for image, own in images.items():
            areas.append((image, method, own.target, *map(float, own.areas(x))))
            for order, confidence, agrees in zip(ORDERS, own.confidence, own.agrees, strict=True):
                points += [
                    (image, method, order, *map(float, values))
                    for values in zip(x, confidence, agrees, strict=True)
                ]
    columns = ("image", "method", "order", "fraction", "confidence", "accuracy")
    _write_csv(folder / "curves.csv", columns, points)
    _write_csv(folder / "areas.csv", ("image", "method", "target", *AREAS), areas)
    write_json(folder / "curves.json", found)


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())
