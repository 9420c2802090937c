"""How each family of byte-level BPE models splits text before merging, by the name in ``tokenizer.ggml.pre``.

The patterns are those of the models' own ``tokenizer.json``. Each one is applied to the pieces that the one before it
left; a match becomes a piece of its own, and so does the text between two matches.
"""

from __future__ import annotations

from dataclasses import dataclass

from iqrun.errors import TokenizerError, shown


@dataclass(frozen=True)
class PreTokenizer:
    """One family's rules.

    Attributes:
        patterns: regular expressions, applied in turn.
        whole_words: a piece that is a token as it stands is not put together by merges.
        add_bos: whether text begins with BOS where the file does not say.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    add_bos: bool = False


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_DIGIT = r"\p{N}"
_UP_TO_3_DIGITS = r"\p{N}{1,3}"
_THREE_DIGITS = r"[0-9][0-9][0-9]"
_CJK = "[一-龥ࠀ-一가-퟿]+"

# Words that end in lower case, then words in upper case; letters without case belong to both.
_UPPER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SYMBOLS_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"

# DeepSeek LLM lists the letters that have case, as its Unicode version knew them.
_CASED = (
    r"A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}"
    r"\x{370}-\x{373}\x{376}-\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}"
    r"\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}"
    r"\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}"
    r"\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}"
    r"\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}"
    r"\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}"
    r"\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}"
    r"\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}-\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}"
    r"\x{2CEB}-\x{2CEE}\x{2CF2}-\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}"
    r"\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}"
    r"\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}"
    r"\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}"
)
_DEEPSEEK3_WORDS = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*"
)


def _either(*patterns: str) -> str:
    return "|".join(patterns)


_LLAMA3 = _either(_CONTRACTION, _WORD, _UP_TO_3_DIGITS, _SYMBOLS, _SPACES)
_QWEN2 = _either(_CONTRACTION, _WORD, _DIGIT, _SYMBOLS, _SPACES)
_QWEN35 = _either(_CONTRACTION, r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+", _DIGIT, r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*", _SPACES)
_SEED_CODER = _either(_CONTRACTION, _WORD, _DIGIT, r" ?[^\s\p{L}\p{N}\r\n]+", _SPACES)
_BAILING = _either(
    r"'(?i:[sdmt]|ll|ve|re)",
    r"[^\r\n\p{L}\p{N}]?+\p{L}+",
    _DIGIT,
    r" ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
)
_GPT4O = _either(
    f"{_UPPER}*{_LOWER}+{_CONTRACTION}?", f"{_UPPER}+{_LOWER}*{_CONTRACTION}?", _UP_TO_3_DIGITS, _SYMBOLS_SLASH, _SPACES
)
_TEKKEN = _either(f"{_UPPER}*{_LOWER}+", f"{_UPPER}+{_LOWER}*", _DIGIT, _SYMBOLS_SLASH, _SPACES)
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"

# family: its rules, and the names under which files ask for them
_FAMILIES: tuple[tuple[PreTokenizer, str], ...] = (
    (PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", _THREE_DIGITS)), "default"),
    (
        PreTokenizer((_GPT2,)),
        "gpt-2 phi-2 mpt olmo jais trillion granite-docling gigachat a.x-4.0 mellum exaone4 roberta-bpe modern-bert "
        "jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code",
    ),
    (PreTokenizer((_DIGIT, _GPT2)), "starcoder refact command-r smollm codeshell exaone minerva-7b"),
    (PreTokenizer((_LLAMA3,), whole_words=True, add_bos=True), "llama3 llama-v3 llama-bpe falcon3 falcon-h1 lfm2"),
    (PreTokenizer((_LLAMA3,)), "dbrx smaug-bpe chatglm-bpe glm4"),
    (PreTokenizer((_QWEN2,)), "qwen2 deepseek-r1-qwen stablelm2 hunyuan megrez solar-open grok-2"),
    (PreTokenizer((_QWEN35,)), "qwen35"),
    (PreTokenizer((_SEED_CODER,)), "seed-coder"),
    (PreTokenizer((_BAILING,)), "bailingmoe bailingmoe2 llada-moe"),
    (PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, _THREE_DIGITS)), "falcon"),
    (
        PreTokenizer(
            (r"[\r\n]", rf"\s?[{_CASED}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"(?<!\s)\s+$", _CJK, r"\p{N}+")
        ),
        "deepseek-llm",
    ),
    (PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, _DIGIT)), "deepseek-coder"),
    (
        PreTokenizer((_UP_TO_3_DIGITS, "[一-龥぀-ゟ゠-ヿ]+", _either(_DEEPSEEK3_WORDS, _SPACES))),
        "deepseek-v3 hunyuan-dense joyai-llm",
    ),
    (PreTokenizer((_TEKKEN,), whole_words=True, add_bos=True), "tekken"),
    (PreTokenizer((_GPT4O,)), "gpt-4o llama4 kanana2 minimax-m2"),
    (PreTokenizer((_BLOOM,)), "bloom poro-chat gpt3-finnish"),
    (PreTokenizer((_BLOOM, _DIGIT)), "viking"),
)
PRETOKENIZERS = {name: rules for rules, names in _FAMILIES for name in names.split()}


def find_pretokenizer(name: str | None) -> PreTokenizer:
    """The rules of a family; ``default`` for None.

    Raises:
        TokenizerError: iqrun does not know the name.
    """
    found = PRETOKENIZERS.get("default" if name is None else name)
    if found is None:
        known = ", ".join(sorted(PRETOKENIZERS))
        raise TokenizerError(f"pre-tokenizer {shown(name)} (tokenizer.ggml.pre) is not supported; iqrun knows: {known}")
    return found
