"""One experiment: a prompt over the inputs, as the system message, with the task as the user's:
that is how people will use the winner."""

from collections.abc import Sequence

from autoresearch.api.exchange import APIError, FatalAPIError
from autoresearch.files.inputs import Input
from autoresearch.files.program import Program
from autoresearch.files.record import Response
from autoresearch.night import AT_ONCE, side_by_side
from autoresearch.text import named
from client import Client, Usage


def run_experiment(
    client: Client,
    program: Program,
    prompt: str,
    inputs: Sequence[Input] = (),
    spent: Usage | None = None,
    *,
    at_once: int = AT_ONCE,
) -> list[Response]:
    """A response to each of the inputs, in their order, by default one pass over the search's; or
    what the client raises: an APIError that spoils this experiment names the input."""

    def respond(given: Input) -> Response:
        try:
            reply = client.generate_response(prompt, program.question(given), spent=spent)
        except APIError as error:
            if isinstance(error, FatalAPIError) or not given.text:
                raise
            kind = "held-out input" if given in program.held_out else "input"
            raise APIError(f'{error} ({kind} "{named(given.text)}")') from error
        return Response(given, reply.text, reply.finish_reason)

    return side_by_side(respond, inputs or program.inputs, at_once)
