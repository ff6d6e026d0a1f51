"""Check the PEFT adapter of the reference policy, including vLLM's limits, before an engine starts."""

from __future__ import annotations

import json
from pathlib import Path

from mapl_ray.config import ScoringConfig
from mapl_ray.errors import UserError

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # values of max_lora_rank in vLLM 0.32


_MERGE = "Merge the adapter into the model (peft: merge_and_unload) and set scoring.ref_model to the merged model."


def check_lora(path: str, scoring: ScoringConfig) -> None:
    """Raise `UserError` for a directory without adapter, or for an adapter that vLLM does not support, if vLLM computes
    ref_logps."""
    by_vllm = scoring.ref_logps_by == "vllm"
    if by_vllm and scoring.gpus_per_engine == 0:
        # There, logits of prompt tokens and of sampled tokens share an index, and their sizes do not match.
        raise UserError(
            f"scoring.lora={path!r}: on CPUs, vLLM 0.32 can't compute log-probabilities of prompts with an adapter. "
            f"Set scoring.ref_logps_by=trainer. Or: {_MERGE}"
        )
    folder = Path(path).expanduser()
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(
            f"scoring.lora={path!r}: no adapter_config.json that can be read. Set it to a PEFT adapter's directory."
        ) from None
    if not (folder / "adapter_model.safetensors").is_file():  # vLLM would load adapter_model.bin or .pt instead
        raise UserError(
            f"{folder}: no adapter_model.safetensors. Save the adapter with save_pretrained; pickles are not read."
        )
    if not by_vllm:
        return
    wrong = {
        "peft_type": config.get("peft_type") != "LORA",
        "bias": config.get("bias", "none") != "none",
        "modules_to_save": bool(config.get("modules_to_save")),
        "use_dora": bool(config.get("use_dora")),
        "r": not 1 <= config.get("r", 0) <= LORA_RANKS[-1],
    }
    for name in (name for name, is_wrong in wrong.items() if is_wrong):
        raise UserError(f"{folder}: {name}={config.get(name)!r} is not supported by vLLM. {_MERGE}")


def lora_rank(path: str) -> int:
    """The adapter's rank r."""
    return int(json.loads((Path(path).expanduser() / "adapter_config.json").read_text(encoding="utf-8"))["r"])
