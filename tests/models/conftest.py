"""FlexAttention on a CPU, backward pass included."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.attention.flex_attention as of_torch

from mapl_ray.models import flex_attention


@pytest.fixture
def flex_on_cpu() -> Iterator[None]:
    """torch refuses FlexAttention's backward pass on a CPU for want of a kernel; without one compiled, it has it.

    The tracing compiler alone (`aot_eager`) and no check of the device: masks, block lists, graphs and gradients are
    those of a GPU, the kernels are not.
    """
    torch._dynamo.reset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_torch, "_validate_device", lambda *tensors: None)
        patch.setattr(flex_attention, "BACKEND", "aot_eager")
        yield
    torch._dynamo.reset()
