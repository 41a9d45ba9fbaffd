"""How many images a step takes, and that it is refused where it does not fit."""

import json
from types import SimpleNamespace
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from untrained import untrained_digits

import jaxood
from jaxood import parallel
from jaxood.attribution.registry import attribution
from jaxood.data.images import Arrays
from jaxood.errors import UsageError
from jaxood.parallel import free_bytes
from jaxood.runner import batch_size as module
from jaxood.runner import runner as runner_module
from jaxood.runner.batch_size import chosen, step_bytes
from jaxood.runner.runner import Runner


@pytest.fixture(scope="module")
def model():
    return untrained_digits()


def pictures(count):
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return Arrays(images, np.arange(count) % 6, "pictures")


def devices(platform, *free):
    def stats(bytes_free):
        return bytes_free and {"bytes_limit": 10**9 + bytes_free, "bytes_in_use": 10**9}

    return [
        Mock(spec=jax.Device, platform=platform, memory_stats=lambda f=f: stats(f)) for f in free
    ]


def program(account):
    return Mock(spec=jax.stages.Compiled, memory_analysis=lambda: account)


def test_what_a_step_takes():
    account = SimpleNamespace(
        argument_size_in_bytes=100, output_size_in_bytes=10, temp_size_in_bytes=1
    )
    assert step_bytes(program(account), 2) == 221
    assert step_bytes(program(None), 2) == 0


def test_the_account_is_of_the_program(model):
    """Its images, uint8, and what it gives, float32, cannot take less than this."""
    runner = Runner(model)
    step = runner.step()
    few, many = (runner._step_bytes(step, size) for size in (8, 64))
    row = 8 * 8 * 3 + 4 + 4 * (32 + 6)  # an image, its target; 32 channels, 6 classes
    assert many - few >= 2 * (64 - 8) * row // runner.mesh.size
    assert runner._step_bytes(runner.step((attribution("banzhaf"),)), 64) > many


def test_free_memory_is_that_of_the_fullest_device(monkeypatch):
    assert free_bytes(devices("gpu", 300, 200, 400)) == 200
    monkeypatch.setattr(parallel, "free_memory", lambda: 1000)
    assert free_bytes(devices("cpu", None, None)) == 500


@pytest.mark.parametrize(
    ("platform", "free", "images", "size"),
    [
        ("gpu", [10_000], 10**6, 256),
        ("gpu", [1000], 10**6, 64),  # 100 + 8 times 32 is within 500, 100 + 8 times 64 is not
        ("gpu", [1000, 1000], 10**6, 128),
        ("tpu", [10_000, 220], 10**6, 2),
        ("gpu", [10_000], 9, 16),
        ("gpu", [10_000, 10_000], 9, 16),
        ("cpu", [10_000], 10**6, 32),
        ("cpu", [10_000] * 4, 10**6, 32),
        ("cpu", [10_000] * 4, 3, 4),
    ],
)
def test_the_largest_that_fits(platform, free, images, size):
    found = chosen(lambda each: 100 + 6 * each, devices(platform, *free), images)
    assert found == size


def test_no_room_for_one_image():
    with pytest.raises(UsageError, match=r"batch_size: got auto, .* 0.30 GB .* 0.50 GB that are"):
        chosen(lambda each: 300_000_000 * each, devices("gpu", 500_000_000), 10)


@pytest.mark.cpu
def test_auto_gives_way_to_what_is_free(model, monkeypatch):
    runner, images = Runner(model), pictures(40)
    each = runner._step_bytes(runner.step(), 2 * runner.mesh.size)
    assert runner.check((), "auto", 40) == 32
    monkeypatch.setattr(module, "free_bytes", lambda devices: 2 * each)
    assert runner.check((), "auto", 40) == 2 * runner.mesh.size
    assert runner.check((), 5, 40) == 5
    banzhaf = runner._step_bytes(runner.step((attribution("banzhaf"),)), runner.mesh.size)
    monkeypatch.setattr(module, "free_bytes", lambda devices: 2 * banzhaf)
    found = jaxood.attribute(model, images.images, "banzhaf", batch_size="auto")
    assert found.settings["batch_size"] == runner.mesh.size


def test_a_step_that_does_not_fit_is_refused_before_it_runs(model, monkeypatch):
    runner = Runner(model)
    monkeypatch.setattr(runner_module, "free_bytes", lambda devices: 10_000)
    with pytest.raises(UsageError, match=r"batch_size: got a step of 32 images, .* smaller one"):
        runner.extract(pictures(64))


@pytest.mark.parametrize("wrong", [0, -1, True, 1 << 17])
def test_what_is_no_batch_size(model, wrong):
    with pytest.raises(UsageError, match="batch_size: got .* wanted 1 to 65536 images"):
        Runner(model).check((), wrong)


@pytest.mark.long
def test_from_the_command_line(tmp_path, capsys):
    from jaxood.cli import main

    command = ["--method", "energy", "--output", str(tmp_path), "--quiet"]
    assert main("evaluate", [*command, "--batch-size", "auto"]) == 0
    assert json.loads((tmp_path / "manifest.json").read_text())["arguments"]["batch_size"] == 32
    assert main("evaluate", [*command, "--batch-size", "none"]) == 2
    assert "got 'none', wanted a whole number of at least 1, or auto" in capsys.readouterr().err
