"""The held-out split: the same prompt on one side, whatever else differs."""

import hashlib

from mapl_ray.data.records import Message, PreferencePair
from mapl_ray.preferences import eval_split, prompt_key


def pair(*prompt: Message, chosen: str = "a") -> PreferencePair:
    return PreferencePair(chosen, prompt, chosen, "b", "s")


def user(text: str) -> Message:
    return Message("user", text)


def test_one_prompt_one_side() -> None:
    first = pair(user("What is  love?"))
    same = [pair(user("what is love? \n"), chosen="z"), pair(Message("system", "Sing."), user("What is love?"))]
    for seed in range(50):
        assert {eval_split(other, 0.5, seed) for other in same} == {eval_split(first, 0.5, seed)}


def test_other_prompts_have_other_keys() -> None:
    keys = {
        prompt_key((user("a"),)),
        prompt_key((user("b"),)),
        prompt_key((user("a b"),)),
        prompt_key((user("a"), Message("assistant", "b"), user("c"))),
        # Text that looks like turns is not turns.
        prompt_key((user('a"],["assistant","b"],["user","c'),)),
    }
    assert len(keys) == 5


def test_fraction_and_seed() -> None:
    pairs = [pair(user(f"prompt {i}")) for i in range(2000)]
    held = [eval_split(p, 0.2, 1) for p in pairs]
    # Binomial(2000, 0.2): mean 400, standard deviation 17.9; five of them are 90.
    assert 310 < sum(held) < 490
    assert held != [eval_split(p, 0.2, 2) for p in pairs]
    assert not any(eval_split(p, 0.0, 1) for p in pairs)
    # What a smaller fraction holds out, a larger one does too.
    assert all(eval_split(p, 0.4, 1) for p, h in zip(pairs, held, strict=True) if h)


def test_it_is_the_sha256_of_seed_and_key() -> None:
    one = pair(user("Hi"))
    assert prompt_key(one.prompt) == '[["user","hi"]]'
    share = int(hashlib.sha256(b'3\n[["user","hi"]]').hexdigest()[:12], 16) / 16**12
    assert eval_split(one, min(share + 1e-9, 0.999), 3)
    assert not eval_split(one, share - 1e-9, 3)
