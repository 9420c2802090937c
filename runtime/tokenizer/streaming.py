"""Text from tokens as they come: a character is given out when its last byte is there, never half of it."""

from __future__ import annotations

from codecs import getincrementaldecoder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iqrun.tokenizer.base import Tokenizer


class StreamDecoder:
    """Turns token ids into text, one by one.

    Bytes that are not UTF-8 become U+FFFD, as soon as it is certain that they are not.
    """

    def __init__(self, tokenizer: Tokenizer, *, at_start: bool = False, skip_special: bool = False) -> None:
        """Starts a stream.

        Args:
            tokenizer: knows the bytes of the tokens.
            at_start: the first token begins a text: leave out the space that encoding put in front of it.
                (False: the text continues an earlier one, every space counts.)
            skip_special: leave out special tokens instead of showing their text.
        """
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._drop_space = at_start and tokenizer.adds_space
        self._utf8 = getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        """The characters that this token completes, often none.

        Raises:
            TokenizerError: there is no such token.
        """
        data = self._tokenizer.token_bytes(token_id)
        if self._tokenizer.is_special(token_id):
            self._drop_space = self._tokenizer.adds_space
            return self.flush() + ("" if self._skip_special else data.decode("utf-8", "replace"))
        if self._drop_space and data:
            self._drop_space = False
            data = data.removeprefix(b" ")
        return self._utf8.decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that never became complete."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest
