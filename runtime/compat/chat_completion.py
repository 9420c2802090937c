"""The dictionaries of the chat API, made of those of the text completion API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from iqrun.compat.completion import Reply


def chat_completion(reply: Reply) -> Reply:
    """A text completion as a chat completion."""
    choice = reply["choices"][0]
    message = {"role": "assistant", "content": choice["text"]}
    return {
        **_head(reply, "chat.completion"),
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": _logprobs(choice["logprobs"]),
                "finish_reason": choice["finish_reason"],
            }
        ],
        "usage": reply["usage"],
    }


def chat_chunks(replies: Iterator[Reply]) -> Iterator[Reply]:
    """Chunks of a text completion as those of a chat completion; the first one says who speaks."""
    first = True
    for reply in replies:
        if not reply["choices"]:
            yield _counting(reply)
            continue
        choice = reply["choices"][0]
        if first:
            yield _chunk(reply, {"role": "assistant"}, None, None)
            first = False
        delta = {"content": choice["text"]} if choice["finish_reason"] is None else {}
        yield _chunk(reply, delta, _logprobs(choice["logprobs"]), choice["finish_reason"])


def tool_call(reply: Reply, name: str) -> Reply:
    """A text completion whose text is the arguments of a function."""
    chat = chat_completion(reply)
    choice = chat["choices"][0]
    call = {"name": name, "arguments": choice["message"]["content"]}
    choice["message"] = {
        "role": "assistant",
        "content": None,
        "function_call": call,
        "tool_calls": [{"id": _call_id(reply, name), "type": "function", "function": call}],
    }
    choice["finish_reason"] = _finish(choice["finish_reason"])
    return chat


def tool_call_chunks(replies: Iterator[Reply], name: str) -> Iterator[Reply]:
    """The same, piece by piece."""
    nothing = {"role": None, "content": None, "function_call": None, "tool_calls": None}
    first = True
    for reply in replies:
        if not reply["choices"]:
            yield _counting(reply)
            continue
        choice = reply["choices"][0]
        if first:
            yield _chunk(reply, {**nothing, "role": "assistant"}, None, None)
            first = False
        if choice["finish_reason"] is not None:
            yield _chunk(reply, nothing, None, _finish(choice["finish_reason"]))
            continue
        call = {"name": name, "arguments": choice["text"]}
        part = {"index": 0, "id": _call_id(reply, name), "type": "function", "function": call}
        delta = {**nothing, "function_call": call, "tool_calls": [part]}
        yield _chunk(reply, delta, _logprobs(choice["logprobs"]), None)


def _head(reply: Reply, kind: str) -> Reply:
    return {"id": f"chat{reply['id']}", "object": kind, "created": reply["created"], "model": reply["model"]}


def _chunk(reply: Reply, delta: Reply, logprobs: Reply | None, finish_reason: str | None) -> Reply:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    usage = {"usage": None} if "usage" in reply else {}
    return {**_head(reply, "chat.completion.chunk"), "choices": [choice], **usage}


def _counting(reply: Reply) -> Reply:
    """The last chunk, if it was asked for: no choices, but the number of tokens."""
    return {**_head(reply, "chat.completion.chunk"), "choices": [], "usage": reply["usage"]}


def _finish(reason: str) -> str:
    """A call that was cut short is none: it says ``length``."""
    return "tool_calls" if reason == "stop" else reason


def _call_id(reply: Reply, name: str) -> str:
    return f"call__0_{name}_{reply['id']}"


def _logprobs(logprobs: Reply | None) -> Reply | None:
    if logprobs is None:
        return None
    rows = zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
    content: list[dict[str, Any]] = [
        {**_token(token, logprob), "top_logprobs": [_token(*pair) for pair in best.items()]}
        for token, logprob, best in rows
    ]
    return {"content": content, "refusal": None}


def _token(token: str, logprob: float) -> Reply:
    return {"token": token, "logprob": logprob, "bytes": None}
