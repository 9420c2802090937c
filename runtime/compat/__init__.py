"""The face of llama-cpp-python, and that of the openai package, over an iqrun model.

    from iqrun.compat import Llama

    llm = Llama("model-iq3k.gguf", n_ctx=2048)
    print(llm("Q: What is a fox? A:", max_tokens=32, stop=["Q:"])["choices"][0]["text"])

Arguments, defaults, dictionaries and kinds of errors are those of llama-cpp-python 0.3. What has no meaning here, such
as GPU layers, is ignored; what would change the answer and is not there raises an error that says so. Programs that
start with iqrun are better served by `iqrun.load`.
"""

from iqrun.compat.arguments import LlamaPromptLookupDecoding
from iqrun.compat.cache import LlamaRAMCache
from iqrun.compat.callbacks import LogitsProcessorList, MinTokensLogitsProcessor, StoppingCriteriaList
from iqrun.compat.grammar import LlamaGrammar
from iqrun.compat.llama import Llama
from iqrun.compat.openai_client import OpenAI
from iqrun.compat.state import LlamaState
from iqrun.compat.tokenizer import LlamaTokenizer

__all__ = [
    "Llama",
    "LlamaGrammar",
    "LlamaPromptLookupDecoding",
    "LlamaRAMCache",
    "LlamaState",
    "LlamaTokenizer",
    "LogitsProcessorList",
    "MinTokensLogitsProcessor",
    "OpenAI",
    "StoppingCriteriaList",
]
