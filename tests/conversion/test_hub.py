"""Checkpoints by name, from a hub that is served here: what is fetched, checked and told."""

import hashlib
import http.server
import importlib
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from urllib.parse import unquote

import numpy as np
import pytest
from references import import_timm, mobilenet_checkpoint

from jaxood.cli import main
from jaxood.conversion import convert
from jaxood.conversion.checkpoint import from_tensors
from jaxood.conversion.convert import TIMM_NAMES, recognise
from jaxood.conversion.hub import HubFile, parse_name
from jaxood.errors import UsageError
from jaxood.models.weights_file import open_weights
from jaxood.preprocessing import Preprocessing

torch = pytest.importorskip("torch")
huggingface_hub = pytest.importorskip("huggingface_hub")
settings = pytest.importorskip("huggingface_hub.constants")

FIRST, SECOND = "1" * 40, "2" * 40  # commits
PUBLISHED = "mobilenet_v2-b0353104.pth"
TIMMS = {"input_size": [3, 96, 96], "crop_pct": 0.75, "interpolation": "bicubic"}
TIMMS |= {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5]}
CONFIG = {"architecture": "mobilenetv2_100", "pretrained_cfg": TIMMS}
KEPT = Preprocessing(128, 96, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.5, 0.5))


@dataclass
class Hub:
    """Repositories by name, their files by commit and path, and what was asked for."""

    address: str = ""
    branches: dict[str, str] = field(default_factory=lambda: {"main": FIRST})
    repositories: dict[str, dict[tuple[str, str], bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content, as the real hub gives them."""
        owner, name, _, revision, file = unquote(path).lstrip("/").split("/", 4)
        if f"{owner}/{name}" == "someone/gated":
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        if f"{owner}/{name}" == "someone/broken":
            return 403, {"X-Error-Message": "Not for you"}, b""
        files = self.repositories.get(f"{owner}/{name}")
        if files is None:
            return 401, {"X-Error-Code": "RepoNotFound"}, b""
        commit = self.branches.get(revision, revision)
        if commit not in (FIRST, SECOND):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        content = files.get((commit, file))
        if content is None:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        tag = hashlib.sha256(content).hexdigest()
        return 200, {"ETag": f'"{tag}"', "X-Repo-Commit": commit}, content

    def files_asked(self) -> list[str]:
        return sorted({path.split("/resolve/")[1] for path in self.asked if "/resolve/" in path})


class Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self):
        self.hub.asked.append(self.path)
        known = "/resolve/" in self.path
        status, headers, content = self.hub.answer(self.path) if known else (404, {}, b"")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


def take_settings():
    """huggingface_hub reads the environment once, when it is imported."""
    importlib.reload(settings)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub()
    handler = type("HubHandler", (Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        with monkeypatch.context() as environment:
            for name in ("HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
                environment.delenv(name, raising=False)
            environment.setenv("HF_ENDPOINT", hub.address)
            environment.setenv("HF_HOME", str(tmp_path / "home"))
            environment.setenv("NO_PROXY", "127.0.0.1")
            take_settings()
            yield hub
        take_settings()
        server.shutdown()
        thread.join()


@pytest.fixture
def offline(hub, monkeypatch):
    """What turns the hub's settings to offline; the fixture `hub` takes them back."""

    def turn():
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        take_settings()

    return turn


@pytest.fixture(scope="module")
def tuned():
    """The real network with a head of two classes, as safetensors."""
    from safetensors.torch import save

    tensors = torch.load(mobilenet_checkpoint(), weights_only=True)
    tensors |= {"classifier.1.weight": torch.ones(2, 1280), "classifier.1.bias": torch.zeros(2)}
    return save(tensors)


def arrays(path):
    file, info = open_weights(path)
    return {name: file.get_tensor(name) for name in file.keys()}, info


def test_a_published_file_by_name(hub, tmp_path):
    content = mobilenet_checkpoint().read_bytes()
    hub.repositories["someone/networks"] = {(FIRST, f"old/{PUBLISHED}"): content}
    report = convert(f"hf://someone/networks/old/{PUBLISHED}", tmp_path / "w.safetensors")
    plain = convert(mobilenet_checkpoint(), tmp_path / "plain.safetensors")
    (ours, info), (theirs, local) = arrays(report.output), arrays(plain.output)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)
    origin = f"hf://someone/networks/old/{PUBLISHED}@{FIRST}"
    assert (info.fetched_from, local.fetched_from) == (origin, "")
    assert info.source_sha256 == hashlib.sha256(content).hexdigest()
    assert info.tag == "IMAGENET1K_V1"
    assert f"\nfetched from {origin}" in str(report)
    assert hub.files_asked() == [f"main/old/{PUBLISHED}"]  # its preprocessing is known
    assert (tmp_path / "home" / "hub" / "models--someone--networks").is_dir()


def test_a_published_name_with_another_hash(hub, tmp_path, tuned):
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    content = (tmp_path / "other.pth").read_bytes()
    hub.repositories["someone/networks"] = {(FIRST, PUBLISHED): content}
    digest = hashlib.sha256(content).hexdigest()
    line = f"with SHA-256 {digest[:8]}..., wanted the one that the published name tells"
    with pytest.raises(UsageError, match=line):
        convert(f"hf://someone/networks/{PUBLISHED}", tmp_path / "w.safetensors")
    assert not (tmp_path / "w.safetensors").exists()
    # Eight digits in a name that nobody published are no hash.
    hub.repositories["someone/networks"] = {(FIRST, "model-20240101.safetensors"): tuned}
    convert("hf://someone/networks/model-20240101.safetensors", tmp_path / "w", tag="ra_in1k")


def test_a_repository_of_timms_form(hub, tmp_path, tuned, capsys, offline):
    """The file without a name, and the config.json of the same commit beside it."""
    other = json.dumps(CONFIG | {"pretrained_cfg": TIMMS | {"crop_pct": 1.0}}).encode()
    hub.repositories["someone/birds"] = {
        (FIRST, "model.safetensors"): tuned,
        (FIRST, "config.json"): json.dumps(CONFIG).encode(),
        (SECOND, "model.safetensors"): tuned,
        (SECOND, "config.json"): other,
    }
    command = ["--checkpoint", "hf://someone/birds", "--output", str(tmp_path / "w.safetensors")]
    assert main("convert", command) == 0
    assert "preprocessing of " in capsys.readouterr().out
    _, info = open_weights(tmp_path / "w.safetensors")
    assert (info.architecture, info.num_classes, info.preprocessing) == ("mobilenet_v2", 2, KEPT)
    assert info.fetched_from == f"hf://someone/birds/model.safetensors@{FIRST}"
    assert hub.files_asked() == [f"{FIRST}/config.json", "main/model.safetensors"]

    hub.branches["v2"] = SECOND
    report = convert("hf://someone/birds@v2", tmp_path / "v2.safetensors")
    assert (report.info.preprocessing.resize, report.info.fetched_from[-40:]) == (96, SECOND)

    asked = len(hub.asked)
    offline()
    again = convert("hf://someone/birds", tmp_path / "again.safetensors")
    assert (again.info, len(hub.asked)) == (info, asked)


def test_names_that_the_registry_knows(hub, tmp_path, tuned):
    """By timm's name for the repository; of no one else's of that name."""
    known, elsewhere = "timm/mobilenet_v2.ra_in1k", "someone/mobilenet_v2.ra_in1k"
    another, torchvisions = "timm/tiny_vit_5m_224.in1k", "timm/mobilenet_v2.IMAGENET1K_V1"
    file = {(FIRST, "model.safetensors"): tuned}
    hub.repositories = dict.fromkeys((known, elsewhere, another, torchvisions), file)
    report = convert(f"hf://{known}", tmp_path / "w.safetensors")
    assert report.info.tag == "ra_in1k"
    assert hub.files_asked() == ["main/model.safetensors"]
    for name in (elsewhere, torchvisions):
        with pytest.raises(UsageError, match="tag: got none"):
            convert(f"hf://{name}", tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match="do not fit|one of tiny_vit_5m_224"):
        convert(f"hf://{another}", tmp_path / "w.safetensors")


def test_no_config_is_known_offline_too(hub, tmp_path, tuned, offline):
    hub.repositories["someone/birds"] = {(FIRST, "model.safetensors"): tuned}
    for turn in (lambda: None, offline):
        turn()
        with pytest.raises(UsageError, match="tag: got none, and the checkpoint could be any of"):
            convert("hf://someone/birds", tmp_path / "w.safetensors")


def test_the_config_is_not_to_be_had(hub, tmp_path, tuned, offline):
    files = {(FIRST, "model.safetensors"): tuned, (FIRST, "config.json"): b"{}"}
    hub.repositories["someone/birds"] = files
    huggingface_hub.hf_hub_download("someone/birds", "model.safetensors")
    offline()
    address = f"{hub.address}/someone/birds/resolve/{FIRST}/config.json"
    with pytest.raises(UsageError, match=f"Fetch config.json by hand.*{address}"):
        convert("hf://someone/birds", tmp_path / "w.safetensors")
    # Nothing is asked for where it is not needed.
    report = convert("hf://someone/birds", tmp_path / "w.safetensors", tag="ra_in1k")
    assert report.info.tag == "ra_in1k"


def test_weights_that_fit_and_compute_otherwise(hub, tmp_path, tuned):
    config = CONFIG | {"architecture": "mobilenetv2_100_of_another_kind"}
    hub.repositories["someone/birds"] = {
        (FIRST, "model.safetensors"): tuned,
        (FIRST, "config.json"): json.dumps(config).encode(),
    }
    line = "checkpoint: got weights of mobilenetv2_100_of_another_kind, as .*config.json tells"
    with pytest.raises(UsageError, match=line):
        convert("hf://someone/birds", tmp_path / "w.safetensors")


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "architecture", "same"),
    [
        ("resnet50", "resnet50", True),
        ("resnetblur50", "resnet50", False),
        ("mobilenetv2_100", "mobilenet_v2", True),
        ("tf_efficientnet_lite0", "efficientnet_lite0", True),
        ("efficientnet_lite0", "efficientnet_lite0", False),
        ("deit_small_patch16_224", "vit_s_16", True),
    ],
)
def test_timms_networks_whose_weights_fit(name, architecture, same):
    network = import_timm().create_model(name)
    checkpoint = from_tensors(network.state_dict())
    assert recognise(checkpoint.shapes, None).architecture == architecture
    assert bool(re.fullmatch(TIMM_NAMES.get(architecture, architecture), name)) == same


WRONG = {
    "hf://someone/none": (
        "no such repository, or a private one",
        "/someone/none. Fetch model.safetensors by hand, and name that file: "
        "ADDRESS/someone/none/resolve/main/model.safetensors",
    ),
    "hf://someone/gated/a/b.pth": (
        "gated",
        "Ask for access: ADDRESS/someone/gated. Fetch a/b.pth by hand, and name that file: "
        "ADDRESS/someone/gated/resolve/main/a/b.pth",
    ),
    "hf://someone/birds/none.pth": ("no such file", "See what there is: ADDRESS/someone/birds"),
    "hf://someone/birds/model.pth@v9": (
        "no such revision",
        "See what there is: ADDRESS/someone/birds",
    ),
    "hf://someone/broken": (
        "403 Forbidden: Not for you, and it is not in ",
        "Fetch model.safetensors by hand",
    ),
    "hf://someone/birds--": ("wanted a name of a repository that the hub could have", ""),
    "hf://someone/birds/../up.pth": ("wanted a file that can be fetched", ""),
    "hf://someone": ("wanted hf://owner/repo/file or ...file@revision", ""),
    "hf://": ("wanted hf://owner/repo/file or ...file@revision", ""),
    "hf://someone/birds/a.pth@": ("wanted hf://owner/repo/file or ...file@revision", ""),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_fetched_is_one_line(hub, tmp_path, capsys, name):
    hub.repositories["someone/birds"] = {}
    assert main("convert", ["--checkpoint", name, "--output", str(tmp_path / "w")]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"jaxood convert: --checkpoint: got {name}")
    assert printed.err.count("\n") == 1 and printed.out == ""
    for part in WRONG[name]:
        assert part.replace("ADDRESS", hub.address) in printed.err
    assert not (tmp_path / "w").exists()


def test_offline_is_one_line_with_what_to_fetch(hub, tmp_path, capsys, offline):
    offline()
    command = ["--checkpoint", "hf://someone/birds/a.pth@v1", "--output", str(tmp_path / "w")]
    assert main("convert", command) == 2
    cache = tmp_path / "home" / "hub"
    assert capsys.readouterr().err == (
        "jaxood convert: --checkpoint: got hf://someone/birds/a.pth@v1 (HF_HUB_OFFLINE is set, and"
        f" it is not in {cache}), wanted a file that can be fetched. Fetch a.pth by hand, and name"
        f" that file: {hub.address}/someone/birds/resolve/v1/a.pth\n"
    )
    assert hub.asked == []


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"Install it: pip install 'jaxood\[hub\]'"):
        convert("hf://someone/birds", tmp_path / "w.safetensors")


def test_a_full_disk_is_no_wrong_input(hub, tmp_path, capsys, monkeypatch):
    def fails(*arguments, **options):
        raise OSError(28, "No space left on device", "blob")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fails)
    assert main("convert", ["--checkpoint", "hf://a/b", "--output", str(tmp_path / "w")]) == 1
    assert capsys.readouterr().err == "jaxood convert: No space left on device: blob\n"


def test_names():
    assert parse_name("hf://a/b.c") == HubFile("a/b.c", "model.safetensors", "main")
    assert parse_name("hf://a/b@v1") == HubFile("a/b", "model.safetensors", "v1")
    assert parse_name("hf://a/b/c/d.pth@refs/pr/1") == HubFile("a/b", "c/d.pth", "refs/pr/1")
    assert str(HubFile("a/b", "c", "v1")) == "hf://a/b/c@v1"


@pytest.mark.long
def test_a_process_of_its_own_and_no_answer(hub, tmp_path, tuned):
    """The settings as a user gives them; the package is imported where a name asks for it."""
    hub.repositories["someone/birds"] = {(FIRST, "model.safetensors"): tuned}
    lazy = "import sys, jaxood.conversion; assert 'huggingface_hub' not in sys.modules"
    subprocess.run([sys.executable, "-c", lazy], check=True)
    output = tmp_path / "w.safetensors"
    command = [sys.executable, "-m", "jaxood", "convert", "--tag", "ra_in1k"]
    command += ["--checkpoint", "hf://someone/birds", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert open_weights(output)[1].fetched_from.endswith(FIRST)
    output.unlink()
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "other")}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | nowhere)
    assert done.returncode == 2
    assert "refused, and it is not in" in done.stderr
    assert "Fetch model.safetensors by hand" in done.stderr and not output.exists()
