"""Every benchmark, one after the other on a quiet machine, and one table of them for the documents.

Each runs in a process of its own and checks its answers first. With --folder their figures are kept
as JSON, and only those that are not there run: a figure can be taken again alone.
"""

import argparse
import importlib
import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import benchmarks

SCRIPT = Path(__file__).parents[1] / "benchmark.py"
RUNS = {  # by the name of its file of figures
    "attribution": ["attribution", "--coalitions", "32", "60"],
    "score-cam": ["score-cam"],
    "faithfulness": ["faithfulness"],
    "road": ["road"],
    "sfp-overhead": ["sfp-overhead"],
    "neighbors": ["neighbors"],
    "pipeline": ["pipeline"],
    "end-to-end-mobilenet_v2": ["end-to-end"],
    "end-to-end-resnet50": ["end-to-end", "--arch", "resnet50"],
    "forward": ["forward", "--arch", "all", *(["--compiled"] if shutil.which("c++") else [])],
    "roofline": ["roofline"],
}
PACKAGES = ("jax", "flax", "numpy", "torch", "torchvision", "timm", "faiss-cpu", "quantus")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--markdown", type=Path, help="also write the table to this file")
    parser.add_argument("--folder", type=Path, help="where figures are kept, and taken from")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="NAME")


def run(args: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        figures = {name: figures_of(name, folder) for name in args.only}
    text = table(figures)
    if args.markdown:
        args.markdown.write_text(text)
    print(text)
    return figures


def figures_of(name: str, folder: Path) -> dict:
    path = folder / f"{name}.json"
    if not path.exists():
        print(f"{name} ...", file=sys.stderr, flush=True)
        command = [sys.executable, SCRIPT, *RUNS[name], "--json", path]
        done = subprocess.run(command, stdout=subprocess.DEVNULL)
        if done.returncode:
            sys.exit(f"{name} failed")
    return json.loads(path.read_text())


def table(figures: dict[str, dict]) -> str:
    """Markdown: the headlines of each benchmark, and what they were taken with."""
    lines = [f"{with_what()}.", "", "| what | against | figure |", "| --- | --- | --- |"]
    for name, found in figures.items():
        module = importlib.import_module(f"benchmarks.{RUNS[name][0].replace('-', '_')}")
        before = ""
        for what, against, figure in module.headlines(found):
            lines.append(f"| {'' if what == before else what} | {against} | {figure} |")
            before = what
    return "\n".join(lines) + "\n"


def with_what() -> str:
    machine = benchmarks.environment()
    versions = {name: version for name in PACKAGES if (version := version_of(name))}
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{machine['device']}, {machine['cores']} cores ({machine['machine']}), "
        f"Python {platform.python_version()}, {told}"
    )


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
