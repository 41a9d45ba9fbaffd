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
    directly = decoding_and_forward(model)
    directly(photographs[0])
    direct, single = [], []
    for content in [photographs[index % len(photographs)] for index in range(args.alone)]:
        direct.append(timed(lambda content=content: directly(content)))
        single.append(timed(lambda content=content: client([(content, 200, None)])))
    figures: dict = {
        "decoding_and_forward_ms": milliseconds(direct),
        "one_client_latency_ms": milliseconds(single),
        "one_client_over_decoding_and_forward": ratio(single, direct),
    }

    sent = [
        broken(index, content) or (content, 200, score)
        for index, (content, _, score) in enumerate(whole[: args.requests])
    ]
    judged = sum(status == 200 for _, status, _ in sent)
    shares = [sent[first :: args.clients] for first in range(args.clients)]
    memory, latencies, an_image, direct = [], [], [], []
    with ThreadPoolExecutor(args.clients) as pool:
        for _ in range(args.rounds):
            direct += [timed(lambda content=content: directly(content)) for content in photographs]
            start = time.perf_counter()
            latencies += [one for taken in pool.map(client, shares) for one in taken]
            an_image.append((time.perf_counter() - start) / judged)
            memory.append(resident(process))
    return figures | {
        "clients": args.clients,
        "requests_of_a_round": len(sent),
        "photographs_of_a_round": judged,
        "answered_as_they_must": len(sent) * args.rounds,
        "clients_latency_ms": milliseconds(latencies),
        "clients_ms_of_the_clock_an_image": milliseconds(an_image),
        "clients_an_image_over_decoding_and_forward": ratio(an_image, direct),
        "clients_images_a_second": round(1 / statistics.median(an_image), 1),
        "resident_MB_after_each_round": memory,
    }


def decoding_and_forward(model) -> Callable[[bytes], object]:
    """What must be done of a photograph at least, in this process."""
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

    return directly


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def milliseconds(times: Sequence[float]) -> float:
    return round(1000 * statistics.median(times), 2)


def ratio(times: Sequence[float], others: Sequence[float]) -> float:
    return round(statistics.median(times) / statistics.median(others), 2)


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
