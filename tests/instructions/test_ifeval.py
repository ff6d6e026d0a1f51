"""Where an instruction is mapped to IFEval, both verdicts agree.

The checkers below do what IFEval's own do (google-research, instruction_following_eval/instructions.py): count the
`\\w+` runs, count a letter in the lower-cased response, search `\\bword\\b` case ignored, search a comma.
"""

import collections
import random
import re

from mapl_ray.instructions import REGISTRY


def _ifeval(instruction_id: str, kwargs: dict, value: str) -> bool:
    if instruction_id == "length_constraints:number_words":
        count = len(re.findall(r"\w+", value, re.UNICODE | re.MULTILINE | re.DOTALL))
        return count < kwargs["num_words"] if kwargs["relation"] == "less than" else count >= kwargs["num_words"]
    if instruction_id == "keywords:letter_frequency":
        count = collections.Counter(value.lower())[kwargs["letter"]]
        bound = kwargs["let_frequency"]
        return count < bound if kwargs["let_relation"] == "less than" else count >= bound
    if instruction_id == "keywords:forbidden_words":
        return not any(re.search(r"\b" + w + r"\b", value, flags=re.IGNORECASE) for w in kwargs["forbidden_words"])
    assert instruction_id == "punctuation:no_comma"
    return not re.search(r"\,", value)


def test_verdicts_agree(real_pairs) -> None:
    rng = random.Random(0)
    seen: collections.Counter[str] = collections.Counter()
    responses = [response for pair in real_pairs for response in pair]
    for chosen, rejected in real_pairs:
        for function in REGISTRY.values():
            if function.ifeval is None:
                continue
            instruction = function.generate(chosen, rng.random() < 0.5, rng, other=rejected)
            mapped = instruction.to_ifeval() if instruction is not None else None
            if instruction is None or mapped is None:
                continue
            for response in (
                chosen,
                rejected,
                *rng.sample(responses, 6),
                "",
                "r\u0131ver \u212aitchen \u017foon, A\u0301b",
            ):
                seen[mapped[0]] += 1
                assert instruction.check(response) == _ifeval(*mapped, response), (instruction, response)
    assert sum(seen.values()) >= 8_000
    assert len(seen) == 4
