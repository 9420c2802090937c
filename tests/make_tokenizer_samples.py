"""Cuts small samples out of real byte-level BPE vocabularies: the tokens and merges that some texts need.

    python -m tests.make_tokenizer_samples FOLDER   # with ggml-vocab-{llama-bpe,qwen2,gpt-2}.gguf

A sample gives the same tokens for its texts as the whole vocabulary, because it holds every merge that was used, in the
order of the ranks. Run it only with an iqrun that reproduces all cases of the whole vocabularies (test_tokenizer_bpe.py
checks them when the folder is there).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from iqrun.tokenizer import Tokenizer
from iqrun.tokenizer.bpe import BPETokenizer, _pre_tokenizer
from tests.tokenizer_reference import DATA, bpe

TEXTS = (
    "",
    " ",
    "  ",
    "\n",
    "\n\n\n",
    "\t \n \t",
    "Hello world",
    " Hello  world ",
    "Hello, y'all! HE'LL WE'VE I'm you're 'tis",
    "The year 2024 has 365 days; 1000000 is 10^6, 3.14159 is not 22/7.",
    "def f(x):\n    return x ** 2  # square\n\n\tprint(f(12345))\n",
    "Äpfel, Ünïcödé, naïve café, Straße",
    "Привет, мир! Γειά σου Κόσμε",
    "你好，世界！今天是2024年。 日本語のテキスト 한국어",
    "🚀🦙 😶‍🌫️ ✅ emoji 👩‍👩‍👧",
    "!!!???...---===```''''",
    "a\u0301 e\u0308 (combining) \u00a0nbsp\u2003em space",
    "snake_case CamelCase HTTPServer <b>bold</b> https://example.org/?q=1&r=2",
)


def make(folder: Path, name: str) -> None:
    """Writes one sample."""
    tokenizer = Tokenizer.from_gguf(folder / f"ggml-vocab-{name}.gguf")
    assert isinstance(tokenizer, BPETokenizer)
    vocab = tokenizer._vocab
    pairs = [tuple(pair.split(" ", 1)) for pair in vocab.merges]
    ranks = {pair: rank for rank, pair in enumerate(pairs)}
    used: set[tuple[str, str]] = set()
    needed: set[str] = set()
    split = _pre_tokenizer(tokenizer._rules)
    for text in TEXTS:
        for word, _ in split.pre_tokenize_str(text):
            whole = tokenizer._rules.whole_words and word in vocab.ids
            parts = [word] if whole else bpe(list(word), ranks, used)
            needed |= {*word, *parts}
    kept = sorted(used, key=ranks.__getitem__)
    needed |= {token for a, b in kept for token in (a, b, a + b)}
    old_ids = sorted({vocab.ids[token] for token in needed} | set(tokenizer.end_ids))
    new_id = {old: new for new, old in enumerate(old_ids)}
    sample = {
        "pre": vocab.pre,
        "tokens": [vocab.texts[i] for i in old_ids],
        "types": [vocab.types[i] for i in old_ids],
        "merges": [" ".join(pair) for pair in kept],
        "cases": [[text, [new_id[i] for i in tokenizer.encode(text, add_special=False)]] for text in TEXTS],
    }
    path = DATA / f"tokenizer_{name}.json"
    path.write_text(json.dumps(sample, ensure_ascii=True), encoding="utf-8")


if __name__ == "__main__":
    for vocabulary in ("llama-bpe", "qwen2", "gpt-2"):
        make(Path(sys.argv[1]), vocabulary)
