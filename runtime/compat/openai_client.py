"""`OpenAI`: the client of the openai package, as far as a program talks to one model, without a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from types import SimpleNamespace, TracebackType
from typing import Any

from iqrun.compat.embeddings import FILE_OR_MEAN
from iqrun.compat.llama import Llama

# Fields that a reply need not have; asking for them gives None, as with the openai package.
_OPTIONAL = frozenset(
    {"audio", "content", "finish_reason", "function_call", "logprobs", "refusal", "role", "tool_calls", "usage"}
)
# Arguments that mean nothing where there is no server.
_HARMLESS = frozenset({"user", "timeout", "store", "metadata", "extra_headers", "parallel_tool_calls", "service_tier"})


class Record(dict[str, Any]):
    """A dictionary whose values are attributes too: ``reply.choices[0].message.content``."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if name in _OPTIONAL:
            return None
        raise AttributeError(name)

    def model_dump(self) -> dict[str, Any]:
        """As a dictionary; it is one."""
        return self


class OpenAI:
    """A model behind ``chat.completions.create``, ``completions.create`` and ``embeddings.create``.

    Example:
        >>> client = OpenAI("model-iq3k.gguf", n_ctx=4096)
        >>> reply = client.chat.completions.create(messages=[{"role": "user", "content": "Hello!"}])
        >>> print(reply.choices[0].message.content)

    Attributes:
        llama: what answers.
    """

    def __init__(self, model: str | PathLike[str] | Llama, **options: Any) -> None:
        """Opens a model.

        Args:
            model: a GGUF file, or a `Llama`.
            **options: passed on to `Llama`. Unless they say otherwise, the context is the model's own, and embeddings
                are one vector for a text.
        """
        defaults = {"n_ctx": 0, "pooling_type": FILE_OR_MEAN}
        self.llama = model if isinstance(model, Llama) else Llama(model, **{**defaults, **options})
        self.completions = SimpleNamespace(create=self._complete)
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._chat))
        self.embeddings = SimpleNamespace(create=self._embed)

    def close(self) -> None:
        """Frees the memory."""
        self.llama.close()

    def __enter__(self) -> OpenAI:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _complete(self, *, prompt: Any, model: str | None = None, **options: Any) -> Any:
        return self._create(self.llama.create_completion, prompt, model, {"max_tokens": 16, **options})

    def _chat(self, *, messages: Any, model: str | None = None, **options: Any) -> Any:
        limit = options.pop("max_completion_tokens", None)
        if limit is not None:
            options["max_tokens"] = limit
        return self._create(self.llama.create_chat_completion, messages, model, options)

    def _embed(self, *, model: str | None = None, encoding_format: str = "float", **options: Any) -> Any:
        if encoding_format != "float":
            raise NotImplementedError(
                f"encoding_format {encoding_format!r} is not supported by iqrun.compat: use float"
            )
        given = {name: value for name, value in options.items() if name not in _HARMLESS}
        return _record(self.llama.create_embedding(model=model, **given))

    def _create(self, function: Any, subject: Any, model: str | None, options: Mapping[str, Any]) -> Any:
        """Calls a method of `Llama` with the arguments and defaults of the OpenAI API."""
        given = {name: value for name, value in options.items() if name not in _HARMLESS and value is not None}
        n_answers = given.pop("n", 1)
        if given.pop("best_of", n_answers) != n_answers:
            raise NotImplementedError("best_of is not supported by iqrun.compat")
        arguments = {"temperature": 1.0, "top_p": 1.0, "model": model, **given}
        if n_answers == 1:
            reply = function(subject, **arguments)
            return _records(reply) if given.get("stream") else _record(reply)
        if given.get("stream"):
            raise NotImplementedError("n above 1 is not supported by iqrun.compat together with stream")
        seed = given.get("seed")
        seeds = [None if seed is None else seed + index for index in range(n_answers)]
        return _record(_joined([function(subject, **{**arguments, "seed": seed}) for seed in seeds]))


def _joined(replies: list[dict[str, Any]]) -> dict[str, Any]:
    """Several answers to one question as the choices of one reply."""
    choices = [{**reply["choices"][0], "index": index} for index, reply in enumerate(replies)]
    n_prompt = replies[0]["usage"]["prompt_tokens"]
    n_drawn = sum(reply["usage"]["completion_tokens"] for reply in replies)
    usage = {"prompt_tokens": n_prompt, "completion_tokens": n_drawn, "total_tokens": n_prompt + n_drawn}
    return {**replies[0], "choices": choices, "usage": usage}


def _record(value: Any) -> Any:
    """Dictionaries at all depths as `Record`."""
    if isinstance(value, dict):
        return Record({key: _record(item) for key, item in value.items()})
    return [_record(item) for item in value] if isinstance(value, list) else value


def _records(chunks: Iterator[dict[str, Any]]) -> Iterator[Any]:
    return (_record(chunk) for chunk in chunks)
