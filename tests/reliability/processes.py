"""Commands as users start them: real processes, with their exit codes and what they leave."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from jaxood.flows.evaluation import FILES as RESULTS
from jaxood.models.digits_cnn import digits_cnn, initialise
from jaxood.models.loading import save_weights


def images(folder: Path, count: int, seed: int = 0, side: int = 8) -> Path:
    """Noise, an image a file."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for index in range(count):
        image = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"{index:04}.png")
    return folder


def untrained(path: Path) -> Path:
    """The weights file of a digits network as it is before training."""
    network = digits_cnn(6)
    initialise(network, jax.random.key(0))
    save_weights(path, network, "digits_cnn", "digits")
    return path


def started(
    cache: Path, *arguments: object, shell: str = "", within: tuple[str, ...] = (), **how
) -> subprocess.Popen:
    """`jaxood` with these arguments, or what `shell` makes of it as "$@", run by `within`."""
    command = [sys.executable, "-m", "jaxood", *map(str, arguments)]
    if shell:
        command = [*within, "bash", "-c", shell, "bash", *command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"JAXOOD_CACHE": str(cache)} | how.pop("env", {})
    return subprocess.Popen(command, env=environment, **pipes | how)


def ended(process: subprocess.Popen, seconds: float = 120) -> tuple[int, str, str]:
    """Exit code, output and error output; a process that hangs is an error."""
    try:
        output, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output, error


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob("*.partial"))
