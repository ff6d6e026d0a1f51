"""Every function of the registry: truth, both sides, restoring, wording."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapl_ray.data.records import InstructionRecord, PreferencePair, canonical_json
from mapl_ray.errors import UserError
from mapl_ray.instructions import REGISTRY, Case, Features, Instruction, compatible, features_of, instruction_function

NAMES = sorted(name for name, function in REGISTRY.items() if function.sides != "soft")  # soft ones: test_soft.py
PROMPT = "What should I visit in Paris? Please tell me which museums are free."
RESPONSE = (
    "Paris is a city. It has museums, parks and cafés!\n\n- First visit the Louvre.\n- Then walk along the river.\n\n"
    "I hope that helps you. Museums in Paris: 3 of them are free; museums elsewhere are not."
)


def test_the_set_is_broad() -> None:
    two_sided = [function for function in REGISTRY.values() if function.sides == "two"]
    assert len(two_sided) >= 50
    assert len({function.family for function in two_sided}) >= 12
    assert sum(function.sides == "soft" for function in REGISTRY.values()) >= 10
    assert all(name == function.name for name, function in REGISTRY.items())


OF_LAST_PARAGRAPH = ("last_paragraph", "last_paragraph_start")  # undecided where there is one paragraph
SHARES: dict[tuple[str, str], float] = {}  # (file, function) -> share of responses served both ways


def served_both_ways(name: str, pairs: list[PreferencePair]) -> float:
    """The share of responses that get both an instruction that they satisfy and one they violate; computed once.

    With the other response at hand, and without; one-sided functions have but to write one that is violated. The
    verdict is always the flag.
    """
    key = pairs[0].source, name
    if key not in SHARES:
        function, rng = REGISTRY[name], random.Random(name)
        both = asked = 0
        for pair in pairs:
            for response, other in ((pair.chosen, pair.rejected), (pair.rejected, None)):
                if name in OF_LAST_PARAGRAPH and Features(response).paragraph_span.fewest < 2:
                    continue
                asked += 1
                served = set()
                for flag in (True, False):
                    instruction = function.generate(response, flag, rng, other=other, prompt=pair.prompt[-1].content)
                    if instruction is not None:
                        served.add(flag)
                        assert instruction.verdict(response) is flag
                        assert instruction.verdict(pair.chosen) in (None, instruction.check(pair.chosen))
                both += served >= ({True, False} if function.sides == "two" else {False})
        assert asked >= (10 if name in OF_LAST_PARAGRAPH else 600)
        SHARES[key] = both / asked
    return SHARES[key]


@pytest.mark.parametrize("name", NAMES)
def test_served_both_ways_on_real_responses(name: str, pairs: list[PreferencePair]) -> None:
    # An exact number of paragraphs is undecided where a list stands among them, as in every second long answer.
    assert served_both_ways(name, pairs) >= (0.4 if name == "paragraph_exact" else 0.5)


def test_most_functions_serve_nine_responses_of_ten_both_ways(pairs: list[PreferencePair]) -> None:
    two_sided = [function for function in REGISTRY.values() if function.sides == "two"]
    served = [function for function in two_sided if served_both_ways(function.name, pairs) >= 0.9]
    assert len(served) >= 60
    assert len({function.family for function in served}) >= 15


texts = st.one_of(
    st.text(max_size=300),
    st.text(st.sampled_from("aB1 .,!?\n-*#`\"'\u2019字é\u0301\u200b\u202e🙂_:()K\u017f\u0131ß"), max_size=300),
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(text=texts, other=st.none() | texts, flag=st.booleans(), rng=st.randoms(use_true_random=False))
def test_any_unicode(name, text, other, flag, rng) -> None:
    instruction = REGISTRY[name].generate(text, flag, rng, other=other, prompt=other)
    if instruction is None:
        return
    assert instruction.verdict(text) is flag
    assert instruction.check(text) == flag
    restored = Instruction.from_record(instruction.to_record())
    assert restored == instruction
    for one in (text, other or "", RESPONSE):
        assert restored.check(one) == instruction.check(one)
        assert restored.verdict(one) in (None, restored.check(one))
    canonical_json(instruction.args).encode()  # JSON text, and UTF-8


@pytest.mark.parametrize("response", ["", " ", "\n\n", "🙂", "a", "字" * 50])
def test_short_odd_responses(response: str) -> None:
    check_every_function(response)


def check_every_function(response: str) -> None:
    """What a function writes for the response has the truth value that was asked for."""
    rng, text = random.Random(0), Features(response)  # one of them: each function would compute its own of a long text
    for function in REGISTRY.values():
        for flag in (True, False):
            instruction = function.generate(text, flag, rng, prompt="word " * 100)
            assert instruction is None or instruction.verdict(text) is flag


def test_wording_depends_on_the_index_alone() -> None:
    case = Case(((features_of(RESPONSE), True),))
    first = REGISTRY["word_count"].generate_for(case, random.Random(1), wording=5)
    second = REGISTRY["word_count"].generate_for(case, random.Random(2), wording=5)
    assert first is not None
    assert second is not None
    wordings = [list(REGISTRY["word_count"].phrasings(one.args)) for one in (first, second)]
    assert (wordings[0].index(first.text), wordings[1].index(second.text)) == (5, 5)


def test_keywords_come_from_the_pair() -> None:
    mine, theirs = (
        "The museum opens early. Visitors enjoy paintings.",
        "The theatre closes late. Audiences enjoy drama.",
    )
    for seed in range(30):
        rng = random.Random(seed)
        yes = REGISTRY["include_word"].generate(mine, True, rng, other=theirs)
        no = REGISTRY["include_word"].generate(mine, False, rng, other=theirs)
        assert yes is not None
        assert no is not None
        # What only one of the two has, on either side: "enjoy", which both have, would give the flag away.
        assert yes.args["word"] in {"museum", "opens", "early", "visitors", "paintings"}
        assert no.args["word"] in {"theatre", "closes", "late", "audiences", "drama"}


def test_records_that_are_not_ours() -> None:
    with pytest.raises(UserError, match="no instruction function 'word_cuont'"):
        Instruction.from_record(InstructionRecord("word_cuont", "x", {}))
    for args in ({}, {"n": "5", "direction": "at least"}, {"n": 5, "direction": "about"}):
        with pytest.raises(UserError, match="word_count"):
            Instruction.from_record(InstructionRecord("word_count", "x", args))


def _instruction(name: str, **args: object) -> Instruction:
    return Instruction(name, REGISTRY[name].family, args, "x")


def test_compatible() -> None:
    words = _instruction("word_count", direction="at least", n=50)
    between = _instruction("word_count_between", low=10, high=60)
    include = _instruction("include_word", word="river")
    assert not compatible(words, words)
    assert not compatible(words, between)  # one quantity
    assert not compatible(include, _instruction("forbid_word", word="Rivers"))  # holds the other
    assert not compatible(_instruction("digit_use", use=False), _instruction("number_count", direction="at least", n=3))
    assert not compatible(_instruction("list_use", use=False), _instruction("bullet_count", direction="at least", n=3))
    assert not compatible(
        _instruction("ending_mark", mark="?", negated=False), _instruction("question_mark_use", use=False)
    )
    repeated = _instruction("request_repeated", prompt="Who saw the cold torrent?", use=True)
    assert not compatible(repeated, _instruction("exact_phrase", phrase="cold torrent", use=True))  # it follows
    assert not compatible(repeated, _instruction("exact_phrase", phrase="cold torrent", use=False))
    not_json = _instruction("json_only", use=False)
    assert not compatible(not_json, _instruction("numbered_count", direction="at least", n=10))  # lists are no JSON
    assert not compatible(not_json, repeated)
    assert compatible(not_json, _instruction("numbered_count", direction="at most", n=10))
    foreign = _instruction("english_use", use=False)
    assert not compatible(foreign, _instruction("word_count", direction="at most", n=5))  # too few to tell
    assert compatible(words, include)
    assert compatible(include, _instruction("forbid_word", word="mountain"))


def test_a_function_of_ones_own() -> None:
    @instruction_function(
        family="topic",
        check=lambda text, args: args["sign"] in text.text,
        phrasings=lambda args: [f"Use the sign {args['sign']}.", f"The sign {args['sign']} must occur."],
    )
    def currency_sign(case, rng):
        """Wrong on purpose: it never looks at the flags."""
        return {"sign": rng.choice("$€")}

    rng = random.Random(0)
    drawn = [REGISTRY["currency_sign"].generate("It costs $5.", True, rng) for _ in range(40)]
    # Every draw is checked: the wrong half is held back.
    assert {instruction.args["sign"] for instruction in drawn if instruction is not None} == {"$"}
    assert None in drawn
    with pytest.raises(UserError, match="already registered"):
        instruction_function(
            family="topic", name="currency_sign", check=lambda text, args: True, phrasings=lambda args: ["x"]
        )(lambda case, rng: {})
