"""Two programs at once on one CPU: neither changes what the other gives."""

import os
import subprocess
import sys
from unittest.mock import patch

import pytest

pytestmark = [pytest.mark.long, pytest.mark.cpu]


@pytest.mark.parametrize("name", ["regnet_y_8gf", "regnet_y_16gf"])
def test_a_large_network_does_not_see_the_other_program(name):
    """With convolutions by Eigen, from the eighth image of each on, logits were off by 1 %.

    In a process of its own: not with as many threads as eight devices have.
    """
    environment = os.environ | {"NPROC": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__, name]
    subprocess.run(command, env=environment, check=True, timeout=300)


def main(name):
    import numpy as np
    from untrained import drawn_network

    from jaxood import lanes
    from jaxood.models.blocked import forward
    from jaxood.runner.runner import Runner

    runner = Runner(drawn_network(name))
    images = np.random.default_rng(0).standard_normal((32, 224, 224, 3), np.float32)
    found = []
    for count in (2, 1):
        with patch.object(lanes, "LANES", count):
            outputs = runner.run(lambda model, images: forward(model, images)[0], (images,))
        found.append(np.asarray(outputs.logits))
    np.testing.assert_allclose(*found, rtol=0, atol=1e-5 * np.abs(found[1]).max())


if __name__ == "__main__":
    main(*sys.argv[1:])
