"""What each sentence of a prompt is worth, on fresh samples."""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from autoresearch.files.results import ResultsError
from autoresearch.search import confirmation
from autoresearch.search.confirmation import MARGIN, Step, evidence_of, missing
from autoresearch.search.history import History
from autoresearch.search.intervals import ALPHA, Evidence, Interval

SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?=\s+\S)|(?<=\S)(?=[^\S\n]*\n\s*\S)")
INPUTS, CALLS = 24, 24  # on which a sentence is measured, and how often in all
TRIES = 3  # at a shortened prompt, each at ALPHA / TRIES


@dataclass(frozen=True)
class Ablation:
    """What each sentence is worth, all intervals holding together (Holm, Scandinavian Journal of
    Statistics 6, 1979), and the prompt without those that were not shown to matter."""

    sentences: list[tuple[str, Interval, str]]  # with: matters, harms or cannot be told
    shortened: str  # the whole prompt where none was shown to lose less than MARGIN
    loss: Interval | None  # its score minus the whole one's


def split_sentences(prompt: str) -> list[str]:
    """The sentences and list items of a prompt, each with the white space before it; joined they
    are the prompt again."""
    return [part for part in SENTENCE_END.split(prompt) if part.strip()]


def ablate(history: History) -> list[Step] | Ablation:
    """Of the confirmed best prompt, else the leader: the measurements that are still missing, or
    else the result. Raises ResultsError where there is no leader."""
    found, leader = confirmation.outcome(history), history.leader
    if leader is None:
        raise ResultsError("there is no winner yet: run python main.py first, then --ablate")
    prompt = found.best if found else leader.prompt
    final = confirmation.fresh_trials(history, found, prompt) if found else ()
    inputs = (*confirmation.sample({t.input for t in final} or history.inputs, INPUTS),)
    least, target = 1 if confirmation.stands_for_others(history, inputs) else 2, history.completed
    passes = max(least, math.ceil(CALLS / len(inputs)))
    step = Step("whole", prompt, passes, target, inputs, "ablation")
    whole = Step("final", prompt, 1, found.target, inputs) if found else step  # it has samples
    parts = split_sentences(prompt)
    without = [_without(step, parts, {i}, f"without {i + 1}") for i in range(len(parts))]
    if steps := missing(history, [whole, *without]):
        return steps
    judged = _judged(evidence_of(history, target, {s.stage: s for s in (whole, *without)}))
    sentences = [(part.strip(), *each) for part, each in zip(parts, judged, strict=True)]
    idle = [i for i, (_, verdict) in enumerate(judged) if verdict != "matters"]
    idle = sorted(idle, key=lambda i: judged[i][0].mean)[: len(parts) - 1]
    for _ in range(TRIES if idle else 0):
        shorter = _without(step, parts, idle, f"shortened by {len(idle)}")
        if steps := missing(history, [whole, shorter]):
            return steps
        evidence = evidence_of(history, target, {s.stage: s for s in (whole, shorter)})
        loss = evidence.difference(shorter.stage, whole.stage, ALPHA / TRIES)
        if loss.low > -MARGIN:
            return Ablation(sentences, shorter.prompt, loss)
        idle = idle[: math.ceil(len(idle) / 2)]  # those of most worth come back
    return Ablation(sentences, prompt, None)


def _without(step: Step, parts: Sequence[str], left_out: Collection[int], stage: str) -> Step:
    kept = "".join(part for i, part in enumerate(parts) if i not in left_out)
    return replace(step, stage=stage, prompt=kept.strip())


def _judged(evidence: Evidence) -> list[tuple[Interval, str]]:
    """What each sentence is worth, by Holm's steps: what is told leaves the others more room."""
    whole, *stages = evidence.fresh
    found: dict[str, tuple[Interval, str]] = {}
    while left := [stage for stage in stages if stage not in found]:
        worth = {s: evidence.difference(whole, s, ALPHA / len(left)) for s in left}
        told = {s: (w, "matters") for s, w in worth.items() if w.low > 0}
        told |= {s: (w, "harms") for s, w in worth.items() if w.high < 0}
        found |= told or {s: (w, "cannot be told") for s, w in worth.items()}
    return [found[stage] for stage in stages]
