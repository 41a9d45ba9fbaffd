"""The web service of the documents, on loopback: whatever is sent to it is answered."""

import importlib.util
import io
import json
import struct
import threading
import time
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxood
from jaxood.demo.digits import digits_weights

pytest.importorskip("fastapi")
SERVICE = Path(__file__).parents[2] / "docs" / "service.py"
CLIENTS = 8


@pytest.fixture(scope="module")
def service(cache, tmp_path_factory):
    """Its address, and the detector it was given."""
    import uvicorn

    folder = tmp_path_factory.mktemp("service")
    weights = digits_weights(cache)
    suite = jaxood.suite("digits")
    detector = jaxood.fit(str(weights), "knn", train=suite.train, calibrate=suite.id_test)
    detector.save(folder / "detector.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTOR", str(folder / "detector.safetensors"))
        patch.setenv("WEIGHTS", str(weights))
        patch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
        spec = importlib.util.spec_from_file_location("service", SERVICE)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = uvicorn.Config(module.app, port=0, log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/detect", detector
        server.should_exit = True
        thread.join()


def post(address, content):
    """Status and JSON of the answer."""
    request = urllib.request.Request(address, data=content, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def encoded(picture, form="PNG"):
    content = io.BytesIO()
    Image.fromarray(picture).save(content, form)
    return content.getvalue()


def bomb(side=60_000):
    """A PNG of a few bytes that says it has 3.6 thousand million pixels."""

    def chunk(kind, data):
        summed = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + summed

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


def test_300_requests_of_8_clients(service):
    address, detector = service
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (20, 60, 80, 3), dtype=np.uint8)
    sent = []
    for index in range(300):
        picture = pictures[index % 20]
        whole = encoded(picture)
        kinds = {
            7: (b"no image", 422),
            13: (bomb(), 422),
            17: (whole[: len(whole) // 2], 422),
            19: (b"", 422),
            29: (bytes(10_000_001), 413),
        }
        sent.append(kinds.get(index % 30, (whole, 200)))
    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = list(clients.map(lambda one: post(address, one[0]), sent))
    assert [status for status, _ in answers] == [status for _, status in sent]
    expected = [detector.detect_image(encoded(picture)) for picture in pictures]
    for index, (status, answer) in enumerate(answers):
        if status == 200:
            verdict = expected[index % 20]
            assert answer["score"] == pytest.approx(verdict.score, rel=1e-6)
            assert answer["in_distribution"] == verdict.in_distribution
        else:
            assert len(answer["detail"].splitlines()) == 1
    assert "pixels allowed" in answers[13][1]["detail"]


def test_bytes_are_judged_as_their_picture(service):
    _, detector = service
    picture = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    assert detector.detect_image(encoded(picture)) == detector.detect_image(picture)
    with pytest.raises(
        jaxood.UsageError, match="^image: got .* wanted an image that can be decoded"
    ):
        detector.detect_image(b"%!PS-Adobe-3.0 EPSF-3.0")
