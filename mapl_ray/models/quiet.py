"""Loading and saving without transformers' bars and notes, which would tear a run's own progress apart."""

from __future__ import annotations

import logging as python_logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers.utils import logging

# DeepSpeed, which transformers loads where it is installed, would look for a GPU, warn about it, and fail.
if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Errors only, no bars, for as long as the block runs; then as it was."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def quiet_peft() -> None:
    """Drop one warning: bitsandbytes, which peft imports, looks for a faster CPU kernel that no model here needs."""
    python_logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_no_kernel_hint)


def _is_no_kernel_hint(record: python_logging.LogRecord) -> bool:
    return "kernels-community" not in str(record.msg)
