"""The step of a pass is a program for GPUs and TPUs, too, in which nothing waits for the host."""

import jax
import numpy as np
import pytest

from jaxood.attribution.registry import ATTRIBUTIONS
from jaxood.detectors.registry import VIEWS
from jaxood.models.digits_cnn import digits_cnn, initialise
from jaxood.models.registry import LoadedModel
from jaxood.preprocessing import Preprocessing
from jaxood.runner import runner as module
from jaxood.runner.runner import Runner

PLATFORMS = ("cuda", "tpu")
EXTRACTORS = {**ATTRIBUTIONS, **VIEWS}
NAMES = [
    name if name == "banzhaf" else pytest.param(name, marks=pytest.mark.long) for name in EXTRACTORS
]


@pytest.mark.parametrize("name", NAMES)
def test_steps_lower(name):
    network = digits_cnn(6)
    initialise(network, jax.random.key(0))
    runner = Runner(LoadedModel(network, Preprocessing(8, 8), "digits_cnn", "digits", "hash"))
    rows = np.zeros((8, 8, 8, 3), np.uint8), np.zeros(8, np.int32)
    step = runner.step((EXTRACTORS[name](),))
    program = jax.export.export(module._on_mesh.compiled(), platforms=PLATFORMS)(
        step, runner._graphdef, runner.mesh, runner._state, rows, (jax.random.key(0),)
    )
    text = program.mlir_module()
    assert program.platforms == PLATFORMS and "callback" not in text
    for collective in ("all_gather", "all_reduce", "all_to_all", "reduce_scatter", "permute"):
        assert collective not in text
