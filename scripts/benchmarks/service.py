"""The web service of the documents: latency, requests a second under many clients, memory.

A real MobileNetV2 and real photographs (`requirements-demo.txt`), SFP, on loopback. The latency of
one client's request is set against the decoding and the forward pass of the same photograph, in
turn with it. Clients that ask all at once wait for each other's images: their latency is told, and
what the service takes of the clock for one image that it judges. Among their requests are broken
images, bodies that are too long, and a decompression bomb; each answer is checked.
"""

import argparse
import http.client
import io
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
WARM = 30  # requests before anything is measured


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--requests", type=int, default=300, help="of all clients together")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=4, help="of so many requests, for memory")
    parser.add_argument("--alone", type=int, default=100, help="requests of one client")


def run(args: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photographs, expected, model = prepare(folder)
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "service:app", "--port", port]
        environment = {"DETECTOR": folder / "detector", "WEIGHTS": folder / "weights"}
        server = subprocess.Popen(
            [str(word) for word in [*command, "--log-level", "warning"]],
            cwd=DOCS,
            env=os.environ | {name: str(path) for name, path in environment.items()},
        )
        try:
            wait_for(port, server)
            return measure(args, port, server.pid, photographs, expected, model)
        finally:
            server.terminate()
            server.wait()


def prepare(folder: Path):
    """The files of the service, photographs as they are sent, scores as they must come back."""
    import shutil

    import jaxood
    from jaxood.demo.photos import photos_weights

    shutil.copy(photos_weights(folder), folder / "weights")
    model = jaxood.load_model(folder / "weights")
    images = jaxood.suite("photos").id_test
    detector = jaxood.fit(model, "sfp", calibrate=images)
    detector.save(folder / "detector")
    photographs = [Path(path).read_bytes() for path in images.paths()]
    return photographs, [detector.detect_image(one).score for one in photographs], model


def measure(
    args: argparse.Namespace,
    port: int,
    process: int,
    photographs: Sequence[bytes],
    expected: Sequence[float],
    model,
) -> dict:
    def asked(connection: http.client.HTTPConnection, content: bytes):
        connection.request("POST", "/detect", body=content)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def client(share: Sequence[tuple[bytes, int, float | None]]) -> list[float]:
        """Sends its requests one after the other, checks the answers; latencies of photographs."""
        taken = []
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for content, status, score in share:
            start = time.perf_counter()
            found, answer = asked(connection, content)
            if score is not None:
                taken.append(time.perf_counter() - start)
                assert abs(answer["score"] - score) < 1e-3, (answer, score)
            assert found == status, (found, status, answer)
            if connection.sock is None or status == 413:  # the body was not read to its end
                connection.close()
        connection.close()
        return taken

    whole = [
        (content, 200, score) for content, score in zip(photographs, expected, strict=True)
    ] * (1 + args.requests // len(photographs))
    client(whole[:WARM])
    figures: dict = alone(args, model, photographs, lambda content: client([(content, 200, None)]))

    sent = [
        broken(index, content) or (content, 200, score)
        for index, (content, _, score) in enumerate(whole[: args.requests])
    ]
    memory, latencies, elapsed = [], [], []
    for _ in range(args.rounds):
        with ThreadPoolExecutor(args.clients) as pool:
            start = time.perf_counter()
            shares = [sent[first :: args.clients] for first in range(args.clients)]
            latencies += [one for taken in pool.map(client, shares) for one in taken]
            elapsed.append(time.perf_counter() - start)
        memory.append(resident(process))
    judged = len(latencies) / args.rounds
    service = statistics.median(elapsed) / judged
    return figures | {
        "clients": args.clients,
        "requests_of_a_round": len(sent),
        "photographs_of_a_round": round(judged),
        "answered_as_they_must": len(sent) * args.rounds,
        "clients_latency_ms": round(1000 * statistics.median(latencies), 1),
        "clients_ms_of_the_clock_an_image": round(1000 * service, 1),
        "clients_images_a_second": round(1 / service, 1),
        "clients_over_decoding_and_forward": round(
            1000 * service / figures["decoding_and_forward_ms"], 2
        ),
        "resident_MB_after_each_round": memory,
    }


def alone(args: argparse.Namespace, model, photographs, ask: Callable[[bytes], object]) -> dict:
    """One client's latency, and the time of decoding and a forward pass, in turn."""
    import jax
    from flax import nnx

    from jaxood.compiling import jit
    from jaxood.data.decode import decode

    graphdef, weights = nnx.split(model.module)

    @jit
    def forward(weights, images):
        network = nnx.merge(graphdef, weights)
        return network(model.preprocessing.normalise(images)).logits

    def directly(content: bytes):
        return jax.device_get(forward(weights, decode(content, model.preprocessing)[None]))

    times: dict[str, list[float]] = {"service": [], "directly": []}
    directly(photographs[0])
    for index in range(args.alone):
        content = photographs[index % len(photographs)]
        for name, call in (("directly", directly), ("service", ask)):
            start = time.perf_counter()
            call(content)
            times[name].append(time.perf_counter() - start)
    service, direct = (1000 * statistics.median(times[name]) for name in ("service", "directly"))
    return {
        "decoding_and_forward_ms": round(direct, 2),
        "one_client_latency_ms": round(service, 2),
        "one_client_over_decoding_and_forward": round(service / direct, 2),
    }


def broken(index: int, whole: bytes) -> tuple[bytes, int, None] | None:
    """Of every thirty requests five that are no image, and the status of their answers."""
    kinds = {
        7: (b"no image", 422),
        13: (bomb(), 422),
        17: (whole[: len(whole) // 2], 422),
        19: (b"", 422),
        29: (bytes(10_000_001), 413),
    }
    kind = kinds.get(index % 30)
    return None if kind is None else (*kind, None)


def bomb(side: int = 60_000) -> bytes:
    """A PNG of a few bytes that says it has 3.6 thousand million pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    content = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    content.seek(0, io.SEEK_END)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")):
        content.write(struct.pack(">I", len(data)) + kind + data)
        content.write(struct.pack(">I", zlib.crc32(kind + data)))
    return content.getvalue()


def resident(process: int) -> float:
    """Megabytes of memory that a process holds."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmRSS"))
    return round(int(line.split()[1]) / 1024, 1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, server: subprocess.Popen) -> None:
    while True:
        assert server.poll() is None, "the service ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.2)
