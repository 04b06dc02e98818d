"""Words as people read them: shortened, quoted, made harmless, counted."""

import difflib
import json
import re

# C0, DEL, C1, bidi marks and overrides, line separators, lone surrogates, invisible tags; but not
# the newline, nor the joiners that emoji and several scripts are written with.
HIDDEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
    "\ufeff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    r"""`text` with all that a terminal would obey or hide as JSON escapes: ESC becomes \u001b."""
    if text.isprintable():  # the usual text, told at once
        return text
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    return HIDDEN.sub(lambda found: json.dumps(found[0])[1:-1], text)


def mended(text: str) -> str:
    """Text that UTF-8 can hold: half a surrogate pair without its other half becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def count(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def money(cost: float) -> str:
    """US dollars, with digits enough that a small sum is not rounded to nothing."""
    return f"${cost:,.2f}" if cost >= 0.1 or cost == 0 else f"${cost:.2g}"


def nearest(word: str, known: tuple[str, ...]) -> str:
    """The known word that a misspelt one was meant to be; "" when none resembles it."""
    lowered = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), lowered, n=1, cutoff=0.6)
    return lowered[close[0]] if close else ""


def unknown(word: str, known: tuple[str, ...]) -> str:
    """How an error names an unknown word: itself, what it may have been, and all that are known."""
    hint = f" (did you mean '{meant}'?)" if (meant := nearest(word, known)) else ""
    return f"'{short(word)}'{hint}; known: {', '.join(known)}"


def one_line(text: str) -> str:
    """Text on one line, control characters made visible."""
    return " ".join(visible(text).split())


def short(text: str, limit: int = 60) -> str:
    """The beginning of a text, as error messages and reasons quote it."""
    line = one_line(text[: 4 * limit])
    return line if len(line) <= limit else f"{line[: limit - 3].rstrip()}..."


def named(text: str, limit: int = 160) -> str:
    """How an input is named: many have their beginning, or their end, in common."""
    n = limit * 5 // 8
    return one_line(text if len(text) <= limit else f"{text[:n]} ... {text[n + 5 - limit :]}")


def middle_out(text: str, limit: int) -> str:
    """A long text without its middle, which says so."""
    if len(text) <= limit:
        return text
    said = "\n[... {:,} characters are left out here ...]\n"
    half = (limit - len(said) - 8) // 2
    return text[:half] + said.format(len(text) - 2 * half) + text[-half:]


def normalise(prompt: str) -> str:
    """A prompt's identity: white space is folded, nothing else."""
    return " ".join(prompt.split())


def fenced(text: str) -> str:
    """Text as data: in a code fence longer than any run of backticks in it, which cannot end it."""
    fence = "`" * (1 + max([2, *map(len, re.findall(r"`+", text))]))
    return f"{fence}\n{text}\n{fence}"
