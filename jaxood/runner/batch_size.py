"""How many images a step takes: asked for, or as many as the devices hold by XLA's account."""

import logging
from collections.abc import Callable, Sequence
from typing import Literal

import jax

from jaxood.errors import UsageError
from jaxood.parallel import free_bytes

BatchSize = int | Literal["auto"]

AUTO: Literal["auto"] = "auto"
DEFAULT = 32
MOST_A_DEVICE = 256  # of an accelerator; more hardly fill it better
SHARE = 0.5  # of what is free: a bank, and what scores need, come beside the step


def step_bytes(compiled: jax.stages.Compiled, in_flight: int) -> int:
    """What a compiled step takes of each device, by XLA's account; 0 where it gives none.

    Args:
      in_flight: batches that are on the device at once, of which one is computed.
    """
    account = compiled.memory_analysis()
    if account is None:
        return 0
    ends = account.argument_size_in_bytes + account.output_size_in_bytes
    return int(in_flight * ends + account.temp_size_in_bytes)


def chosen(needed: Callable[[int], int], devices: Sequence[jax.Device], images: int) -> int:
    """The largest power of two of images a device whose step fits, over all devices.

    On CPUs, where larger steps are not faster, no more than the default.

    Args:
      needed: bytes of each device, by images a device.
      images: that there are.

    Raises:
      UsageError: when not even one image a device fits.
    """
    free, count = free_bytes(devices), len(devices)
    each = -(-images // count)
    accelerator = devices[0].platform != "cpu"
    size = min(MOST_A_DEVICE if accelerator else -(-DEFAULT // count), 1 << (each - 1).bit_length())
    while (taken := needed(size)) > SHARE * free:
        if size == 1:
            raise UsageError(
                "batch_size",
                f"auto, where a step of one image takes {taken / 1e9:.2f} GB of a device",
                f"at most half of the {free / 1e9:.2f} GB that are free there",
                "Use fewer methods at once, or a smaller model",
            )
        size //= 2
    log = logging.getLogger("jaxood")
    told = "batch size %d: a step takes %.2f GB of the %.2f GB that are free on a device"
    log.info(told, size * count, taken / 1e9, free / 1e9)
    return size * count
