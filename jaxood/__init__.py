"""Out-of-distribution detection and spatial attribution for image classifiers, in JAX.

The names below are all that a user needs; each is loaded when it is first used.
"""

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxood.context import Attribution, Context, Extractor, View
    from jaxood.conversion import convert
    from jaxood.data.suite import Suite
    from jaxood.data.suite_check import check_suite
    from jaxood.data.suites import suite
    from jaxood.detectors.check import check_detector
    from jaxood.detectors.contract import Detector, Transform
    from jaxood.detectors.fitted import FittedDetector, detector
    from jaxood.errors import UsageError
    from jaxood.flows.attribute import attribute
    from jaxood.flows.contours import contours
    from jaxood.flows.detect import detect
    from jaxood.flows.detector import ImageDetector, load_detector
    from jaxood.flows.evaluate import evaluate
    from jaxood.flows.faithfulness import faithfulness
    from jaxood.flows.fit import fit
    from jaxood.flows.head import head
    from jaxood.flows.listings import (
        list_attributions,
        list_detectors,
        list_measures,
        list_models,
        list_suites,
    )
    from jaxood.flows.precision import compare
    from jaxood.flows.road import road
    from jaxood.flows.scorer import load_scorer
    from jaxood.flows.sources import load_model
    from jaxood.flows.study import study
    from jaxood.heads import CosineHead, LinearHead, NormLinearHead
    from jaxood.models.contract import check_model
    from jaxood.outputs import ModelOutputs, model_outputs, with_penultimate
    from jaxood.perturbation.measure import Measure
    from jaxood.preprocessing import Preprocessing
    from jaxood.processes import distributed
    from jaxood.report.joined import load_report

__version__ = _version("jaxood")

_HOMES = {
    "Attribution": "context",
    "Context": "context",
    "CosineHead": "heads",
    "Detector": "detectors.contract",
    "Extractor": "context",
    "FittedDetector": "detectors.fitted",
    "ImageDetector": "flows.detector",
    "LinearHead": "heads",
    "Measure": "perturbation.measure",
    "ModelOutputs": "outputs",
    "NormLinearHead": "heads",
    "Preprocessing": "preprocessing",
    "Suite": "data.suite",
    "Transform": "detectors.contract",
    "UsageError": "errors",
    "View": "context",
    "attribute": "flows.attribute",
    "check_detector": "detectors.check",
    "check_model": "models.contract",
    "check_suite": "data.suite_check",
    "compare": "flows.precision",
    "contours": "flows.contours",
    "convert": "conversion",
    "detect": "flows.detect",
    "detector": "detectors.fitted",
    "distributed": "processes",
    "evaluate": "flows.evaluate",
    "faithfulness": "flows.faithfulness",
    "fit": "flows.fit",
    "head": "flows.head",
    "list_attributions": "flows.listings",
    "list_detectors": "flows.listings",
    "list_measures": "flows.listings",
    "list_models": "flows.listings",
    "list_suites": "flows.listings",
    "load_detector": "flows.detector",
    "load_model": "flows.sources",
    "load_report": "report.joined",
    "load_scorer": "flows.scorer",
    "model_outputs": "outputs",
    "road": "flows.road",
    "study": "flows.study",
    "suite": "data.suites",
    "with_penultimate": "outputs",
}

__all__ = [
    "__version__",
    "Attribution",
    "Context",
    "CosineHead",
    "Detector",
    "Extractor",
    "FittedDetector",
    "ImageDetector",
    "LinearHead",
    "Measure",
    "ModelOutputs",
    "NormLinearHead",
    "Preprocessing",
    "Suite",
    "Transform",
    "UsageError",
    "View",
    "attribute",
    "check_detector",
    "check_model",
    "check_suite",
    "compare",
    "contours",
    "convert",
    "detect",
    "detector",
    "distributed",
    "evaluate",
    "faithfulness",
    "fit",
    "head",
    "list_attributions",
    "list_detectors",
    "list_measures",
    "list_models",
    "list_suites",
    "load_detector",
    "load_model",
    "load_report",
    "load_scorer",
    "model_outputs",
    "road",
    "study",
    "suite",
    "with_penultimate",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"jaxood.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
