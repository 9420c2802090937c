"""`Model`: a GGUF file that is ready to run, and `load`, which opens one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from iqrun import machine
from iqrun.errors import ClosedError, UnsupportedModelError
from iqrun.generate import Step, generate
from iqrun.gguf import GGUFFile, Metadata, keys
from iqrun.lowering import NativeProgram
from iqrun.program import Program
from iqrun.sampling import SamplingOptions
from iqrun.session import KVType, Session
from iqrun.tokenizer import Tokenizer

if TYPE_CHECKING:
    from iqrun.chat import Chat

DEFAULT_N_CTX = 4096


def load(
    path: str | PathLike[str], n_ctx: int | None = None, n_threads: int | None = None, kv_type: KVType = "f16"
) -> Model:
    """Opens a GGUF model and makes it ready to run. The weights are mapped, not read: this takes milliseconds.

    Args:
        path: the file, or any file of a split model.
        n_ctx: tokens that prompt and answer may have together. None takes 4096, or what the model was trained for if
            that is less; a number is taken as it is, even beyond the training.
        n_threads: threads that compute; None takes one per physical core that this process may use.
        kv_type: type of cached keys and values: ``"f16"``, or ``"f32"`` for twice the memory.

    Raises:
        GGUFError: the file is damaged or incomplete.
        ResourceError: the context does not fit into memory; the message says what would.
        TokenizerError: the vocabulary is missing or of an unknown kind.
        UnsupportedModelError: the architecture, or something that it asks for, is not implemented.
        ValueError: an argument is out of range.

    Example:
        >>> model = iqrun.load("model-iq3k.gguf")
        >>> model.complete("Once upon a time", max_tokens=16, temperature=0)
        ', there was a little girl named Lily. She loved to play outside'
    """
    return Model(path, n_ctx=n_ctx, n_threads=n_threads, kv_type=kv_type)


class Model:
    """A model that is ready to run; made by `load`. Use it as a context manager, or call `close`.

    Several threads may use it at once, and several streams may be open at the same time: each runs in a session of its
    own, with its own KV cache.

    Attributes:
        path: the file.
        tokenizer: text to token ids and back.
        n_ctx: tokens that a session holds.
        n_ctx_train: tokens that the model was trained with.
        n_threads: threads that compute in each session.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        kv_type: KVType = "f16",
    ) -> None:
        """Opens the file; see `load`."""
        self._closed = False
        self._lock = Lock()
        self._idle: list[Session] = []
        self._sessions: WeakSet[Session] = WeakSet()
        self._file = GGUFFile(path)
        try:
            self._open(n_ctx, n_threads, kv_type)
        except BaseException:
            self.close()
            raise

    def _open(self, n_ctx: int | None, n_threads: int | None, kv_type: KVType) -> None:
        self.path = self._file.path
        program = build_program(self._file)
        self.tokenizer = Tokenizer.from_gguf(self._file)
        self.n_ctx_train = self._file.metadata.get_uint(f"{program.arch}.context_length")
        self.n_ctx = min(DEFAULT_N_CTX, self.n_ctx_train) if n_ctx is None else n_ctx
        self.n_threads = machine.physical_cores() if n_threads is None else n_threads
        self._kv_type: KVType = kv_type
        self._native: NativeProgram | None = NativeProgram(program)
        self._put_back(self._new_session(self.n_ctx, self.n_threads))  # tells now if memory is too small

    # ---- text ----

    def complete(
        self,
        prompt: str,
        *,
        max_tokens: int | None = 256,
        stop: str | Sequence[str] = (),
        **sampling: Any,
    ) -> str:
        """Continues a text; the options are those of `stream`.

        Example:
            >>> model.complete("The cat sat on the", max_tokens=4, temperature=0)
            ' mat and'
        """
        options = SamplingOptions(**sampling)
        steps = self.generate(prompt, sampling=options, max_tokens=max_tokens, stop=stop)
        return "".join([step.text for step in steps])

    def stream(
        self,
        prompt: str,
        *,
        max_tokens: int | None = 256,
        stop: str | Sequence[str] = (),
        **sampling: Any,
    ) -> Iterator[str]:
        """Continues a text piece by piece, as tokens come; each piece is whole characters.

        Args:
            prompt: the text to continue; BOS is put in front if the model wants it. Marks such as ``<|end|>`` in it are
                plain text.
            max_tokens: most tokens to draw; None draws until the context is full.
            stop: texts that end the answer; they are not part of it.
            **sampling: fields of `SamplingOptions`, such as ``temperature`` (0 always takes the most probable token),
                ``top_k``, ``top_p``, ``min_p``, or ``seed`` (the same one gives the same text on the same machine).

        Raises:
            ClosedError: the model was closed.
            ContextFullError: the prompt has more than `n_ctx` tokens.
            ResourceError: no memory is left for one more stream at the same time.
            TypeError: there is no such option.
            ValueError: an option is out of range, or the prompt has no tokens.

        Example:
            >>> for piece in model.stream("Once upon a time", max_tokens=64):
            ...     print(piece, end="", flush=True)
        """
        options = SamplingOptions(**sampling)
        steps = self.generate(prompt, sampling=options, max_tokens=max_tokens, stop=stop)
        return (step.text for step in steps if step.text)

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        sampling: SamplingOptions | None = None,
        max_tokens: int | None = 256,
        stop: str | Sequence[str] = (),
        logprobs: int | None = None,
    ) -> Iterator[Step]:
        """As `stream`, token by token, with ids, the reason of the end, and timings.

        Args:
            prompt: a text, or token ids.
            sampling: how tokens are chosen.
            max_tokens: most tokens to draw; None draws until the context is full.
            stop: texts that end the answer.
            logprobs: also give the log-probability of each token, and of so many of the most probable ones.

        Example:
            >>> *_, last = model.generate("Once upon a time", max_tokens=64)
            >>> last.finish_reason, round(last.timings.generated_per_second)
            ('length', 2100)
        """
        self._check_open()
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        if len(ids) == 0:
            raise ValueError("the prompt has no tokens: this model does not begin a text by itself")
        return self._generate(ids, sampling=sampling, max_tokens=max_tokens, stop=stop, logprobs=logprobs)

    def _generate(self, ids: Sequence[int], **options: Any) -> Iterator[Step]:
        with self._borrowed_session() as session:
            yield from generate(session, self.tokenizer, ids, **options)

    def chat(self, system: str | None = None, **options: Any) -> Chat:
        """Starts a conversation in a session of its own; see `Chat`.

        Args:
            system: what the model is told before the first turn.
            **options: passed on to `Chat`.

        Raises:
            TemplateError: the file has no usable chat template.

        Example:
            >>> chat = model.chat(system="You tell stories.")
            >>> print("".join(chat.send("One about a fox, please.")))
        """
        from iqrun.chat import Chat

        self._check_open()
        return Chat(self, system=system, **options)

    # ---- numbers ----

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """The logits after each of a list of tokens, computed from scratch.

        Args:
            ids: token ids.

        Returns:
            float32 ``(len(ids), n_vocab)``; row t predicts token ``t + 1``.

        Raises:
            ClosedError: the model was closed.
            ContextFullError: there are more than `n_ctx` tokens.
            ValueError: no tokens, or an id outside the vocabulary.

        Example:
            >>> ids = model.tokenizer.encode("Once upon a time")
            >>> model.tokenizer.decode([model.logits(ids)[-1].argmax()])
            ','
        """
        with self._borrowed_session() as session:
            return session.evaluate(ids, want="all")

    def session(self, *, n_ctx: int | None = None, n_threads: int | None = None) -> Session:
        """An empty `Session`, for those who evaluate tokens themselves. Close it when it is not needed any more.

        Args:
            n_ctx: tokens that it holds; by default the model's.
            n_threads: threads that compute; by default the model's.

        Raises:
            ClosedError: the model was closed.
            ResourceError: it does not fit into memory.
            ValueError: an argument is out of range.
        """
        self._check_open()
        wanted = (self.n_ctx if n_ctx is None else n_ctx, self.n_threads if n_threads is None else n_threads)
        with self._lock:
            idle = self._idle.pop() if self._idle else None
        if idle is not None:
            if (idle.n_ctx, idle.n_threads) == wanted:
                idle.truncate(0)
                return idle
            self._put_back(idle)
        return self._new_session(*wanted)

    @property
    def metadata(self) -> Metadata:
        """The file's metadata."""
        self._check_open()
        return self._file.metadata

    @property
    def program(self) -> Program:
        """What the model computes; ``print(model.program)`` shows it."""
        self._check_open()
        assert self._native is not None
        return self._native.program

    @property
    def n_vocab(self) -> int:
        """Number of tokens in the vocabulary."""
        return self.tokenizer.n_vocab

    # ---- life ----

    def close(self) -> None:
        """Stops what runs, frees the memory and lets go of the file; safe to call twice.

        What runs in another thread ends with `CancelledError`; streams that are still open raise `ClosedError` when
        they are asked for more.
        """
        with self._lock:
            self._closed = True
            sessions = list(self._sessions)
            self._idle.clear()
        for session in sessions:
            session.close()
        self._native = None
        self._file.close()

    def __enter__(self) -> Model:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            "<Model: closed>" if self._closed else f"<Model {self.path}: n_ctx {self.n_ctx}, {self.n_threads} threads>"
        )

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this model is closed; load it again")

    def _new_session(self, n_ctx: int, n_threads: int) -> Session:
        native = self._native
        if native is None:
            raise ClosedError("this model is closed; load it again")
        session = Session(native, n_ctx=n_ctx, n_threads=n_threads, kv_type=self._kv_type)
        with self._lock:
            self._sessions.add(session)
            closed = self._closed
        if closed:  # in another thread, meanwhile
            session.close()
            self._check_open()
        return session

    @contextmanager
    def _borrowed_session(self) -> Iterator[Session]:
        """An empty session for one job."""
        session = self.session()
        try:
            yield session
        finally:
            self._put_back(session)

    def _put_back(self, session: Session) -> None:
        """Keeps one session for the next job, as its memory is large; closes any other."""
        with self._lock:
            keep = not self._closed and not self._idle
            if keep:
                self._idle.append(session)
        if not keep:
            session.close()


def build_program(file: GGUFFile) -> Program:
    """The program of a file, by its architecture.

    Raises:
        GGUFError: a key or tensor is missing or does not fit.
        UnsupportedModelError: the architecture, or something that it asks for, is not implemented.
    """
    from iqrun.models import ARCHITECTURES

    name = file.metadata.get_str(keys.ARCHITECTURE)
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UnsupportedModelError(f"{file.path}: architecture {name!r} is not implemented; iqrun runs {known}")
    return ARCHITECTURES[name](file)
