"""The scripts for clusters run as they stand; two processes here are the hosts of a cluster.

JAX takes them for a SLURM step, for a TPU's hosts too: how it finds those cannot be tried here.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxood.flows.evaluation import FILES

DOCS = Path(__file__).parents[2] / "docs"
HOSTS = f"""#!{sys.executable}
import os, subprocess, sys

words = sys.argv[1:]
if os.path.basename(sys.argv[0]) == "gcloud":
    assert words[:4] == ["compute", "tpus", "tpu-vm", "ssh"] and "--worker=all" in words, words
    command = ["sh", "-c", words[words.index("--command") + 1]]
else:
    while words[0].startswith("--"):
        words.pop(0)
    command = words
step = {{"SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}}
running = [
    subprocess.Popen(command, env=os.environ | step | {{"SLURM_PROCID": i, "SLURM_LOCALID": i}})
    for i in "01"
]
sys.exit(max(process.wait() for process in running))
"""
TOOLS = {
    "srun": HOSTS,
    "gcloud": HOSTS,
    "jaxood": f'#!/bin/sh\nexec {sys.executable} -m jaxood "$@"\n',
    "pip": '#!/bin/sh\nprintf "%s\\n" "$*"\n',
}


@pytest.mark.long
@pytest.mark.parametrize("cluster", ["slurm", "tpu"])
def test_scripts_run(cluster, cache, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in TOOLS.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "JAXOOD_CACHE": str(cache),
        "SLURM_JOB_ID": str(os.getpid() + (cluster == "tpu")),  # JAX makes a port of it
        "SLURM_JOB_NAME": "evaluate",
    }
    where = ["my-slice", "my-zone", str(tmp_path)] if cluster == "tpu" else []
    done = subprocess.run(
        ["sh", DOCS / f"{cluster}.sh", *where, "--suite", "digits", "--method", "msp"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("digits 6-9") == 1  # one prints
    assert done.stdout.startswith("install --quiet jaxood jax[tpu]") == (cluster == "tpu")
    output = tmp_path / "runs" / "evaluate"
    assert {path.name for path in output.iterdir()} == {*FILES, "command.toml", "features"}
    stores = sorted(path.name for path in (output / "features").iterdir())
    assert stores == ["process-0-of-2", "process-1-of-2"]
