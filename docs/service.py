"""POST an encoded image to /detect, get a verdict."""

import asyncio
import os
from dataclasses import asdict

from fastapi import FastAPI, HTTPException, Request
from PIL import Image

import jaxood

MOST_BYTES = 10_000_000
Image.MAX_IMAGE_PIXELS = 50_000_000
SECONDS = 10  # that a request may wait for its turn
AT_ONCE = 2  # images being decoded and judged

detector = jaxood.load_detector(os.environ["DETECTOR"], jaxood.load_model(os.environ["WEIGHTS"]))
detector.detect_image(Image.new("RGB", (256, 256)))  # compiles, before the first request
turn = asyncio.Semaphore(AT_ONCE)
app = FastAPI()


@app.post("/detect")
async def detect(request: Request) -> dict:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MOST_BYTES:
            raise HTTPException(413, f"more than {MOST_BYTES} bytes")
    try:
        await asyncio.wait_for(turn.acquire(), SECONDS)
    except TimeoutError:
        raise HTTPException(503, "busy") from None
    try:
        return asdict(await asyncio.to_thread(detector.detect_image, bytes(content)))
    except jaxood.UsageError as error:
        raise HTTPException(422, str(error)) from None
    finally:
        turn.release()
