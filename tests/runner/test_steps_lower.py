"""The step of a pass is a program for GPUs and TPUs, too, in which nothing waits for the host.

Nor are the factors of its products shortened, as these do unless they are told otherwise.
"""

from functools import partial

import jax
import numpy as np
import pytest
from flax import nnx
from products import precisions
from untrained import untrained_digits

import jaxood
from jaxood.attribution.registry import ATTRIBUTIONS
from jaxood.detectors.registry import VIEWS
from jaxood.lanes import Parts
from jaxood.models.arithmetic import ARITHMETIC
from jaxood.models.loading import abstract_model
from jaxood.models.registry import ARCHITECTURES
from jaxood.perturbation.imputation import IMPUTATIONS
from jaxood.perturbation.road import Preparation, RoadStep
from jaxood.perturbation.rows import RowStep
from jaxood.perturbation.sensitivity import NoisyStep
from jaxood.runner import runner as module
from jaxood.runner.runner import Runner
from jaxood.runner.step import ExtractionStep

PLATFORMS = ("cuda", "tpu")
EXTRACTORS = {**ATTRIBUTIONS, **VIEWS}
NAMES = [
    name if name == "banzhaf" else pytest.param(name, marks=pytest.mark.long) for name in EXTRACTORS
]


COLLECTIVES = ("all_gather", "all_reduce", "all_to_all", "reduce_scatter", "permute")
MEASURES = ["insertion[steps=2]", "sensitivity[draws=1]", "parameter-randomisation[depths=1]"]
MEASURES += [f"road[steps=2,imputation={name}]" for name in IMPUTATIONS]


@pytest.fixture(scope="module")
def model():
    return untrained_digits()


def assert_lowers(runner, function, rows, shared):
    program = jax.export.export(module._on_mesh.compiled(), platforms=PLATFORMS)(
        function, runner._network, runner.mesh, runner._weights, rows, shared
    )
    text = program.mlir_module()
    assert program.platforms == PLATFORMS and "callback" not in text
    assert not any(collective in text for collective in COLLECTIVES)
    assert set(precisions(text)) <= {"HIGHEST"}


@pytest.mark.parametrize("name", NAMES)
def test_steps_lower(name, model):
    runner = Runner(model)
    rows = np.zeros((8, 8, 8, 3), np.uint8), np.zeros(8, np.int32)
    assert_lowers(runner, runner.step((EXTRACTORS[name](),)), rows, (jax.random.key(0),))


@pytest.mark.parametrize("name", ["mobilenet_v2", "regnet_y_400mf", "swin_t", "tiny_vit_5m_224"])
@pytest.mark.parametrize("dtype, products", [("float32", "HIGHEST"), ("tensorfloat32", "HIGH")])
def test_products_are_as_the_arithmetic_has_them(name, dtype, products):
    """Those of the backbone, and of its gradients; the head's factors are never shortened."""
    module = abstract_model(name, 10)
    module.products = ARITHMETIC[dtype].products
    side = next(iter(ARCHITECTURES[name].tags.values())).preprocessing.crop
    graphdef, weights = nnx.split(module)
    image = jax.ShapeDtypeStruct((1, side, side, 3), ARITHMETIC[dtype].arrays)

    def outputs(weights, image):
        return nnx.merge(graphdef, weights)(image)

    def gradient(weights, image):
        return jax.grad(lambda image: nnx.merge(graphdef, weights).run(image).sum())(image)

    export = partial(jax.export.export, platforms=["cuda"])
    *body, left, right = precisions(export(jax.jit(outputs))(weights, image).mlir_module())
    assert len(body) > 20 and set(body) == {products} and left == right == "HIGHEST"
    assert set(precisions(export(jax.jit(gradient))(weights, image).mlir_module())) == {products}


@pytest.mark.long
def test_steps_of_measures_lower(model, monkeypatch):
    """Whatever a measure runs, as it runs it."""
    seen, run = set(), Runner.run

    def tried(runner, function, rows, shared=()):
        if function not in seen:
            first = rows.rows[0] if isinstance(rows, Parts) else rows
            assert_lowers(runner, function, tuple(first), tuple(shared))
            seen.add(function)
        return run(runner, function, rows, shared)

    monkeypatch.setattr(Runner, "run", tried)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    jaxood.faithfulness(model, images, "grad-cam", measures=MEASURES, random_maps=1)
    kinds = [type(function) for function in seen]
    assert set(kinds) >= {ExtractionStep, RowStep, Preparation, RoadStep, NoisyStep}
    assert kinds.count(RoadStep) == len(IMPUTATIONS)
