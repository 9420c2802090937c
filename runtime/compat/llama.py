"""`Llama`: llama-cpp-python's class, with an iqrun model inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from os import PathLike
from typing import Any, NoReturn

from iqrun.chat.template import ChatTemplate
from iqrun.compat import embeddings
from iqrun.compat.arguments import RANDOM_SEED
from iqrun.compat.callbacks import LogitsProcessor
from iqrun.compat.chat_completion import chat_chunks, chat_completion, tool_call, tool_call_chunks
from iqrun.compat.completion import Reply
from iqrun.compat.grammar import chosen_function, grammar_of
from iqrun.compat.messages import choose_template, message_ids
from iqrun.compat.text import TextLlama
from iqrun.generation.grammar import Grammar


class Llama(TextLlama):
    """A GGUF model behind llama-cpp-python's methods. Use it as a context manager, or call `close`.

    One sequence belongs to it, and a prompt that begins like the last one is not evaluated from the start. Several
    threads may use it: an answer that begins while another is being given gets a sequence of its own.

    Example:
        >>> llm = Llama("model-iq3k.gguf", n_ctx=2048)
        >>> llm("Once upon a time", max_tokens=16, temperature=0)["choices"][0]["text"]
        ', there was a little girl named Lily. She loved to play outside'
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
        pooling_type: int = -1,
        vocab_only: bool = False,
        last_n_tokens_size: int = 64,
        chat_format: str | None = None,
        chat_handler: Callable[..., Any] | None = None,
        type_k: int | None = None,
        type_v: int | None = None,
        **others: Any,
    ) -> None:
        """Opens a model.

        Args:
            model_path: the file, or any file of a split model.
            n_ctx: tokens that prompt and answer may have together; 0 takes what the model was trained for.
            n_batch: kept for compatibility.
            n_threads: threads that compute; None takes one per physical core that this process may use.
            seed: of the first answer; -1 takes a fresh one.
            logits_all: `eval` keeps the logits of all tokens in `scores`.
            pooling_type: how `embed` makes one vector of many: 0 not at all, 1 mean, 2 the first token's, 3 the last
                token's; -1 as the file says, not at all if it says nothing; -2 as the file says, else mean.
            vocab_only: open the vocabulary alone: only tokenizing works.
            last_n_tokens_size: how far back the penalties look.
            chat_format: a name such as ``"chatml"``; None takes the file's own template.
            chat_handler: answers `create_chat_completion` in its place.
            type_k: ggml type of cached keys: 1 (F16) or 0 (F32).
            type_v: that of cached values; the same as `type_k`.
            **others: llama-cpp-python's other arguments. Those that change no answer (GPU layers, mmap, batch sizes)
                are ignored; others are refused unless they have their default value.

        Raises:
            NotImplementedError: something is asked for that iqrun does not do, such as LoRA.
            TypeError: there is no such argument.
            ValueError: the file is missing, damaged or not supported, or an argument is out of range.
        """
        below: dict[str, Any] = {
            "n_ctx": n_ctx,
            "n_batch": n_batch,
            "n_threads": n_threads,
            "seed": seed,
            "logits_all": logits_all,
            "vocab_only": vocab_only,
            "last_n_tokens_size": last_n_tokens_size,
            "type_k": type_k,
            "type_v": type_v,
            **others,
        }
        super().__init__(model_path, **below)
        above = {"pooling_type": pooling_type, "chat_format": chat_format, "chat_handler": chat_handler}
        self._arguments = {**below, **above}
        self._pooling = embeddings.pooling_type(pooling_type, self.metadata)
        self.chat_format, self.chat_handler = chat_format, chat_handler

    @classmethod
    def from_pretrained(cls, repo_id: str, filename: str | None = None, **_: Any) -> NoReturn:
        """Not there: iqrun downloads nothing.

        Raises:
            NotImplementedError: always; it says what to do.
        """
        name = filename or "the file"
        raise NotImplementedError(f"iqrun downloads nothing: fetch {name} of {repo_id} yourself, then Llama(its path)")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as the path and the arguments: the copy opens the file anew."""
        return _open_again, (type(self), self.model_path, self._arguments)

    # ---- chat ----

    def create_chat_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        functions: Sequence[Mapping[str, Any]] | None = None,
        function_call: str | Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        temperature: float = 0.2,
        top_p: float = 0.95,
        top_k: int = 40,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        stream: bool = False,
        stop: str | Sequence[str] | None = (),
        seed: int | None = None,
        response_format: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        logits_processor: LogitsProcessor | Sequence[LogitsProcessor] | None = None,
        grammar: Grammar | None = None,
        logit_bias: Mapping[int, float] | None = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
        stream_options: Mapping[str, Any] | None = None,
    ) -> Reply | Iterator[Reply]:
        """Answers a conversation.

        Args:
            messages: dictionaries with ``role`` and ``content``, a text or a list of text parts. Control tokens spelled
                in them are plain text.
            functions: as `tools`, in the older shape.
            function_call: as `tool_choice`, in the older shape.
            tools: functions that the template shows to the model.
            tool_choice: ``{"type": "function", "function": {"name": ...}}`` makes the answer arguments of this
                function; with ``"auto"`` and ``"none"`` the answer is text, as the template and the model have it.
            temperature: as for `create_completion`, like all of the following that have no description of their own.
            top_p: see there.
            top_k: see there.
            min_p: see there.
            typical_p: see there.
            stream: give an iterator of chunks instead of the whole.
            stop: see there.
            seed: see there.
            response_format: ``{"type": "json_object"}``, with a JSON schema under ``"schema"`` if wanted; or the
                ``json_schema`` of the OpenAI API.
            max_tokens: most tokens to draw; None draws until the model ends its turn or the context is full.
            presence_penalty: see there.
            frequency_penalty: see there.
            repeat_penalty: see there.
            tfs_z: see there.
            mirostat_mode: see there.
            mirostat_tau: see there.
            mirostat_eta: see there.
            model: see there.
            logits_processor: see there.
            grammar: see there.
            logit_bias: see there.
            logprobs: also show the log-probability of each token,
            top_logprobs: and of so many of the most probable ones.
            stream_options: see there.

        Returns:
            A dictionary of the chat completion API, or an iterator of its chunks.

        Raises:
            TemplateError: the template is not valid.
            ValueError: the template refuses the messages, they do not fit into the context or have parts other than
                text, or an option is out of range.
        """
        options = {name: value for name, value in locals().items() if name not in ("self", "messages")}  # all of them
        if self.chat_handler is not None:
            answer: Reply | Iterator[Reply] = self.chat_handler(llama=self, messages=messages, **options)
            return answer
        return self._answer(messages, **options)

    def _answer(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        functions: Sequence[Mapping[str, Any]] | None,
        function_call: str | Mapping[str, Any] | None,
        tools: Sequence[Mapping[str, Any]] | None,
        tool_choice: str | Mapping[str, Any] | None,
        response_format: Mapping[str, Any] | None,
        grammar: Grammar | None,
        stop: str | Sequence[str] | None,
        stream: bool,
        logprobs: bool | None,
        top_logprobs: int | None,
        **options: Any,
    ) -> Reply | Iterator[Reply]:
        tools = tools or [{"type": "function", "function": function} for function in functions or ()] or None
        tool = chosen_function(tools, tool_choice or function_call)
        template = self._template
        ids = message_ids(template, self._tokenizer, messages, tools=tools, tool_choice=tool_choice)
        reply: Any = self.create_completion(
            ids,
            stop=[*([stop] if isinstance(stop, str) else stop or ()), *template.stop],
            stream=stream,
            logprobs=(top_logprobs or 0) if logprobs else None,
            grammar=grammar_of(response_format, tool) or grammar,
            **options,
        )
        if tool is not None:
            return tool_call_chunks(reply, tool["name"]) if stream else tool_call(reply, tool["name"])
        return chat_chunks(reply) if stream else chat_completion(reply)

    def create_chat_completion_openai_v1(self, *args: Any, **kwargs: Any) -> Any:
        """As `create_chat_completion`, as objects of the openai package, which must be installed.

        Raises:
            ImportError: it is not.
        """
        from openai.types.chat import ChatCompletion, ChatCompletionChunk

        reply = self.create_chat_completion(*args, **kwargs)
        if isinstance(reply, dict):
            return ChatCompletion(**reply)
        return (ChatCompletionChunk(**chunk) for chunk in reply)

    @cached_property
    def _template(self) -> ChatTemplate:
        return choose_template(self.chat_format, self._loaded().metadata, self._tokenizer)


def _open_again(kind: type[Llama], path: str, arguments: dict[str, Any]) -> Llama:
    return kind(path, **arguments)
