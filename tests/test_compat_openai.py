"""`iqrun.compat.OpenAI`: code written for the openai package, with a model in place of a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iqrun.compat import Llama, OpenAI

DEMO = Path(__file__).parents[1] / "models" / "demo" / "stories-13m-f16.gguf"
MESSAGES = [{"role": "user", "content": "Tell me a story about a cat."}]


@pytest.fixture(scope="module")
def client() -> Iterator[OpenAI]:
    with OpenAI(DEMO, n_threads=2) as opened:
        yield opened


def test_chat_reply_has_attributes(client: OpenAI) -> None:
    """``reply.choices[0].message.content`` is the text; the reply is a dictionary too."""
    reply = client.chat.completions.create(model="stories", messages=MESSAGES, max_tokens=8, temperature=0)
    assert reply.choices[0].message.content == reply["choices"][0]["message"]["content"]
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].message.tool_calls is None
    assert (reply.model, reply.object, reply.usage.completion_tokens) == ("stories", "chat.completion", 8)
    assert reply.model_dump() == dict(reply)
    with pytest.raises(AttributeError, match="nothing"):
        _ = reply.nothing


def test_stream_is_read_as_the_package_shows(client: OpenAI) -> None:
    """``chunk.choices[0].delta.content or ""`` adds up to the answer."""
    asked: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 8, "temperature": 0}
    chunks = list(client.chat.completions.create(stream=True, **asked))
    text = "".join([chunk.choices[0].delta.content or "" for chunk in chunks])
    assert text == client.chat.completions.create(**asked).choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "length"


def test_text_completion(client: OpenAI) -> None:
    """The older endpoint, with its default of 16 tokens."""
    reply = client.completions.create(prompt="Once upon a time", temperature=0, user="me")
    assert reply.choices[0].text.startswith(", there was")
    assert reply.usage.completion_tokens == 16


def test_embeddings_are_one_vector_for_a_text(client: OpenAI) -> None:
    """Also of a model that says nothing about pooling: the mean."""
    reply = client.embeddings.create(model="stories", input=["a cat", "a dog"])
    assert [len(item.embedding) for item in reply.data] == [client.llama.n_embd()] * 2
    assert client.llama.pooling_type() == 1


def test_several_answers(client: OpenAI) -> None:
    """``n`` answers with their index; a seed gives each its own, and the same ones again."""
    asked: dict[str, Any] = {"messages": MESSAGES, "n": 3, "seed": 4, "max_completion_tokens": 12, "temperature": 1.5}
    reply = client.chat.completions.create(**asked)
    texts = [choice.message.content for choice in reply.choices]
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert reply.usage.completion_tokens == 36
    assert [choice.message.content for choice in client.chat.completions.create(**asked).choices] == texts


def test_context_is_the_models_own(client: OpenAI) -> None:
    """Not llama-cpp-python's 512; a `Llama` may be given instead of a file."""
    assert client.llama.n_ctx() == 1024
    assert OpenAI(client.llama).llama is client.llama


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "text"])
def test_usage_at_the_end_of_a_stream(client: OpenAI, chat: bool) -> None:
    """``include_usage``: a last chunk without choices counts as the whole reply does; the others have none."""
    create = client.chat.completions.create if chat else client.completions.create
    asked: dict[str, Any] = {"messages": MESSAGES} if chat else {"prompt": "Once upon a time"}
    asked |= {"max_tokens": 8, "temperature": 0}
    *chunks, last = create(stream=True, stream_options={"include_usage": True}, **asked)
    assert (last.choices, last.usage) == ([], create(**asked).usage)
    assert last.object == chunks[0].object
    assert {chunk["usage"] for chunk in chunks} == {None}
    assert chunks[-1].choices[0].finish_reason == "length"
    for options in ({}, {"stream_options": {"include_usage": False}}):
        assert all("usage" not in chunk for chunk in create(stream=True, **asked, **options))


@pytest.mark.parametrize("option", [{"n": 2}, {"best_of": 3}])
def test_what_is_missing_is_refused(client: OpenAI, option: Any) -> None:
    """Never half-done."""
    with pytest.raises(NotImplementedError, match="not supported"):
        client.chat.completions.create(messages=MESSAGES, stream=True, **option)


def test_unknown_argument_is_a_type_error(client: OpenAI) -> None:
    """A misspelled option does not vanish."""
    with pytest.raises(TypeError, match="temprature"):
        client.chat.completions.create(messages=MESSAGES, temprature=1)


def test_objects_of_the_openai_package() -> None:
    """`create_chat_completion_openai_v1` gives the package's own types, whole and in chunks."""
    pytest.importorskip("openai")
    with Llama(DEMO, n_threads=2) as llm:
        reply = llm.create_chat_completion_openai_v1(MESSAGES, max_tokens=4, logprobs=True, top_logprobs=1)
        assert type(reply).__name__ == "ChatCompletion"
        assert reply.choices[0].message.content
        chunks = list(llm.create_chat_completion_openai_v1(MESSAGES, max_tokens=4, stream=True))
        assert {type(chunk).__name__ for chunk in chunks} == {"ChatCompletionChunk"}
