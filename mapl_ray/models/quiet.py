"""transformers without its bars and notes, which would break up a run's own progress, and imported late.

torch and transformers take five to eight seconds of CPU time to import, in every process of a cluster.
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
    """Errors only, no bars, for as long as the block runs; then as it was."""
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
    """A class of transformers, such as `AutoModelForCausalLM`.

    scikit-learn, where it is installed, is hidden from transformers: it would be imported, which takes two seconds, for
    one option of assisted generation that nothing here needs.
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
    """DeepSpeed, which transformers loads with a model where it is installed, would look for a GPU, warn about it, and
    fail. To be called before either is imported."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def quiet_peft() -> None:
    """Drop one warning: bitsandbytes, which peft imports, looks for a faster CPU kernel that no model here needs."""
    python_logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_no_kernel_hint)


def _is_no_kernel_hint(record: python_logging.LogRecord) -> bool:
    return "kernels-community" not in str(record.msg)
