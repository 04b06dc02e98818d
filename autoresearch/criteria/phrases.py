"""Kinds that look for words, those of UAX #29 (42 is not in 3.42): `mentions`, `avoids`."""

import re
import unicodedata
from functools import lru_cache
from operator import methodcaller

import regex
from unicode_segmentation_rs import split_word_bounds

from autoresearch.criteria.kind import Mark
from autoresearch.text import short

# Scripts that put no spaces around words, or (Hangul) hang particles on them.
UNSPACED = regex.compile(r"[\p{Han}\p{Hira}\p{Kana}\p{Hang}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
MARKS = regex.compile(r"(\p{M}{30})\p{M}+")  # UAX #15 allows no more; sorting them is quadratic
WIDE = regex.compile(r"[\u2080-\u2089\ufb00-\ufb4f\uff01-\uffee]+")  # other shapes of a sign
CAPITALS = regex.compile(r"(?<![^\W_])(\p{Lu}{2,}+)s(?![^\W_])")  # AIs
SIGNS = str.maketrans("\u2019\u2212", "'-", "\u00ad\u200b\u200c\u200d\u2060\ufeff")
EMPHASIS = regex.compile(r"(?<![^\W_])[*_~`]+|[*_~`]+(?![^\W_])")
THOUSANDS = regex.compile(
    r"(?:(?<=\d)[,'\u00a0\u2009\u202f]|(?<=(?<![\d.,])\d{1,3}) )(?=\d{3}(?!\d))"
)
HYPHEN = regex.compile(r"(?<=\w)[-\u2010-\u2015]\s*(?=\w)")
POSSESSIVE = regex.compile(r"(?<=\w)'s(?!\w)")
ELISION = regex.compile(r"(?<!\w)(?:[cdjlmnst]|qu)'(?=\p{L}{2})")  # l'eau
# The sign of a word, which is another word without it: .NET, .5, -5, C++, F#
SIGNED = regex.compile(
    r"(?<=(?:\A|[ (])\0)(?:\.|-(?=\0\d))\0(?=\w)|(?<=\p{L})(?:\0[+#])++(?=\0(?!\w))"
)
PART = regex.compile(r'(?:"[^"]*+"|[^,]|(?<=\d),(?=\d{3}(?!\d)))++')  # 1,200 is one phrase
QUOTED = regex.compile(r"\A[\"'\u201c\u201d](.*)[\"'\u201c\u201d]\Z", regex.DOTALL)
LONGEST = 500_000  # characters that are looked at, so that no response takes over a second
PARTING, APART = ",|", "\ue000\ue001"  # signs, and those of a filled-in text: they part nothing
one_phrase = methodcaller("translate", str.maketrans(PARTING, APART))
PAIRS = (
    "man/men child/children person/people foot/feet tooth/teeth wife/wives shelf/shelves"
    " woman/women goose/geese mouse/mice louse/lice leaf/leaves life/lives knife/knives"
    " wolf/wolves half/halves calf/calves loaf/loaves thief/thieves self/selves hoof/hooves"
    " index/indices matrix/matrices vertex/vertices appendix/appendices axis/axes datum/data"
    " medium/media bacterium/bacteria curriculum/curricula phenomenon/phenomena criterion/criteria"
    " nucleus/nuclei fungus/fungi cactus/cacti stimulus/stimuli radius/radii larva/larvae"
    " formula/formulae quiz/quizzes menu/menus taxi/taxis ad/ads"
)
IRREGULAR = dict(pair.split("/") for pair in PAIRS.split())
SINGULAR = {many: one for one, many in IRREGULAR.items()}
ENDINGS = [("", "s"), ("y", "ies"), ("sis", "ses"), ("o", "oes")]
ENDINGS += [(hiss, hiss + "es") for hiss in ("s", "x", "z", "ch", "sh")]
ENDINGS += [*IRREGULAR.items()][:7]  # firemen, grandchildren
NO_PLURAL = frozenset(  # for all their s
    "news this its hers ours yours theirs was has does goes always perhaps sometimes afterwards"
    " nowadays towards besides whereas series species physics mathematics economics politics"
    " athletics mechanics dynamics genetics diabetes lens gas bias alias atlas canvas chaos cosmos"
    " texas christmas james mars".split()
)
# Words that only some languages use: plurals are English ones, not guessed at in another.
ENGLISH = frozenset("the of and to is are was it that this with for you by from or be as".split())
FOREIGN = frozenset(
    "der das und ist nicht ein eine den dem mit auf sich le les des et est une du dans que el los"
    " las y en por una il di che gli della het een niet um uma com och att det og er ikke w nie"
    " f\u00fcr pour n\u00e3o \u00e4r p\u00e5 si\u0119".split()
)
Group = tuple[str, ...]  # the ways to say one thing


def canonical(text: str) -> str:
    """Text in Unicode's form NFC, what UTF-8 cannot hold replaced."""
    return unicodedata.normalize("NFC", MARKS.sub(r"\1", text.encode("utf-8", "replace").decode()))


def fold(text: str) -> str:
    """Text as `mentions` compares it: no case, width, emphasis, hyphens or line breaks."""
    text = WIDE.sub(lambda wide: unicodedata.normalize("NFKC", wide[0]), CAPITALS.sub(r"\1", text))
    text = canonical(canonical(text).casefold()).translate(SIGNS)
    text = THOUSANDS.sub("", EMPHASIS.sub("", text))
    return " ".join(HYPHEN.sub(" ", text).split())


@lru_cache(maxsize=16)
def tokens(text: str) -> tuple[str, bool]:
    """The folded text, a NUL before and after each word and sign; whether it may be English."""
    text = fold(text[:LONGEST]).replace("\0", " ")
    text = ELISION.sub("\\g<0>\0", POSSESSIVE.sub("\0\\g<0>", text))
    if not text.isascii():
        text = UNSPACED.sub("\0\\g<0>\0", text)
    words = split_word_bounds(text)
    first = words[:2000]
    english = sum(t in ENGLISH for t in first) >= sum(t in FOREIGN for t in first)
    joined = "\0".join(["", *(token for token in words if token != "\0"), ""])
    return SIGNED.sub(lambda signed: signed[0].replace("\0", ""), joined), english


def read_groups(argument: str) -> list[Group]:
    """Reads `a | b, "c, d"`: groups between commas, alternatives between bars, quotes dropped."""
    groups = []
    for part in PART.findall(argument):
        phrases = [QUOTED.sub(r"\1", p.strip()).strip() for p in part.split("|")]
        group = tuple(p.translate(str.maketrans(APART, PARTING)) for p in phrases if p)
        if nothing := [phrase for phrase in group if not fold(phrase)]:
            raise ValueError(f"expected words to look for, found '{nothing[0]}'")
        groups += [group] * bool(group)
    if not groups:
        raise ValueError(f"expected 'phrase | alternative, phrase', found '{short(argument)}'")
    return groups


@lru_cache(maxsize=4096)
def pattern(group: Group, numbers: bool) -> re.Pattern[str]:
    """Finds in `tokens` whole words, with `numbers` in the singular or the plural."""
    ways = []
    for phrase in group:
        words = tokens(phrase)[0].strip("\0").split("\0")
        either = ("|".join(map(re.escape, sorted(forms(w) if numbers else {w}))) for w in words)
        ways.append(r"\0".join(f"(?:{each})" for each in either))
    return re.compile(rf"\0(?:{'|'.join(ways)})\0")


def forms(word: str) -> set[str]:
    """An English word in both numbers, as far as its letters tell; any other word as it is."""
    numbers = {word, IRREGULAR.get(word, word), SINGULAR.get(word, word)}
    if word in SINGULAR or not regex.fullmatch(r"\p{Latin}{3,}", word):
        return numbers
    is_plural = word[-1] != "s" or word[-2] not in "sui" and len(word) > 3 and word not in NO_PLURAL
    for one, many in ENDINGS:
        if word.endswith(one) and (one or word[-1] != "s"):  # das is not dass
            numbers |= {word.removesuffix(one) + many} - NO_PLURAL
        if word.endswith(many) and is_plural:
            numbers.add(word.removesuffix(many) + one)
    return {form for form in numbers if len(form) > 2}


def found(group: Group, response: str) -> re.Match[str] | None:
    """The first place where one of its phrases stands."""
    text, english = tokens(response)
    return pattern(group, english).search(text)


def mentions(groups: list[Group], response: str) -> Mark:
    missing = [" | ".join(group) for group in groups if not found(group, response)]
    return 1 - len(missing) / len(groups), f"missing: {', '.join(missing)}"


def avoids(groups: list[Group], response: str) -> Mark:
    """The share of groups that are absent, so that each phrase dropped is a gain."""
    hits = [hit[0].replace("\0", "") for group in groups if (hit := found(group, response))]
    return 1 - len(hits) / len(groups), f"to avoid: {', '.join(hits)}"
