"""Text to tokens and back, by the vocabulary of a GGUF file."""

from iqrun.tokenizer.base import Tokenizer
from iqrun.tokenizer.streaming import StreamDecoder

__all__ = ["StreamDecoder", "Tokenizer"]
