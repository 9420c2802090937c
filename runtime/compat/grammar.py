"""Constraints on an answer, in llama-cpp-python's shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from iqrun.generation.grammar import Grammar


class LlamaGrammar(Grammar):
    """A grammar in llama.cpp's notation, or made of a JSON schema; an `iqrun.Grammar`, which may be used instead.

    `verbose` is taken and forgotten.
    """

    @classmethod
    def from_string(cls, grammar: str, verbose: bool = True) -> LlamaGrammar:
        """Reads GBNF.

        Raises:
            GrammarError: it is not valid.
        """
        return cls(Grammar.gbnf(grammar).source)

    @classmethod
    def from_file(cls, file: str | PathLike[str], verbose: bool = True) -> LlamaGrammar:
        """Reads GBNF from a file.

        Raises:
            GrammarError: it is not valid.
            OSError: the file cannot be read.
        """
        return cls.from_string(Path(file).read_text(encoding="utf-8"))

    @classmethod
    def from_json_schema(cls, json_schema: str, verbose: bool = True) -> LlamaGrammar:
        """JSON that a schema describes.

        Raises:
            GrammarError: the schema is not valid.
        """
        return cls(Grammar.json_schema(json_schema).source)


def grammar_of(response_format: Mapping[str, Any] | None, tool: Mapping[str, Any] | None) -> Grammar | None:
    """What an answer must look like.

    Args:
        response_format: of the OpenAI API; its ``"text"`` asks for nothing.
        tool: the function that must be called; the answer is its arguments.

    Raises:
        GrammarError: the format or the schema is not valid.
    """
    if tool is not None:
        return Grammar.json_schema(tool.get("parameters") or {"type": "object"})
    if response_format is None or response_format.get("type") == "text":
        return None
    return Grammar.of(response_format)


def chosen_function(
    tools: Sequence[Mapping[str, Any]] | None, choice: str | Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """The function that the answer must call; None if it may be text.

    Args:
        tools: functions in the shape of the OpenAI API.
        choice: its ``tool_choice``, or the older ``function_call``.

    Raises:
        NotImplementedError: any of several functions is asked for.
        ValueError: there is no such function.
    """
    functions: list[Mapping[str, Any]] = [tool["function"] for tool in tools or ()]
    if choice == "required":
        if len(functions) != 1:
            raise NotImplementedError("tool_choice 'required' is supported by iqrun.compat for one tool: name it")
        return functions[0]
    if choice is None or isinstance(choice, str):
        return None
    name = choice.get("function", choice).get("name")
    found = next((function for function in functions if function["name"] == name), None)
    if found is None:
        raise ValueError(f"tool choice {name!r} is not among the tools: {', '.join(f['name'] for f in functions)}")
    return found
