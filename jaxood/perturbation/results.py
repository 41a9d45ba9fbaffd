"""What ROAD's curves amount to over a set of images."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from jaxood.perturbation.road import ORDERS, Curves, RoadSettings
from jaxood.perturbation.statistics import area, mean_interval
from jaxood.perturbation.subject import RANDOM

AREAS = (*ORDERS, "combined")


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
