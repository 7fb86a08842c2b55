#!/usr/bin/env python
"""`medvl serve` under many clients: answers per second, waiting times, peak memory; one client beside, for the ratio.

python benchmarks/gpu/serve.py --base FOLDER --adapter FOLDER --clients 16 --requests 48 --out row.json
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import httpx
import numpy as np
from PIL import Image

START_SECONDS = 180


def body(number: int, tokens: int) -> dict[str, Any]:
    """A question on an image of its own."""
    noise = np.random.default_rng(number).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    address = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    image, text = {"type": "image_url", "image_url": {"url": address}}, {"type": "text", "text": "How many cells?"}
    turn = {"role": "user", "content": [image, text]}
    return {"model": "general", "messages": [turn], "max_tokens": tokens}


def ask(url: str, bodies: list[dict[str, Any]], clients: int) -> dict[str, float]:
    """Rate and waiting times of so many clients at a time.

    Raises:
        httpx.HTTPStatusError: a request was refused.
    """

    def one(asked: dict[str, Any]) -> float:
        started = time.perf_counter()
        client.post(f"{url}/v1/chat/completions", json=asked).raise_for_status()
        return time.perf_counter() - started

    limits = httpx.Limits(max_connections=clients)
    with httpx.Client(timeout=300, limits=limits) as client, ThreadPoolExecutor(clients) as pool:
        started = time.perf_counter()
        waits = sorted(pool.map(one, bodies))
        rate = len(bodies) / (time.perf_counter() - started)
    return {"per_s": rate, "median_s": statistics.median(waits), "slowest_s": waits[-1]}


def main() -> None:
    """Start the server, ask, stop it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    command = [sys.executable, "-m", "medvl.cli", "serve", "--model", args.base, "--adapter", args.adapter]
    command += ["--dtype", args.dtype, "--quantization", "none", "--no-router", "--port", str(args.port)]
    url = f"http://127.0.0.1:{args.port}"
    with subprocess.Popen(command) as server:
        try:
            wait_for(url, server)
            bodies = [body(number, args.new_tokens) for number in range(args.requests)]
            ask(url, bodies[:2], 1)
            few = bodies[: max(2, args.requests // 6)]
            row = {"one client": ask(url, few, 1), f"{args.clients} clients": ask(url, bodies, args.clients)}
        finally:
            server.terminate()
    args.out.write_text(json.dumps(row))


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    """Return when the server answers.

    Raises:
        SystemExit: it ended, or did not answer in time.
    """
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            if httpx.get(f"{url}/health", timeout=2).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise SystemExit(f"the server does not answer: exit code {server.poll()}")


if __name__ == "__main__":
    main()
