"""Torch networks for parity tests: random weights, and norm statistics that keep them alive."""

import numpy as np
import pytest


def randomise(network, side: int = 64, seed: int = 0):
    """Fills norms, biases and tables with random values, in place; returns it in eval mode.

    The running statistics are those of one random batch, then disturbed: statistics drawn from
    nowhere would let activations grow a thousandfold, and rounding errors with them.
    """
    torch = pytest.importorskip("torch")
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1 and name.endswith("weight"):  # norms
                parameter.uniform_(0.5, 1.5)
            elif parameter.ndim == 1 or "attention_biases" in name or "token" in name:
                parameter.normal_(0, 0.3)
            elif name.startswith(("heads.", "head.", "fc.", "classifier.")):
                parameter.normal_(0, 0.1)
        norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        network.train()(torch.randn(4, 3, side, side))
        for norm in norms:
            norm.running_mean += 0.2 * torch.randn_like(norm.running_mean)
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.7, 1.5)
    return network.eval()


def noise(n: int, side: int, seed: int = 1) -> np.ndarray:
    """Images of standard normal noise, NHWC."""
    return np.random.default_rng(seed).standard_normal((n, side, side, 3), np.float32)
