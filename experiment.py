"""One experiment: a prompt over the inputs.

The prompt goes out as the system message and the task as the user message: that is how people will
use the winner.
"""

from __future__ import annotations

from collections.abc import Sequence

from autoresearch.files.inputs import Input
from autoresearch.files.program import Program
from autoresearch.files.record import Response
from autoresearch.night import AT_ONCE, side_by_side
from client import Client, Usage


def run_experiment(
    client: Client,
    program: Program,
    prompt: str,
    passes: int = 1,
    spent: Usage | None = None,
    *,
    inputs: Sequence[Input] | None = None,
    at_once: int = AT_ONCE,
) -> list[Response]:
    """`passes` responses to each input, pass after pass in the inputs' order; all, or an error."""

    def respond(given: Input) -> Response:
        reply = client.generate_response(prompt, program.question(given), role="task", spent=spent)
        return Response(given, reply.text, reply.finish_reason)

    return side_by_side(respond, list(inputs or program.inputs) * passes, at_once)
