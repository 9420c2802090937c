"""Text to tokens and back with llama-cpp-python's conventions: texts are bytes, BOS is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iqrun.tokenizer import Tokenizer
from iqrun.tokenizer.streaming import StreamDecoder


class LlamaTokenizer:
    """`Llama.tokenize` and `Llama.detokenize` as an object; see there."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """`tokenizer`: the model's; `Llama.tokenizer` gives this object ready-made."""
        self._tokenizer = tokenizer

    def tokenize(self, text: bytes | str, add_bos: bool = True, special: bool = True) -> list[int]:
        """The tokens of a text.

        Args:
            text: UTF-8; what is not becomes U+FFFD.
            add_bos: put BOS in front (and EOS behind), if the model wants that.
            special: read the texts of control tokens as those tokens.
        """
        string = text if isinstance(text, str) else text.decode("utf-8", "replace")
        return self._tokenizer.encode(string, add_special=add_bos, parse_special=special)

    def detokenize(
        self, tokens: Sequence[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        """The bytes of tokens.

        Args:
            tokens: token ids. If BOS comes first, the space that encoding put in front of the text is left out.
            prev_tokens: taken for compatibility; the bytes of a token do not depend on those before it.
            special: show control tokens by their text instead of leaving them out.
        """
        tokenizer = self._tokenizer
        shown = [token for token in tokens if special or not tokenizer.is_special(token)]
        data = b"".join([tokenizer.token_bytes(token) for token in shown])
        after_bos = len(tokens) > 0 and tokens[0] == tokenizer.bos_id
        return data.removeprefix(b" ") if after_bos else data

    def encode(self, text: str, add_bos: bool = True, special: bool = True) -> list[int]:
        """As `tokenize`, of a string."""
        return self.tokenize(text, add_bos, special)

    def decode(self, tokens: Sequence[int]) -> str:
        """As `detokenize`, to a string; bytes that are not UTF-8 are left out."""
        return self.detokenize(tokens).decode("utf-8", "ignore")

    def newline(self) -> int:
        """The token that stands for a line break, -1 if there is none."""
        found = self._tokenizer.token_id("<0x0A>")
        if found is not None:
            return found
        ids = self._tokenizer.encode("\n", add_special=False)
        return ids[-1] if ids else -1


class TextOnly:
    """A tokenizer whose streams leave control tokens out; all else is as it was."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def stream_decoder(self, *, at_start: bool = False) -> WholeCharacters:
        """A fresh streaming decoder."""
        return WholeCharacters(self._tokenizer.stream_decoder(at_start=at_start, skip_special=True))


class WholeCharacters:
    """A streaming decoder that leaves half a character at the end of an answer out."""

    def __init__(self, decoder: StreamDecoder) -> None:
        self._decoder = decoder

    def feed(self, token_id: int) -> str:
        """The characters that this token completes."""
        return self._decoder.feed(token_id)

    def flush(self) -> str:
        """Nothing: what never became complete is dropped."""
        self._decoder.flush()
        return ""
