"""Choosing the next token: a chain of small functions on `Candidates`, with llama.cpp's names, defaults and order."""

from __future__ import annotations

from iqrun.sampling.candidates import Candidates
from iqrun.sampling.logprobs import TokenLogprob, token_logprobs
from iqrun.sampling.options import SamplingOptions
from iqrun.sampling.sampler import Sampler

__all__ = ["Candidates", "Sampler", "SamplingOptions", "TokenLogprob", "token_logprobs"]
