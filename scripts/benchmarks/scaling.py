"""What several devices and processes do, send and hold; and what that makes of ImageNet on chips.

Devices are virtual, so nothing is timed over them: work, memory and bytes sent are the compiler's
account of the programs that commands run. Processes are real, over loopback, and count the images
that each decodes and the bytes that it gathers. The projection rests on figures of this run, and on
the assumptions that it prints: change them by options.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

IMAGES = 1_281_167 + 130_000  # training images, and those of the ID and OOD sets
BANK, QUERIES, K = 1_281_167, 1024, 10
DEVICES, PROCESSES, CHIPS = (1, 2, 4, 8), (1, 2, 4), (8, 64, 512)
ROWS = 64  # images of each process
COLLECTIVES = "all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute"
COLLECTIVE = re.compile(rf"= (\S+|\([^)]*\)) (?:{COLLECTIVES})(?:-start)?\(")
ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
ITEM = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1, "u8": 1, "s8": 1, "f64": 8}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    told = "default: %(default)s"
    parser.add_argument("--arch", default="resnet50", help=told)
    parser.add_argument("--batch", type=int, default=32, help="images a step of a device; " + told)
    chip = "images a second of one chip; default: those of this machine's device"
    parser.add_argument("--chip-rate", type=float, help=chip)
    parser.add_argument("--host-chips", type=int, default=8, help="chips of a host; " + told)
    parser.add_argument("--host-cores", type=int, default=224, help="cores of a host; " + told)
    parser.add_argument("--network", type=float, default=100.0, help="Gbit/s of a host; " + told)


def run(args: argparse.Namespace) -> dict:
    devices = {f"{n} devices": on_devices(args, n) for n in DEVICES}
    processes = {f"{n} processes": in_processes(n) for n in PROCESSES}
    one, most = devices["1 devices"], devices[f"{DEVICES[-1]} devices"]
    return {
        **devices,
        **processes,
        "work of a device in a step, 8 devices over 1": most["step"]["GFLOP a device"]
        / one["step"]["GFLOP a device"],
        "images of a process, 4 processes over 1": processes["4 processes"]["images decoded, most"]
        / processes["1 processes"]["images decoded, most"],
        "projection": projected(args, one["step"]["images a second"], one["values an image"]),
    }


def call(name: str, *arguments: object, devices: int = 1) -> subprocess.Popen:
    """A function of this module in a process of its own, that prints JSON."""
    code = f"from benchmarks import scaling; scaling.{name}(*{arguments!r})"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
    )


def answer(process: subprocess.Popen) -> dict:
    printed, _ = process.communicate()
    if process.returncode:
        sys.exit(f"a process ended with {process.returncode}")
    return json.loads(printed.splitlines()[-1])


def on_devices(args: argparse.Namespace, count: int) -> dict:
    return answer(call("account", args.arch, args.batch, count, devices=count))


def account(arch: str, batch: int, count: int) -> None:
    """Prints the account of the step of a pass, and of a search over a bank in parts."""
    import jax
    import numpy as np
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from benchmarks import random_model, seconds
    from jaxood.detectors.neighbours import CHUNK, Bank, device_mesh, nearest
    from jaxood.runner import runner as module
    from jaxood.runner.runner import Runner

    assert jax.local_device_count() == count
    runner = Runner(random_model(arch))
    arguments = runner._arguments(runner.step(), batch * count)
    step = module._on_mesh.compiled().lower(*arguments).compile()
    found = {"step": figures(step)}
    if count == 1:
        image = np.zeros((batch, *arguments[4][0].shape[1:]), np.uint8)
        target = np.full(batch, -1, np.int32)

        def one_step():
            jax.block_until_ready(runner.run(runner.step(), (image, target), arguments[5]))

        found["step"]["images a second"] = batch / seconds(one_step)

    mesh, channels = device_mesh(), runner.model.head.kernel.shape[0]
    whole, parts = NamedSharding(mesh, P()), NamedSharding(mesh, P(*mesh.axis_names))

    def search(size: int):
        rows = -(-size // (CHUNK * count)) * CHUNK * count
        bank = Bank(
            jax.ShapeDtypeStruct((rows, channels), np.float32, sharding=parts),
            jax.ShapeDtypeStruct((), np.int32, sharding=whole),
        )
        queries = jax.ShapeDtypeStruct((QUERIES, channels), np.float32, sharding=whole)
        return jax.jit(nearest, static_argnums=(2, 3)).lower(queries, bank, K, mesh).compile()

    found["values an image"] = sum(runner.model.head.kernel.shape)
    found["search"] = figures(search(BANK))
    # Of all rounds of its loops, from the shapes.
    share = -(-BANK // (CHUNK * count)) * CHUNK
    found["search"]["GFLOP a device"] = 2 * share * channels * QUERIES / 1e9
    found["search"]["bytes sent with a tenth of the bank"] = sent(search(BANK // 10))
    print(json.dumps(found))


def figures(compiled) -> dict:
    from jaxood.runner.batch_size import step_bytes

    return {
        # Of one round of a loop, however many there are: a step loops over a few images at a time.
        "GFLOP a device": compiled.cost_analysis()["flops"] / 1e9,
        "MB a device": step_bytes(compiled, 1) / 1e6,
        "bytes sent": sent(compiled),
    }


def sent(compiled) -> int:
    """Bytes that a device gets of the others, in all collectives of a program."""
    import jax

    total, devices = 0, jax.local_device_count()
    for kind, shape in ARRAY.findall(" ".join(COLLECTIVE.findall(compiled.as_text()))):
        size = ITEM[kind]
        for side in filter(None, shape.split(",")):
            size *= int(side)
        total += size
    return total * (devices - 1) // devices


def in_processes(count: int) -> dict:
    """A pass of `count` processes over loopback, as many images for each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    running = [call("share", address, count, number) for number in range(count)]
    found = [answer(process) for process in running]
    assert len({one["digest"] for one in found}) == 1, "processes disagree"
    return {
        "images": ROWS * count,
        "images decoded, most": max(one["decoded"] for one in found),
        "images decoded, all": sum(one["decoded"] for one in found),
        "bytes gathered by each": found[0]["gathered"],
        "bytes an image": found[0]["gathered"] / (ROWS * count),
    }


def share(address: str, processes: int, number: int) -> None:
    """Prints what one process decoded and gathered."""
    import contextlib

    import jax
    import numpy as np

    import jaxood
    from benchmarks import random_model
    from jaxood import processes as module
    from jaxood.data.images import Arrays
    from jaxood.files import fingerprint
    from jaxood.runner.runner import Runner

    gathered, allgather = 0, module._allgather

    def counted(content):
        nonlocal gathered
        found = allgather(content)
        gathered += found.nbytes
        return found

    module._allgather = counted
    together = contextlib.nullcontext()
    if processes > 1:
        together = jaxood.distributed(address, processes, number)
    with together:
        model = random_model("digits_cnn")
        side = model.preprocessing.crop
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (ROWS * processes, side, side, 3), np.uint8)
        decoded, batches = 0, Arrays.batches

        def read(images, *arguments, **named):
            nonlocal decoded
            for batch in batches(images, *arguments, **named):
                decoded += int(batch.valid.sum())
                yield batch

        Arrays.batches = read
        before = gathered
        features = Runner(model).extract(Arrays(pixels, None, "pictures"), batch_size=16)
        assert len(features) == len(pixels)
        told = {
            "decoded": decoded,
            "gathered": gathered - before,
            "digest": fingerprint(jax.device_get(features.logits).tobytes()),
        }
    print(json.dumps(told))


def decoding_rate() -> float:
    """Photographs of 500 x 375 that one core decodes and resizes in a second."""
    import tempfile

    import numpy as np
    from PIL import Image

    from jaxood.data.decode import read
    from jaxood.preprocessing import Preprocessing

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "photograph.jpg")
        noise = Image.fromarray(rng.integers(0, 256, (47, 63, 3), np.uint8))
        noise.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)
        read(path, Preprocessing(256, 224))
        begun = time.perf_counter()
        for _ in range(50):
            read(path, Preprocessing(256, 224))
        return 50 / (time.perf_counter() - begun)


def projected(args: argparse.Namespace, measured: float, values: int) -> dict:
    """A pass over ImageNet by number of chips.

    Args:
      measured: images a second of this machine's device.
      values: that are kept of an image, in float32.
    """
    rate, decoding = args.chip_rate or measured, decoding_rate()
    gathered = IMAGES * 4 * values
    found: dict = {
        "assumptions": {
            "images": IMAGES,
            "images a second of a chip": rate,
            "taken from": "--chip-rate" if args.chip_rate else "the device of this run",
            "images a second that a core decodes": decoding,
            "chips and cores of a host": [args.host_chips, args.host_cores],
            "bytes gathered by each host": gathered,
            "Gbit/s of a host's network": args.network,
            "all else": "free: listing, fitting, scoring, compilation",
        }
    }
    for chips in CHIPS:
        hosts = -(-chips // args.host_chips)
        shares = {
            "computing": IMAGES / (chips * rate),
            "decoding": IMAGES / (hosts * args.host_cores * decoding),
        }
        network = gathered * (hosts > 1) / (args.network * 1e9 / 8)
        seconds = max(shares.values()) + network
        found[f"{chips} chips"] = {
            "images a second": IMAGES / seconds,
            "seconds": seconds,
            "of which gathering": network,
            "bound by": max(shares, key=shares.__getitem__),
        }
    return found
