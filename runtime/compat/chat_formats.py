"""Chat templates by the names that llama-cpp-python's `chat_format` knows, as the models' authors describe them.

A file of today brings its own template; these are for files that have none, or a wrong one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from iqrun.chat.template import CHATML


class NamedFormat(NamedTuple):
    """A Jinja template, and texts that end an answer where the vocabulary has no token for it."""

    template: str
    stop: tuple[str, ...] = ()


_SYSTEM_FIRST = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
)
_LLAMA_2 = _SYSTEM_FIRST + (
    "{% for m in turns %}{% if m.role == 'user' %}{{ bos_token }}[INST] "
    "{% if loop.first and system %}<<SYS>>\n{{ system }}\n<</SYS>>\n\n{% endif %}{{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
_LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_MISTRAL = _SYSTEM_FIRST + (
    "{{ bos_token }}{% for m in turns %}{% if m.role == 'user' %}[INST] "
    "{% if loop.first and system %}{{ system }}\n\n{% endif %}{{ m.content }} [/INST]"
    "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
_GEMMA = _SYSTEM_FIRST + (
    "{{ bos_token }}{% for m in turns %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{% if loop.first and system %}{{ system }}\n\n{% endif %}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_VICUNA = _SYSTEM_FIRST + (
    "{{ system or 'A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user\\'s questions.' }}"
    "{% for m in turns %}{% if m.role == 'user' %} USER: {{ m.content }}"
    "{% else %} ASSISTANT: {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)

FORMATS: Mapping[str, NamedFormat] = {
    "chatml": NamedFormat(CHATML, ("<|im_end|>",)),
    "gemma": NamedFormat(_GEMMA, ("<end_of_turn>",)),
    "llama-2": NamedFormat(_LLAMA_2),
    "llama-3": NamedFormat(_LLAMA_3, ("<|eot_id|>",)),
    "mistral-instruct": NamedFormat(_MISTRAL),
    "vicuna": NamedFormat(_VICUNA, ("\nUSER:", "USER:")),
    "zephyr": NamedFormat(_ZEPHYR),
}
OWN = "chat_template.default"  # llama-cpp-python's name for the template in the file
