"""Real DeepSpeed on one and two ranks: the cut of the work changes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.training.compare import NOISE, typical_difference, weights

CONFIG = {
    "learning_rate": 1e-3,
    "max_sequence_tokens": 256,
    "epochs": 2,
    "eval_every_steps": 2,
    "checkpoint_every_steps": 2,
    "weight_decay": 0.1,
}
# Every option of DPO's logistic loss, and a level that is left out.
VARIANT = {
    "objective": {"label_smoothing": 0.1, "margin_scale": 0.5, "length_normalised": True, "nll_weight": 0.3},
    "weights": {"lambda_inter": 0.0},
    "beta": 2.0,
    "max_steps": 2,
}
LEVELS = ("pref", "intra", "inter")
MEASURED = {
    "rm": ("rewards/chosen", "rewards/rejected", *(f"rewards/accuracies/{level}" for level in LEVELS)),
    # no accuracies: margins start at 0, and noise decides which way they fall
    "dpo": ("rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected"),
}
# The same eight groups per step, cut in four ways.
CUTS = {
    "one rank": (1, {"micro_batch_size": 8, "gradient_accumulation_steps": 1, "zero_stage": 0}),
    "padded": (1, {"micro_batch_size": 4, "gradient_accumulation_steps": 2, "zero_stage": 1, "batching": "padded"}),
    "rows": (1, {"micro_batch_size": 2, "gradient_accumulation_steps": 4, "zero_stage": 0, "row_tokens": 300}),
    "ZeRO-2": (2, {"micro_batch_size": 2, "gradient_accumulation_steps": 2, "zero_stage": 2}),
    "ZeRO-3": (2, {"micro_batch_size": 4, "gradient_accumulation_steps": 1, "zero_stage": 3}),
    **{
        f"ZeRO-{stage}, overlap": (
            2,
            {"micro_batch_size": 2, "gradient_accumulation_steps": 2, "zero_stage": stage, "overlap_comm": True},
        )
        for stage in (1, 2)
    },
}


@pytest.fixture(scope="module")
def runs(launch: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every cut of both methods."""
    folder = tmp_path_factory.mktemp("runs")
    for ranks in (1, 2):
        specs: list[dict[str, Any]] = []
        for name, (needs, cut) in CUTS.items():
            if needs == ranks:
                specs += [
                    {"method": method, "config": {**CONFIG, **cut}, "output": str(folder / f"{method} {name}")}
                    for method in ("rm", "dpo")
                ]
        cut = CUTS["padded" if ranks == 1 else "ZeRO-3"][1]
        variant = {"method": "dpo", "config": {**CONFIG, **VARIANT, **cut}, "output": str(folder / f"variant {ranks}")}
        specs.append(variant)
        if ranks == 2:
            # 11 of the 13 groups are longer than 50 tokens, by prompts that can be cut.
            cut = {**CONFIG, **CUTS["ZeRO-2"][1], "max_sequence_tokens": 50, "epochs": 1}
            specs += [
                {
                    "method": method,
                    "config": {**cut, "truncate_prompt": policy},
                    "output": str(folder / f"{method} {policy}"),
                }
                for method, policy in (("rm", "left"), ("dpo", "left"), ("rm", "refuse"))
            ]
        launch(ranks, *specs)
    return folder


@pytest.mark.parametrize("method", ["rm", "dpo"])
@pytest.mark.parametrize("cut", [cut for cut in CUTS if cut != "one rank"])
def test_every_cut_learns_the_same(runs: Path, method: str, cut: str) -> None:
    one, other = runs / f"{method} one rank", runs / f"{method} {cut}"
    assert typical_difference(weights(one), weights(other)) < NOISE
    a, b = (json.loads((run / "result.json").read_text())["metrics"] for run in (one, other))
    assert a["eval/loss"] == pytest.approx(b["eval/loss"], abs=1e-4)
    assert a.keys() == b.keys()
    first = [json.loads((run / "metrics.jsonl").read_text().splitlines()[0]) for run in (one, other)]
    assert first[0]["loss"] == pytest.approx(first[1]["loss"], abs=1e-5)  # of the same weights


def test_variants_learn_the_same_in_every_cut(runs: Path) -> None:
    assert typical_difference(weights(runs / "variant 1"), weights(runs / "variant 2")) < NOISE
    assert typical_difference(weights(runs / "variant 1"), weights(runs / "dpo padded")) > 100 * NOISE
    a, b = (json.loads((runs / f"variant {n}" / "metrics.jsonl").read_text().splitlines()[-1]) for n in (1, 2))
    for name in ("loss", "loss/pref", "loss/intra", "loss/nll", "eval/loss/nll", "eval/loss/inter"):
        assert a[name] == pytest.approx(b[name], abs=1e-4), name
    assert a["loss"] == pytest.approx(a["loss/pref"] + a["loss/intra"] + 0.3 * a["loss/nll"])
    assert "loss/inter" not in a  # of weight 0: not computed in training, and measured on held-out groups


@pytest.mark.parametrize(
    ("run", "reason"),
    [("rm left", "prompt_truncated"), ("dpo left", "ref_logps_of_whole_prompt"), ("rm refuse", "too_long")],
)
def test_what_is_left_out_or_cut_is_counted_over_all_ranks(runs: Path, run: str, reason: str) -> None:
    result = json.loads((runs / run / "result.json").read_text())
    assert {name: number for name, number in result["counts"].items() if number} == {reason: 11}
    assert result["too_long"] == (11 if reason == "too_long" else 0)


def test_mixtures_of_experts_learn_the_same_under_zero_3(
    launch: Any, moe_models: dict[str, Path], tmp_path: Path
) -> None:
    """Each rank routes its own tokens, so the two call their experts differently, and neither waits for the other."""
    of = {
        f"{kind} {stage}": {"model": str(moe_models[kind]), "stage": stage} for kind in moe_models for stage in (2, 3)
    }
    specs = [
        {
            "method": "rm",
            "model": spec["model"],
            "config": {**CONFIG, "micro_batch_size": 4, "max_steps": 2, "zero_stage": spec["stage"]},
            "output": str(tmp_path / name),
        }
        for name, spec in of.items()
    ]
    assert [outcome["error"] for outcome in launch(2, *specs)] == [None] * len(specs)
    for kind in moe_models:
        a, b = (tmp_path / f"{kind} {stage}" for stage in (2, 3))
        assert typical_difference(weights(a), weights(b)) < NOISE
        start, learned = load_file(moe_models[kind] / "model.safetensors"), weights(a)
        experts = [name for name in start if ".experts." in name]
        assert experts
        assert typical_difference({n: start[n] for n in experts}, {n: learned[n] for n in experts}) > 10 * NOISE


@pytest.mark.parametrize("method", ["rm", pytest.param("dpo", marks=pytest.mark.long)])
def test_training_learns_every_level(launch: Any, data: Path, tmp_path: Path, method: str) -> None:
    """13 groups can be learnt by heart, the intra and inter relations included."""
    config = {
        **CONFIG,
        "learning_rate": 3e-3,
        "micro_batch_size": 13,
        "epochs": 60,
        "eval_every_steps": 30,
        "beta": 0.5,
    }
    (outcome,) = launch(1, {"method": method, "config": config, "eval": str(data / "train"), "output": str(tmp_path)})
    first, last = outcome["reports"]
    assert (first["step"], last["step"]) == (30.0, 60.0)
    assert last["eval/loss"] < first["eval/loss"]
    for level in ("pref", "intra", "inter"):
        assert last[f"eval/rewards/accuracies/{level}"] > 0.9


@pytest.mark.parametrize(
    ("run", "auto"), [("rm ZeRO-3", AutoModelForSequenceClassification), ("dpo ZeRO-2", AutoModelForCausalLM)]
)
def test_export_opens_in_transformers(runs: Path, run: str, auto: Any) -> None:
    model, info = auto.from_pretrained(str(runs / run / "model"), output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(str(runs / run / "model"))
    assert tokenizer.chat_template is not None
    assert model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id


@pytest.mark.parametrize("method", ["rm", "dpo"])
def test_every_step_is_measured_over_all_ranks(runs: Path, method: str) -> None:
    """Two ranks tell of the step what one rank tells: groups and relations of both are counted, none twice."""
    steps = {
        name: [json.loads(line) for line in (runs / f"{method} {name}" / "metrics.jsonl").read_text().splitlines()]
        for name in ("one rank", "ZeRO-2", "padded")
    }
    for one, two, padded in zip(*steps.values(), strict=True):
        by_level = (f"{name}/{level}" for name in ("loss", "rewards/margins") for level in LEVELS)
        for name in ("loss", "learning_rate", *by_level, *MEASURED[method]):
            assert one[name] == pytest.approx(two[name], rel=1e-3, abs=2e-4), name
            assert one[name] == pytest.approx(padded[name], rel=1e-3, abs=2e-4), name
        assert one["rewards/margins/pref"] == pytest.approx(one["rewards/chosen"] - one["rewards/rejected"], abs=1e-6)
        # Both rates are over the same seconds, so their ratio is the tokens of a group.
        tokens_a_group = [row["tokens_per_second"] / row["groups_per_second"] for row in (one, two, padded)]
        assert tokens_a_group[0] == pytest.approx(tokens_a_group[1])
        assert tokens_a_group[2] > tokens_a_group[0]
        assert 0.0 < padded["padding_share"] < 1.0
        assert two["grad_norm"] > 0.0
        assert 0.05 < one["peak_memory_gib"] < 8.0
        assert "mfu" not in one  # no peak is known of a CPU


def test_tensorboard_holds_the_curves(runs: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(runs / "rm ZeRO-2" / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("eval/rewards/accuracies/pref")] == [2, 4]
