"""What r(x, y) is for DPO; a reward model gives it directly."""

from __future__ import annotations

import torch


def dpo_rewards(
    logps_S: torch.Tensor, ref_logps_S: torch.Tensor, beta: float, lengths_S: torch.Tensor | None = None
) -> torch.Tensor:
    """r(x, y) = beta * log(pi(y|x) / pi_ref(y|x)), [S] (Rafailov et al. 2023, equation 5, without beta * log Z(x)).

    Both inputs are summed over response tokens, in nats. Z(x) depends on the prompt alone: it cancels exactly in
    pref relations and in each gap of inter relations. In intra relations the prompts differ and it does not; it is
    dropped there, as Rc-DPO does (Cai et al. 2025).

    With `lengths_S` (response tokens, [S]) it is divided by them: the rewards of length-normalised DPO (Lambert et al.
    2024, Tulu 3, which trains with beta = 5). Z(x) does not cancel then.
    """
    rewards_S = beta * (logps_S - ref_logps_S)
    return rewards_S if lengths_S is None else rewards_S / lengths_S
