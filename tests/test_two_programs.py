"""Two programs at once on one CPU: neither changes what the other gives."""

import os
import subprocess
import sys
from unittest.mock import patch

import pytest

pytestmark = [pytest.mark.long, pytest.mark.cpu]


@pytest.mark.parametrize(
    "name", ["regnet_y_8gf", "regnet_y_16gf", "resnet50 saliency", "regnet_y_8gf saliency"]
)
def test_a_large_network_does_not_see_the_other_program(name):
    """With convolutions by Eigen logits were off by 1 %, from the eighth image of each on.

    ResNet-50's gradients changed, too. In a process of its own: not with eight devices' threads.
    """
    environment = os.environ | {"NPROC": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__, *name.split()]
    subprocess.run(command, env=environment, check=True, timeout=300)


def main(name, *attributions):
    import jax
    import numpy as np
    from untrained import drawn_network

    from jaxood import lanes
    from jaxood.attribution.registry import attribution
    from jaxood.runner.runner import Runner

    runner = Runner(drawn_network(name))
    images = np.random.default_rng(0).integers(0, 256, (32, 224, 224, 3), dtype=np.uint8)
    step, rows = (
        runner.step([attribution(one) for one in attributions]),
        (images, np.zeros(32, np.int32)),
    )
    found = []
    for count in (2, 1):
        with patch.object(lanes, "LANES", count):
            found.append(runner.run(step, rows, (jax.random.key(0),)))
    two, one = ([np.asarray(a) for a in (each.logits, *each.extras.values())] for each in found)
    for ours, expected in zip(two, one, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


if __name__ == "__main__":
    main(*sys.argv[1:])
