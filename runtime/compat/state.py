"""What `Llama.save_state` gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class LlamaState:
    """Where a `Llama` stood.

    Attributes:
        input_ids: its tokens, an int array ``(n_tokens,)``.
        n_tokens: how many.
        llama_state: keys and values of these tokens.
        llama_state_size: bytes of `llama_state`.
        seed: of the answers to come.
    """

    input_ids: npt.NDArray[np.intc]
    n_tokens: int
    llama_state: bytes
    llama_state_size: int
    seed: int
