"""The model of the scores against the same by hand. Run: pytest tests/test_posterior.py"""

from __future__ import annotations

import math
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.search.posterior import SPREAD_FLOOR, Posterior, Sample

BLOCKS = [("a", "b"), ("c", "d"), ("b", "e", "f")]
SAMPLE = st.sampled_from(BLOCKS).flatmap(
    lambda block: st.tuples(
        st.just(block), st.lists(st.floats(0, 10), min_size=len(block), max_size=len(block))
    )
)
RECORDS = st.lists(
    st.tuples(st.sampled_from("pqrs"), st.lists(SAMPLE, min_size=1, max_size=4)), max_size=12
)


@given(RECORDS)
@settings(max_examples=80, deadline=None)
def test_variances_and_means_are_those_of_the_samples_less_their_blocks_ease(
    records: list[tuple[str, list[Sample]]],
) -> None:
    model, taken = Posterior(), dict[str, list[Sample]]()
    for key, samples in records:
        model.add(key, samples)
        taken.setdefault(key, []).extend(samples)
    values = {
        key: [fmean(scores) - model.ease({block: 1}) for block, scores in samples]
        for key, samples in taken.items()
    }
    freedom = sum(len(each) - 1 for each in values.values())
    squares = sum((x - fmean(each)) ** 2 for each in values.values() for x in each)
    assert model.freedom == freedom
    assert model.within == pytest.approx(squares / freedom if freedom else 0, abs=1e-9)
    assert model.between >= SPREAD_FLOOR**2
    for key, each in values.items():
        n, mean, estimate, deviation = model.of(key)
        assert (n, mean) == (len(each), pytest.approx(fmean(each)))
        share = model.between / (model.between + model.within / len(each))
        assert estimate == pytest.approx(model.mean + share * (mean - model.mean))
        assert deviation == pytest.approx(math.sqrt(share * model.within / len(each)))
    best = sorted(dict(model.best(2)).items(), key=lambda found: -found[1][2])[:1]
    assert not best or best[0][1][2] == pytest.approx(max(model.of(key)[2] for key in values))


@given(RECORDS)
@settings(max_examples=40, deadline=None)
def test_samples_weighed_beforehand_are_what_they_are_once_added(
    records: list[tuple[str, list[Sample]]],
) -> None:
    model = Posterior()
    for key, samples in records:
        model.add(key, samples)
        before = model.met(key, samples[:1]), model.of(key, samples[:1])[:1]
        model.add(key, samples[:1])
        assert before == (model.met(key), model.of(key)[:1])


def test_where_all_met_the_same_inputs_nothing_is_taken_out() -> None:
    model = Posterior()
    for key, score in (("p", 3.0), ("q", 9.0), ("r", 4.0)):
        model.add(key, [(("a", "b"), (score, score + 1))])
    assert model.ease({("a", "b"): 1}) == 0
    assert [model.of(key)[1] for key in "pqr"] == [3.5, 9.5, 4.5]


def test_an_input_is_as_hard_as_all_prompts_find_it() -> None:
    model = Posterior()
    for number in range(40):
        level = 4 + number % 3
        model.add(f"p{number}", [(("easy",), (level + 2,)), (("hard",), (level - 2,))])
    assert model.ease({("easy",): 1}) == pytest.approx(2, abs=0.1)
    assert model.ease({("hard",): 1}) == pytest.approx(-2, abs=0.1)
    assert model.within < 0.1
