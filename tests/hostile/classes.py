"""The cases of the generator by class, and their results: ``python -m tests.hostile.classes`` (docs/safety.md)."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from tests.gguf_builder import tiny_llama
from tests.hostile.breaker import Case, broken
from tests.hostile.runner import check, run_cases
from tests.hostile.test_broken_files import small_model

_OF_TENSOR = {"length": "S3", "text": "S3", "n_dims": "S5", "dim": "S5", "type": "S6", "offset": "S8", "dropped": "S14"}
_OF_KEY = {"length": "S3", "text": "S3", "type": "S4", "item": "S4", "count": "S4"}


def class_of(case: Case) -> str:
    """The number of its class, as in the table of the docs."""
    owner, _, what = case.name.partition(": ")
    word = what.split(" ")[0]
    if case.name.startswith("cut at"):
        return "cut"
    if is_of_experts(case):
        return "experts"
    if word == "doubled":
        return "S11"
    if owner == "file":
        return "S1" if word in ("magic", "version") else "S2"
    if owner.endswith((".weight", ".bias")):
        return _OF_TENSOR[word]
    if word in _OF_KEY:
        return _OF_KEY[word]
    if owner == "tokenizer.chat_template":
        return "S15"
    if owner.startswith("tokenizer."):
        return "S12" if word in ("as", "dropped") else "S13"
    return "S14"


def is_of_experts(case: Case) -> bool:
    """Whether a key or tensor of experts was broken."""
    return "expert" in case.owner or "_exps" in case.owner or "ffn_gate_inp" in case.owner


def main() -> None:
    """Runs the cases of a model, and those of experts, and prints a line for each class."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    with tempfile.TemporaryDirectory() as folder:
        whole = small_model(Path(folder), "llama")
        path = Path(folder) / "experts"
        experts = tiny_llama(path, n_embd=16, n_head=2, n_head_kv=1, n_ff=16, n_layer=1, n_vocab=300, n_expert=3)
        data = experts.read_bytes()
        runs = [("model", whole, broken(whole)), ("streamed", data, filter(is_of_experts, broken(data)))]
        for task, good, cases in runs:
            for report in run_cases(task, good, cases):
                check(report)
                if report.case.data != good:
                    found[class_of(report.case)]["runs" if report.outcome == "ok" else "refused"] += 1
    for name in sorted(found, key=lambda name: (len(name), name)):
        counts = found[name]
        print(f"{name:8} {counts.total():5} cases: {counts['refused']:5} refused, {counts['runs']:4} run")


if __name__ == "__main__":
    main()
