"""Serves the simulated model: `python -m autoresearch.simulator --port 8100`."""

import argparse
import threading
from contextlib import suppress

from autoresearch.simulator import MODEL
from autoresearch.simulator.server import Simulator

parser = argparse.ArgumentParser(
    prog="python -m autoresearch.simulator",
    description="An API on 127.0.0.1 with a simulated model: no real model answers here.",
)
parser.add_argument("--port", type=int, default=0, help="0 picks a free one (default)")
port = parser.parse_args().port
try:
    server = Simulator(port=port)
except (OSError, OverflowError) as error:
    parser.error(f"cannot listen on port {port}: {error}")
with server, suppress(KeyboardInterrupt):
    print(f"simulated, no real model answers: NEBIUS_MODEL={MODEL} NEBIUS_BASE_URL={server.url}")
    print("Ctrl-C ends it", flush=True)
    threading.Event().wait()
