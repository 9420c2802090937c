"""The part of `Llama` below texts: a model, one sequence of tokens, its logits and its state."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from iqrun.chat.session import common_prefix
from iqrun.compat.arguments import RANDOM_SEED, check_constructor, kv_type
from iqrun.compat.cache import LlamaRAMCache
from iqrun.compat.state import LlamaState
from iqrun.compat.tokenizer import LlamaTokenizer, TextOnly
from iqrun.engine.allocation import KVType
from iqrun.engine.session import Session
from iqrun.errors import IqrunError
from iqrun.gguf import GGUFFile, Metadata, keys
from iqrun.model import Model, load
from iqrun.tokenizer import Tokenizer

Floats = npt.NDArray[np.float32]
Self = TypeVar("Self", bound="LlamaBase")


class LlamaBase:
    """A model with one sequence of its own; base of `Llama`, which describes the arguments.

    Attributes:
        model_path: the file.
        metadata: its scalar values, as texts.
        n_batch, n_threads, last_n_tokens_size: as given, or what was chosen.
    """

    def __init__(
        self,
        model_path: str | PathLike[str],
        *,
        n_ctx: int = 512,
        n_batch: int = 512,
        n_threads: int | None = None,
        seed: int = RANDOM_SEED,
        logits_all: bool = False,
        vocab_only: bool = False,
        last_n_tokens_size: int = 64,
        type_k: int | None = None,
        type_v: int | None = None,
        **others: Any,
    ) -> None:
        """See `Llama`."""
        check_constructor(others)
        self._lookup = others.get("draft_model") is not None
        self._model: Model | None = None
        self.model_path = fspath(model_path)
        self.n_batch, self.last_n_tokens_size = min(n_batch, n_ctx or n_batch), last_n_tokens_size
        self._logits_all = logits_all
        self._free = Lock()  # held while an answer is being given in the sequence
        self.cache: LlamaRAMCache | None = None
        self._scores: dict[int, Floats] = {}  # position of a token -> the logits after it
        self.set_seed(seed)
        if not Path(model_path).exists():
            raise ValueError(f"Model path does not exist: {self.model_path}")
        try:
            self._open(n_ctx, n_threads, None if vocab_only else kv_type(type_k, type_v))
        except IqrunError as error:
            raise ValueError(f"Failed to load model from file: {error}") from error

    def _open(self, n_ctx: int, n_threads: int | None, cache: KVType | None) -> None:
        with GGUFFile(self.model_path) as file:
            self.metadata = _texts(file.metadata)
            self._tokenizer = Tokenizer.from_gguf(file)
            arch = file.metadata.get_str(keys.ARCHITECTURE)
            self._n_embd = file.metadata.get_uint(f"{arch}.embedding_length", 0)
            self._n_ctx = n_ctx or file.metadata.get_uint(f"{arch}.context_length")
        self.tokenizer_ = LlamaTokenizer(self._tokenizer)
        self._text_only = TextOnly(self._tokenizer)
        self.n_threads = n_threads or 0
        if cache is not None:
            self._model = load(self.model_path, n_ctx=self._n_ctx, n_threads=n_threads, kv_type=cache)
            self._session = self._model.session()
            self.n_threads = self._model.n_threads

    # ---- texts and tokens ----

    def tokenize(self, text: bytes | str, add_bos: bool = True, special: bool = False) -> list[int]:
        """The tokens of a UTF-8 text; see `LlamaTokenizer.tokenize`."""
        return self.tokenizer_.tokenize(text, add_bos, special)

    def detokenize(
        self, tokens: Sequence[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        """The bytes of tokens; see `LlamaTokenizer.detokenize`."""
        return self.tokenizer_.detokenize(tokens, prev_tokens, special)

    def tokenizer(self) -> LlamaTokenizer:
        """The tokenizer as an object."""
        return self.tokenizer_

    def token_bos(self) -> int:
        """The token that begins a text, -1 if there is none."""
        return _or_none(self._tokenizer.bos_id)

    def token_eos(self) -> int:
        """The token that ends a text, -1 if there is none."""
        return _or_none(self._tokenizer.eos_id)

    def token_nl(self) -> int:
        """The token of a line break, -1 if there is none."""
        return self.tokenizer_.newline()

    def n_ctx(self) -> int:
        """Tokens that prompt and answer may have together."""
        return self._n_ctx

    def n_embd(self) -> int:
        """Numbers per token inside the model."""
        return self._n_embd

    def n_vocab(self) -> int:
        """Tokens in the vocabulary."""
        return self._tokenizer.n_vocab

    # ---- the sequence ----

    @property
    def n_tokens(self) -> int:
        """Tokens evaluated."""
        return len(self._session_of_its_own())

    @property
    def input_ids(self) -> npt.NDArray[np.intc]:
        """The tokens evaluated, ``(n_tokens,)``; a copy."""
        return np.array(self._session_of_its_own().tokens, np.intc)

    def _loaded(self) -> Model:
        if self._model is None:
            raise RuntimeError("this model was loaded with vocab_only=True: it has no weights to compute with")
        return self._model

    def _session_of_its_own(self) -> Session:
        self._loaded()
        return self._session

    @contextmanager
    def _borrowed(self) -> Iterator[Session]:
        """The sequence for an answer; while another answer is still being given in it, a fresh one."""
        own, model = self._session_of_its_own(), self._loaded()
        if self._free.acquire(blocking=False):
            try:
                self._scores.clear()
                yield own
            finally:
                self._free.release()
        else:
            with model.session() as other:
                yield other

    # ---- state ----

    def set_seed(self, seed: int) -> None:
        """Sets the seed of the answers to come; -1 takes a fresh one."""
        self._seed = random.SystemRandom().getrandbits(32) if seed & RANDOM_SEED == RANDOM_SEED else seed & RANDOM_SEED

    def _next_seed(self, seed: int | None) -> int:
        """The seed of the next answer. Without one of its own, each takes another, which follows from the last."""
        self.set_seed(random.Random(self._seed).getrandbits(32) if seed is None else seed)
        return self._seed

    def save_state(self) -> LlamaState:
        """The sequence, its cached keys and values, and the seed."""
        return self._state_of(self._session_of_its_own())

    def load_state(self, state: LlamaState) -> None:
        """Puts everything back to where `save_state` found it.

        Raises:
            ContextFullError: it has more tokens than fit here.
            StateError: it belongs to another model.
        """
        self._session_of_its_own().load_state(state.llama_state)
        self._scores.clear()
        self._seed = state.seed

    def set_cache(self, cache: LlamaRAMCache | None) -> None:
        """Keeps states of prompts from now on; None ends that."""
        self.cache = cache

    def _recall(self, session: Session, ids: Sequence[int]) -> None:
        """Takes a state out of the cache, if it spares more of the prompt than what the session holds."""
        state = None if self.cache is None else self.cache.find(ids)
        if state is not None and common_prefix(state.input_ids.tolist(), ids) > common_prefix(session.tokens, ids):
            session.load_state(state.llama_state)

    def _remember(self, session: Session) -> None:
        """Puts the state of a session into the cache."""
        if self.cache is not None:
            self.cache[session.tokens] = self._state_of(session)

    def _state_of(self, session: Session) -> LlamaState:
        ids, data = np.array(session.tokens, np.intc), session.save_state()
        return LlamaState(ids, len(ids), data, len(data), self._seed)

    # ---- life ----

    def close(self) -> None:
        """Frees the memory; safe to call twice."""
        if self._model is not None:
            self._session.close()
            self._model.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _or_none(token_id: int | None) -> int:
    """llama.cpp's way to say that there is no such token."""
    return -1 if token_id is None else token_id


def _texts(metadata: Metadata) -> dict[str, str]:
    """Scalars as llama.cpp writes them."""
    pairs = ((key, metadata[key]) for key in metadata if metadata.entry(key).item is None)
    return {key: _text(value) for key, value in pairs}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.6f}" if isinstance(value, float) else str(value)
