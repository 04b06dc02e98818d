"""Serves a simulated model on 127.0.0.1, for trying things out: no real model answers here."""

import argparse
import threading
from contextlib import suppress

from autoresearch.simulator import MODEL
from autoresearch.simulator.server import Simulator

parser = argparse.ArgumentParser("python -m autoresearch.simulator", description=__doc__)
parser.add_argument("--port", type=int, default=0, help="0 picks a free one (default)")
port = parser.parse_args().port
try:
    server = Simulator(port=port)
except (OSError, OverflowError) as error:
    parser.error(f"cannot listen on port {port}: {error}")
with server, suppress(KeyboardInterrupt):
    print(f"simulated model: NEBIUS_MODEL={MODEL} NEBIUS_BASE_URL={server.url}", flush=True)
    threading.Event().wait()
