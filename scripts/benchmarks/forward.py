"""Forward pass of each architecture against its publisher's torch network, same weights.

Random weights, batch norm folded here and not there, as each is used. Torch runs eager, in NCHW
and in channels_last; --compiled adds torch.compile on channels_last, which needs a C++ compiler.
On a GPU torch runs on the same one, in float32 as this package does, and besides with TensorFloat32
where torch takes it unasked: in convolutions. The batch goes through a `Runner`, over all devices,
as every command does it. A few batches in a row, as a run has them, are one time: the first after a
pause takes longer. The ratio is the time of torch's best to this package's: above 1 is faster.
"""

import copy
import sys

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import dispatched, seconds_in_turn
from jaxood.conversion.convert import convert_state_dict
from jaxood.conversion.parity import (
    TOLERANCE,
    errors,
    find_reference,
    import_publisher,
    torch_outputs,
)
from jaxood.errors import choose
from jaxood.models.arithmetic import ARITHMETIC
from jaxood.models.blocked import forward
from jaxood.models.loading import abstract_model, fill, kept_as
from jaxood.models.registry import ARCHITECTURES, LoadedModel
from jaxood.parallel import rounded_up, shard
from jaxood.runner.runner import Runner

IN_A_ROW = 3
CHECKED = 16  # images whose answers are compared
TOLERANCES = {"float32": TOLERANCE, "tensorfloat32": 0.01, "bfloat16": 0.1}


def add_arguments(parser):
    told = 'architectures, or "all" whose publisher is installed'
    parser.add_argument("--arch", nargs="+", default=["resnet50", "mobilenet_v2"], help=told)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", choices=TOLERANCES, default="float32", help="of both")
    parser.add_argument("--compiled", action="store_true", help="also against torch.compile")


def publishers_network(name: str):
    """The torch network, its conversion layout, and where its feature map comes from."""
    layouts = dict.fromkeys(tag.layout for tag in ARCHITECTURES[name].tags.values())
    for layout in sorted(layouts, key=lambda layout: layout not in ("torchvision", "timm")):
        reference = find_reference(name, layout)
        if reference is not None:
            package = import_publisher(reference.package)
            return reference.build(package, name, 1000), layout, reference.features
    raise ValueError(f"no publisher's network is known for {name}")


def publisher_known(name: str) -> bool:
    """Whether there is a torch network to compare with."""
    layouts = {tag.layout for tag in ARCHITECTURES[name].tags.values()}
    return any(find_reference(name, layout) is not None for layout in layouts)


def outputs(model, images):
    """What a run does of each batch, normalisation left aside."""
    return forward(model, images)[0]


def compare(name: str, batch: int, repeats: int, compiled: bool, dtype: str) -> dict:
    """Checks the answer, then times them in turn."""
    import torch

    torch.manual_seed(0)
    network, layout, features = publishers_network(name)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():  # a head that starts at zero gives no answer to check
                parameter.normal_(0, 0.02)
    weights = convert_state_dict(network.eval().state_dict(), name, layout)

    arrays, empty = ARITHMETIC[dtype].arrays, abstract_model(name, 1000)
    empty.products = ARITHMETIC[dtype].products

    module = fill(empty, lambda path: jnp.asarray(weights[path], kept_as(path, arrays)))
    tag, entry = next(iter(ARCHITECTURES[name].tags.items()))
    runner = Runner(LoadedModel(module, entry.preprocessing, name, tag, "random", dtype))
    batch, side = rounded_up(batch, runner.mesh), entry.preprocessing.crop
    images = np.random.default_rng(0).standard_normal((batch, side, side, 3), np.float32)

    on_device = shard(jnp.asarray(images, arrays), runner.mesh)
    first = rounded_up(CHECKED, runner.mesh)
    ours = jax.tree.map(lambda array: array[:first], runner.run(outputs, (on_device,)))
    found = errors(ours, torch_outputs(network, features, images[:first]))
    if max(found.values()) > TOLERANCES[dtype]:
        raise AssertionError(f"{name}: relative errors {found}")

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    network.to(device, getattr(torch, arrays))
    tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    tensor = tensor.to(device, getattr(torch, arrays))
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    inputs = tensor.to(memory_format=torch.channels_last)
    calls = {
        "eager": lambda: network(tensor),
        "channels_last": lambda: last(inputs),
    }
    if compiled:
        torch.compiler.reset()  # or a network of another size is compiled for any, and fails
        fused = torch.compile(last)
        calls["compiled"] = lambda: fused(inputs)

    def in_a_row(call, short):
        def row():
            torch.backends.cudnn.allow_tf32 = short
            for _ in range(IN_A_ROW):
                call()
            if device == "cuda":
                torch.cuda.synchronize()

        return row

    with torch.inference_mode():
        torch.backends.cuda.matmul.allow_tf32 = dtype == "tensorfloat32"
        rows = {name: in_a_row(call, dtype == "tensorfloat32") for name, call in calls.items()}
        if device == "cuda" and dtype == "float32":
            rows |= {f"{name}, TF32": in_a_row(call, True) for name, call in calls.items()}
        rows["jaxood"] = lambda: dispatched(lambda: runner.run(outputs, (on_device,)), IN_A_ROW)
        times = seconds_in_turn(rows, repeats)
    ours = times["jaxood"]
    figures = {
        "images_per_second": {
            call: round(IN_A_ROW * batch / taken, 2) for call, taken in times.items()
        },
        "ratio": round(min(times["eager"], times["channels_last"]) / ours, 3),
        "relative_error": max(found.values()),
    }
    if compiled:
        figures["ratio_to_compiled"] = round(times["compiled"] / ours, 3)
    short = [taken for call, taken in times.items() if call.endswith("TF32")]
    if short:
        figures["ratio_to_TF32"] = round(min(short) / ours, 3)
    return figures


def headlines(figures: dict) -> list[tuple[str, str, str]]:
    """What a reader wants to know, against what, and the figure."""
    what = f"forward pass, batch {figures['batch']}, {figures['dtype']}"
    rivals = {
        "ratio": "torch, best of eager and channels_last",
        "ratio_to_compiled": "torch.compile",
        "ratio_to_TF32": "torch with TensorFloat32",
    }
    return [
        (f"{what}, {name}", rival, f"{found[key]:.2f} x as fast")
        for name, found in figures.items()
        if isinstance(found, dict)
        for key, rival in rivals.items()
        if key in found
    ]


def run(args) -> dict:
    import torch

    known = [name for name in ARCHITECTURES if publisher_known(name)]
    asked = known if args.arch == ["all"] else args.arch
    names = [choose("arch", name, ARCHITECTURES) for name in asked]
    given = args.batch_size, args.repeats, args.compiled, args.dtype
    figures = {}
    for name in names:
        figures[name] = compare(name, *given)
        print(name, figures[name], file=sys.stderr, flush=True)
    settings = {"batch": args.batch_size, "dtype": args.dtype}
    machine = {"torch": torch.__version__, "torch_threads": torch.get_num_threads()}
    return figures | settings | machine
