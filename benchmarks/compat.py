"""Does iqrun.compat answer as llama-cpp-python does? Runs the same calls in both and compares, case by case.

    python benchmarks/compat.py models/demo/stories-13m-f16.gguf --peer PYTHON

PYTHON is an interpreter of an environment with llama-cpp-python. Identifiers and times are left out of the comparison,
numbers may differ a little: the two engines round activations differently.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

TEXT = "Once upon a time, there was a"
UNICODE = "Ünïcödé 漢字 \U0001f600\ttab\r\nline  two spaces"
CHAT = [{"role": "user", "content": "Tell me a story about a cat."}]
TURNS = [{"role": "system", "content": "You tell stories."}, *CHAT, {"role": "assistant", "content": "No."}]
SCHEMA = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "count", "parameters": SCHEMA}}
CHOICE = {"type": "function", "function": {"name": "count"}}
GREEDY: dict[str, Any] = {"max_tokens": 24, "temperature": 0.0}


def drain(chunks: Any) -> Any:
    """Chunks in short: the joined text, the keys of each kind of chunk, the last chunk."""
    found = list(chunks)
    choices = [chunk["choices"][0] for chunk in found]
    text = "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)
    return {"text": text, "first": found[0], "last": found[-1], "keys": sorted({str(sorted(c)) for c in choices})}


def state_repeats(llm: Any) -> Any:
    """Two random answers after the same saved state are the same; a third one without it differs."""
    llm.set_seed(7)
    llm(TEXT, max_tokens=4)
    state = llm.save_state()
    first = llm(TEXT, max_tokens=12, temperature=1.5)["choices"][0]["text"]
    second = llm(TEXT, max_tokens=12, temperature=1.5)["choices"][0]["text"]
    llm.load_state(state)
    again = llm(TEXT, max_tokens=12, temperature=1.5)["choices"][0]["text"]
    return [first == again, first == second, state.n_tokens]


def token_loop(llm: Any) -> Any:
    """The token-level generator, and how many tokens it leaves in the sequence."""
    ids = llm.tokenize(TEXT.encode())
    tokens = [token for _, token in zip(range(8), llm.generate(ids, temp=0.0), strict=False)]
    return [tokens, llm.n_tokens, llm.input_ids[: llm.n_tokens].tolist()]


def error(call: Callable[[], Any]) -> str:
    """The kind of error that a call ends with."""
    try:
        call()
    except Exception as problem:
        return type(problem).__name__
    return "none"


def stop_at_20(ids: Any, _: Any) -> bool:
    return len(ids) >= 20


def token(llm: Any, text: bytes) -> int:
    """The last token of a text."""
    found: int = llm.tokenize(text, add_bos=False)[-1]
    return found


def embedder(llm: Any, pooling_type: int) -> Any:
    """The same model, as it is loaded for embeddings."""
    return type(llm)(llm.model_path, embedding=True, pooling_type=pooling_type, n_ctx=64, n_threads=2, verbose=False)


def grammar(llm: Any) -> Any:
    """One of two words."""
    rules = 'root ::= " boy" | " girl"\n'
    if type(llm).__module__.startswith("iqrun"):
        from iqrun.compat import LlamaGrammar
    else:
        from llama_cpp import LlamaGrammar
    return LlamaGrammar.from_string(rules, verbose=False)


def call_of(reply: Any) -> Any:
    """The function that a reply calls, without identifiers and white space."""
    choice = reply["choices"][0]
    function = choice["message"]["tool_calls"][0]["function"]
    return [choice["finish_reason"], choice["message"]["content"], function["name"], json.loads(function["arguments"])]


def no_comma(llm: Any) -> Any:
    comma = token(llm, b",")

    def processor(ids: Any, scores: Any) -> Any:
        scores[comma] = -1e9
        return scores

    return [processor]


CASES: dict[str, Callable[[Any], Any]] = {
    "tokenize": lambda llm: [llm.tokenize(text.encode()) for text in (TEXT, UNICODE, "", " ", "<|user|>")],
    "tokenize, no BOS": lambda llm: llm.tokenize(TEXT.encode(), add_bos=False),
    "tokenize, special": lambda llm: llm.tokenize(b"<|user|>\nHi<|end|>", special=True),
    "detokenize": lambda llm: [llm.detokenize(llm.tokenize(t.encode())).decode() for t in (TEXT, UNICODE)],
    "detokenize, special": lambda llm: llm.detokenize(llm.tokenize(b"<|user|>Hi", special=True), special=True).decode(),
    "tokens bos, eos, nl": lambda llm: [llm.token_bos(), llm.token_eos(), llm.token_nl()],
    "n_ctx, n_embd, n_vocab": lambda llm: [llm.n_ctx(), llm.n_embd(), llm.n_vocab()],
    "metadata": lambda llm: llm.metadata,
    "completion, greedy": lambda llm: llm(TEXT, **GREEDY),
    "completion of token ids": lambda llm: llm.create_completion(llm.tokenize(TEXT.encode()), **GREEDY),
    "completion of the empty text": lambda llm: llm("", **GREEDY)["choices"][0]["text"][:20],
    "defaults: 16 tokens": lambda llm: [llm(TEXT)["usage"], llm(TEXT)["choices"][0]["finish_reason"]],
    "echo": lambda llm: llm(TEXT, echo=True, **GREEDY),
    "stop": lambda llm: llm(TEXT, stop=[" named", "."], **GREEDY)["choices"][0],
    "stop across tokens": lambda llm: llm(TEXT, stop="l named L", **GREEDY)["choices"][0],
    "until the context is full": lambda llm: [
        llm(TEXT, max_tokens=-1, temperature=0.0, logit_bias={llm.token_eos(): -100, 3: -100, 4: -100, 5: -100})[key]
        for key in ("usage",)
    ],
    "logprobs": lambda llm: llm(TEXT, logprobs=3, max_tokens=6, temperature=0.0),
    "logprobs, echo": lambda llm: llm(TEXT, logprobs=2, echo=True, max_tokens=3, temperature=0.0),
    "stream": lambda llm: drain(llm(TEXT, stream=True, **GREEDY)),
    "stream, stop": lambda llm: drain(llm(TEXT, stream=True, stop=["l named L"], **GREEDY)),
    "stream, logprobs": lambda llm: drain(llm(TEXT, stream=True, logprobs=2, max_tokens=6, temperature=0.0)),
    "logit_bias": lambda llm: llm(TEXT, logit_bias={token(llm, b" boy"): 50.0}, **GREEDY)["choices"],
    "logits_processor": lambda llm: llm(TEXT, logits_processor=no_comma(llm), **GREEDY)["choices"],
    "stopping_criteria": lambda llm: llm(TEXT, stopping_criteria=stop_at_20, **GREEDY),
    "repeat_penalty": lambda llm: llm(TEXT, repeat_penalty=1.3, **GREEDY)["choices"],
    "seed repeats": lambda llm: llm(TEXT, seed=3)["choices"] == llm(TEXT, seed=3)["choices"],
    "save_state, load_state": state_repeats,
    "generate": token_loop,
    "chat": lambda llm: llm.create_chat_completion(CHAT, **GREEDY),
    "chat, stream": lambda llm: drain(llm.create_chat_completion(CHAT, stream=True, **GREEDY)),
    "chat, logprobs": lambda llm: llm.create_chat_completion(CHAT, logprobs=True, top_logprobs=2, **GREEDY),
    "chat, system and turns": lambda llm: llm.create_chat_completion([*TURNS, *CHAT], **GREEDY),
    "embed, mean": lambda llm: embedder(llm, 1).embed("a little dog"),
    "embed, last, normalized": lambda llm: embedder(llm, 3).embed("a little dog", normalize=True),
    "embed, no pooling": lambda llm: embedder(llm, 0).embed("a little dog"),
    "create_embedding": lambda llm: embedder(llm, 1).create_embedding(["a cat", "a dog"]),
    "grammar": lambda llm: llm(TEXT, grammar=grammar(llm), **GREEDY),
    "response_format": lambda llm: json.loads(
        llm.create_chat_completion(CHAT, response_format={"type": "json_object", "schema": SCHEMA}, **GREEDY)[
            "choices"
        ][0]["message"]["content"]
    ),
    "tool call": lambda llm: call_of(llm.create_chat_completion(CHAT, tools=[TOOL], tool_choice=CHOICE, **GREEDY)),
    "error: prompt too long": lambda llm: error(lambda: llm("a b c d " * 200)),
    "error: no file": lambda llm: error(lambda: type(llm)("/nowhere/model.gguf", verbose=False)),
}

WITHOUT_WEIGHTS = {"tokenize", "detokenize", "tokens bos", "metadata"}


def run_side(side: str, model: str, vocab_only: bool) -> dict[str, Any]:
    """All cases in one library, or those that need no weights."""
    if side == "iqrun":
        from iqrun.compat import Llama
    else:
        from llama_cpp import Llama
    llm = Llama(model, n_ctx=256, n_threads=2, logits_all=True, vocab_only=vocab_only, verbose=False)
    names = [name for name in CASES if not vocab_only or name.split(",")[0] in WITHOUT_WEIGHTS]
    return {name: json.loads(json.dumps(CASES[name](llm), default=float)) for name in names}


def differences(ours: Any, theirs: Any, tolerance: float, path: str = "") -> list[str]:
    """Where two results differ, but for identifiers, times and the last digits of numbers."""
    if path.endswith(("/id", "/created")):
        return []
    if isinstance(ours, dict) and isinstance(theirs, dict):
        missing = [f"{path}/{key}: only one has it" for key in ours.keys() ^ theirs.keys()]
        shared = ours.keys() & theirs.keys()
        return missing + [d for key in shared for d in differences(ours[key], theirs[key], tolerance, f"{path}/{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            d
            for i, pair in enumerate(zip(ours, theirs, strict=True))
            for d in differences(*pair, tolerance, f"{path}/{i}")
        ]
    if isinstance(ours, float) and isinstance(theirs, (int, float)):
        return [] if abs(ours - theirs) <= tolerance else [f"{path}: {ours} and {theirs}"]
    return [] if ours == theirs else [f"{path}: {ours!r} and {theirs!r}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file that both can read")
    parser.add_argument("--peer", help="interpreter with llama-cpp-python")
    parser.add_argument("--tolerance", type=float, default=0.02, help="of numbers (default 0.02)")
    parser.add_argument("--vocab-only", action="store_true", help="the file holds a vocabulary alone")
    parser.add_argument("--side", choices=["iqrun", "llama_cpp"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        json.dump(run_side(args.side, args.model, args.vocab_only), sys.stdout)
        return
    results = []
    words = [__file__, args.model, *(["--vocab-only"] if args.vocab_only else [])]
    for python, side in ((sys.executable, "iqrun"), (args.peer, "llama_cpp")):
        done = subprocess.run([python, *words, "--side", side], stdout=subprocess.PIPE, check=True)
        results.append(json.loads(done.stdout))
    print("| call | same | difference |\n|---|---|---|")
    for name in results[0]:
        found = differences(results[0][name], results[1][name], args.tolerance)
        print(f"| {name} | {'no' if found else 'yes'} | {'; '.join(found[:3])[:300]} |")


if __name__ == "__main__":
    main()
