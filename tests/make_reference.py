"""Makes ``tests/data/reference_logits.npz``: what transformers computes for the cases of `reference_models`.

    pip install -e . torch==2.13.0 transformers==5.23.0
    python tests/make_reference.py

Logits are computed in float64 and stored as float32, ``(48, n_vocab)`` per case.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.reference_models import CASES, Case, state_dict, token_ids


def reference_logits(case: Case) -> np.ndarray:
    """Logits of every token of a case, by transformers in float64 without its fused attention."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(case.model_type, **case.full_config(), attn_implementation="eager")
    config._experts_implementation = "eager"  # the fused ones know no float64
    model = AutoModelForCausalLM.from_config(config).to(torch.float64)
    state = {name: torch.from_numpy(value).to(torch.float64) for name, value in state_dict(case).items()}
    wrong = model.load_state_dict(state, strict=False)
    tied = {"lm_head.weight"} if case.full_config()["tie_word_embeddings"] else set()
    assert set(wrong.missing_keys) <= tied and not wrong.unexpected_keys, wrong
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(token_ids(case))[None], use_cache=False).logits[0]
    return logits.numpy().astype(np.float32)


def main() -> None:
    """Writes the file."""
    target = Path(__file__).parent / "data" / "reference_logits.npz"
    np.savez_compressed(target, **{name: reference_logits(case) for name, case in CASES.items()})
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
