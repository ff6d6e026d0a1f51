"""Late imports of transformers, without its progress bars and warnings, which would mix with a run's own progress.

Importing torch and transformers takes five to eight seconds of CPU time in every process of a cluster.
"""

from __future__ import annotations

import logging as python_logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Context manager that limits transformers' output to errors, without progress bars."""
    from transformers.utils import logging

    if "torch" in sys.modules:
        choose_accelerator()
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@cache
def transformers_class(name: str) -> Any:
    """Import a class of transformers, such as `AutoModelForCausalLM`.

    scikit-learn is hidden from transformers, which would import it (two seconds) for an option of assisted generation
    that is not used here.
    """
    import transformers
    from transformers.utils import is_sklearn_available

    modules: Any = sys.modules
    if "sklearn" not in modules:
        modules["sklearn"] = None
        is_sklearn_available()  # transformers remembers the answer
        del modules["sklearn"]
    if name.startswith("AutoModel"):
        choose_accelerator()
    return getattr(transformers, name)


def choose_accelerator() -> None:
    """Set DeepSpeed's accelerator to the CPU if there is no GPU. Otherwise DeepSpeed, which transformers imports with a
    model, would warn and fail. Call it before importing either."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def quiet_peft() -> None:
    """Suppress a warning of bitsandbytes, which PEFT imports, about a faster CPU kernel that is not used here."""
    python_logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_no_kernel_hint)


def _is_no_kernel_hint(record: python_logging.LogRecord) -> bool:
    return "kernels-community" not in str(record.msg)
