"""`Model`: a GGUF file that is ready to run, and `load`, which opens one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from os import PathLike, fsdecode
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, overload
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from iqrun import machine
from iqrun.engine.allocation import N_BATCH, KVType, context_params
from iqrun.engine.context import Context
from iqrun.engine.lowering import NativeProgram
from iqrun.engine.residency import MemoryPlan, context_account, memory_limit, plan_memory
from iqrun.engine.session import Session
from iqrun.engine.stream import Stream
from iqrun.engine.warm import read_through
from iqrun.errors import ClosedError, ResourceError, TokenizerError, UnsupportedModelError, shown
from iqrun.generation.batch import whole_blocks
from iqrun.generation.numbers import Pooling, Score, check_pooling, embed, score
from iqrun.generation.texts import Texts
from iqrun.gguf import GGUFFile, Metadata, keys
from iqrun.log import logger
from iqrun.parallel import Parallel
from iqrun.program import Program
from iqrun.tokenizer import Tokenizer

if TYPE_CHECKING:
    from iqrun.chat.chat import Chat

DEFAULT_N_CTX = 4096


def load(
    path: str | PathLike[str],
    n_ctx: int | None = None,
    n_threads: int | None = None,
    kv_type: KVType = "f16",
    *,
    copy: bool = False,
    memory: int | None = None,
    on_progress: Callable[[int, int], object] | None = None,
) -> Model:
    """Opens a GGUF model and makes it ready to run. The weights are mapped, not read: this takes milliseconds.

    Args:
        path: the file, or any file of a split model.
        n_ctx: tokens that prompt and answer may have together. None takes 4096, or what the model was trained for if
            that is less; a number is taken as it is, even beyond the training.
        n_threads: threads that compute; None takes one per physical core that this process may use.
        kv_type: type of cached keys and values: ``"f16"``, ``"q8_0"`` for little more than half the memory, or
            ``"f32"`` for twice as much.
        copy: read the weights into memory of this process. Opening takes longer and nothing is shared with other
            processes, but what happens to the file afterwards does not matter; see also `guard_mapped_files`.
        memory: bytes that the process shall use at most, everything counted. Weights that do not fit are read from the
            disk for each step (Linux only); `Model.streaming` says how many. None does so when the file is larger than
            the memory that is free.
        on_progress: if given, all weights (that stay in memory) are read once now, so that the first answer does not
            wait for the disk; it is called as ``on_progress(done, total)``, in bytes. What it raises ends the loading.

    Raises:
        GGUFError: the file is damaged or incomplete.
        ResourceError: the context (or the copy) does not fit into memory; the message says what would.
        TokenizerError: the vocabulary is missing or of an unknown kind.
        UnsupportedModelError: the architecture, or something that it asks for, is not implemented.
        ValueError: an argument is out of range.

    Example:
        >>> model = iqrun.load("model-iq3k.gguf")
        >>> model.complete("Once upon a time", max_tokens=16, temperature=0)
        ', there was a little girl named Lily. She loved to play outside'
    """
    return Model(
        path, n_ctx=n_ctx, n_threads=n_threads, kv_type=kv_type, copy=copy, memory=memory, on_progress=on_progress
    )


class Model(Texts):
    """A model that is ready to run; made by `load`. Use it as a context manager, or call `close`.

    Several threads may use it at once, and several streams may be open at the same time: each runs in a session of its
    own, with its own KV cache.

    Attributes:
        path: the file.
        tokenizer: text to token ids and back.
        n_ctx: tokens that a session holds.
        n_ctx_train: tokens that the model was trained with.
        n_threads: threads that compute in each session.
        kv_type: type of cached keys and values.
        streaming: what is in memory and what is read from the disk, if not all weights fit; else None.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        kv_type: KVType = "f16",
        copy: bool = False,
        memory: int | None = None,
        on_progress: Callable[[int, int], object] | None = None,
    ) -> None:
        """Opens the file; see `load`."""
        self._closed = False
        self._native: NativeProgram | None = None
        self._n_batch = N_BATCH
        self._lock = Lock()
        self._idle: list[Session] = []
        self._sessions: WeakSet[Session | Context] = WeakSet()
        if copy and memory is not None:
            raise ValueError("a copy holds all weights in memory: give copy or memory, not both")
        self._file = _copied(path) if copy else GGUFFile(path)
        try:
            self._open(n_ctx, n_threads, kv_type)
            self.streaming = None if copy else self._stream(memory)
            self._put_back(self._new_session(self.n_ctx, self.n_threads))  # tells now if memory is too small
            if on_progress is not None:
                self._load(on_progress)
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
        self.kv_type: KVType = kv_type
        self._native = NativeProgram(program)
        logger.debug("loaded %s: %s, n_ctx %d, %d threads", self.path, program.arch, self.n_ctx, self.n_threads)

    def _stream(self, memory: int | None) -> MemoryPlan | None:
        """Has weights that do not fit into memory read when they are needed."""
        native = self._checked_native()
        params = context_params(self.n_ctx, self.n_threads, self.kv_type, N_BATCH, n_seq=1)
        limit = memory_limit(self._file.file_bytes, context_account(native, params, memory), memory)
        if limit is None:
            return None
        self._file.forget()
        with suppress(TokenizerError):
            self.tokenizer.encode("a")  # its tables are made now, so that they are counted
        plan = plan_memory(native, limit, params)
        native.stream = Stream(native, plan.pieces_resident, context_bytes=plan.begun, n_outputs=plan.n_outputs)
        self._n_batch = plan.n_batch
        logger.info("%s: %s", self.path, plan)
        return plan

    def _load(self, on_progress: Callable[[int, int], object]) -> None:
        """Reads the weights once."""
        stream = self._checked_native().stream
        if stream is None:
            read_through(self.program.weights, on_progress)
        else:
            stream.load(on_progress)

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
        from iqrun.chat.chat import Chat

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

    def score(self, text: str | Sequence[int], *, n_given: int = 1) -> Score:
        """How probable the model finds a text.

        Args:
            text: a text (BOS is put in front if the model wants it), or token ids.
            n_given: tokens at the beginning that are not scored.

        Returns:
            The log-probability of each token, with their sum and the perplexity.

        Raises:
            ClosedError: the model was closed.
            ContextFullError: there are more than `n_ctx` tokens.
            ValueError: there are fewer tokens than `n_given`.

        Example:
            >>> model.score("The cat sat on the mat.").total > model.score("The mat sat on the cat.").total
            True
        """
        ids = self._prompt_ids(text)
        with self._borrowed_session() as session:
            return score(session, ids, n_given)

    @overload
    def embed(self, text: str, *, pooling: Pooling = "mean", normalize: bool = True) -> npt.NDArray[np.float32]: ...

    @overload
    def embed(
        self, text: Sequence[str], *, pooling: Pooling = "mean", normalize: bool = True
    ) -> npt.NDArray[np.float32]: ...

    def embed(
        self, text: str | Sequence[str], *, pooling: Pooling = "mean", normalize: bool = True
    ) -> npt.NDArray[np.float32]:
        """A vector for each text: texts of like meaning have like vectors.

        Args:
            text: one text, or several.
            pooling: of the vectors of its tokens: their ``"mean"``, the ``"last"`` one, or the first (``"cls"``).
            normalize: to length 1, so that a dot product is the cosine.

        Returns:
            float32 ``(n_embd,)`` for one text, ``(len(text), n_embd)`` for several.

        Raises:
            ClosedError: the model was closed.
            ContextFullError: a text has more than `n_ctx` tokens.
            ValueError: there is no such pooling, or a text has no tokens.

        Example:
            >>> cat, kitten, car = model.embed(["a cat", "a kitten", "a car"])
            >>> cat @ kitten > cat @ car
            True
        """
        check_pooling(pooling)
        texts = [text] if isinstance(text, str) else [*text]
        vectors = np.zeros((len(texts), self._n_embd), np.float32)
        with self._borrowed_session() as session:
            for row, one in zip(vectors, texts, strict=True):
                session.truncate(0)
                row[:] = embed(session, self.program, self._prompt_ids(one), pooling, normalize)
        return vectors[0] if isinstance(text, str) else vectors

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

    def parallel(self, n_sessions: int) -> Parallel:
        """Up to `n_sessions` sessions and chats for as many threads, whose steps are done together; see `Parallel`.

        That is faster than sessions of their own, which take turns on the cores.

        Args:
            n_sessions: most at the same time; each holds `n_ctx` tokens.

        Raises:
            ClosedError: the model was closed.
            ResourceError: they do not fit into memory.
            ValueError: `n_sessions` is out of range.
        """
        self._check_open()
        if n_sessions < 1:
            raise ValueError(f"n_sessions is {n_sessions}, but must be at least 1")
        return Parallel(
            self._many_context(n_sessions * whole_blocks(self.n_ctx), n_sessions),
            self.tokenizer,
            self.metadata,
            self.n_ctx,
        )

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

    @property
    def _n_embd(self) -> int:
        program = self.program
        return next(op.src[0].n_cols for op in program.ops if program.logits in op.dst)

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
        native, self._native = self._native, None
        if native is not None and native.stream is not None:
            native.stream.close()
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

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Model cannot be pickled: load the file in each process, which shares the weights' memory")

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this model is closed; load it again")

    def _new_session(self, n_ctx: int, n_threads: int) -> Session:
        session = Session(
            self._checked_native(), n_ctx=n_ctx, n_threads=n_threads, kv_type=self.kv_type, n_batch=self._n_batch
        )
        self._note(session)
        return session

    def _many_context(self, n_ctx: int, n_seq: int) -> Context:
        context = Context(
            self._checked_native(),
            n_ctx=n_ctx,
            n_threads=self.n_threads,
            kv_type=self.kv_type,
            n_batch=self._n_batch,
            n_seq=n_seq,
        )
        self._note(context)
        return context

    def _checked_native(self) -> NativeProgram:
        if self._native is None:
            raise ClosedError("this model is closed; load it again")
        return self._native

    def _note(self, made: Session | Context) -> None:
        """Remembers what must be closed with the model."""
        with self._lock:
            self._sessions.add(made)
            closed = self._closed
        if closed:  # in another thread, meanwhile
            made.close()
            self._check_open()

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


def _copied(path: str | PathLike[str]) -> GGUFFile:
    """The file in memory, if there is room for it."""
    with GGUFFile(path) as file:
        needed = file.file_bytes
    free = machine.available_memory()
    if free is not None and needed > free:
        raise ResourceError(
            f"a copy of {fsdecode(path)} needs {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB of memory are free: "
            "map the file instead (copy=False)"
        )
    return GGUFFile(path, copy=True)


def plan_file(
    path: str | PathLike[str],
    memory: int,
    *,
    n_ctx: int,
    n_threads: int = 1,
    kv_type: KVType = "f16",
    process_bytes: int | None = None,
) -> MemoryPlan:
    """What of a model would stay in memory, and what would be read for each token, without running it.

    Args:
        path: the file, or any file of a split model.
        memory: bytes that the process may use.
        n_ctx: tokens of the context.
        n_threads: threads that compute.
        kv_type: type of cached keys and values.
        process_bytes: what the process uses besides; by default what this one does now.

    Raises:
        ResourceError: it cannot run within that; the message says within what it can.
    """
    with GGUFFile(path) as file:
        native = NativeProgram(build_program(file))
        params = context_params(n_ctx, n_threads, kv_type, N_BATCH, n_seq=1)
        file.forget()  # what was read of the map so far is not part of what the process needs
        return plan_memory(native, memory, params, process_bytes=process_bytes)


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
        raise UnsupportedModelError(f"{file.path}: architecture {shown(name)} is not implemented; iqrun runs {known}")
    return ARCHITECTURES[name](file)
