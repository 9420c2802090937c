"""Chat templates: what they write, how they fail, and that a hostile one can do no harm."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from iqrun.chat import template_limits
from iqrun.chat.template import CHATML, PLAIN, ChatTemplate
from iqrun.errors import TemplateError
from iqrun.gguf import GGUFFile
from iqrun.models.demo import model_path
from iqrun.tokenizer import Tokenizer
from tests.emulated import SLOWER
from tests.gguf_builder import CONTROL, NORMAL, STRING, UNKNOWN, kv
from tests.tokenizer_reference import write_vocabulary

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yo"},
    {"role": "user", "content": "Bye"},
]


def render(source: str, **options: object) -> str:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>").render(MESSAGES, **options)


def of_file(path: Path) -> ChatTemplate:
    with GGUFFile(path) as file:
        return ChatTemplate.from_metadata(file.metadata, Tokenizer.from_gguf(file))


def test_demo_model() -> None:
    """The packaged model's own template."""
    expected = "<s><|user|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Yo<|end|><|user|>Bye<|end|><|assistant|>"
    assert of_file(model_path()).render(MESSAGES) == expected


def test_without_generation_prompt() -> None:
    """The conversation alone, for training texts."""
    assert not of_file(model_path()).render(MESSAGES, add_generation_prompt=False).endswith("<|assistant|>")


def test_file_without_template(tmp_path: Path) -> None:
    """ChatML if its marks are in the vocabulary, else a plain style that stops at the next turn."""
    tokens, types = ["<unk>", "<s>", "a"], [UNKNOWN, CONTROL, NORMAL]
    plain = of_file(write_vocabulary(tmp_path / "a", "llama", tokens, types=types))
    assert plain.render(MESSAGES) == "<s>Be brief.\n\nuser: Hi\nassistant: Yo\nuser: Bye\nassistant:"
    assert "\nuser:" in plain.stop
    marks = [*tokens, "<|im_start|>", "<|im_end|>"]
    chatml = of_file(write_vocabulary(tmp_path / "b", "llama", marks, types=[*types, CONTROL, CONTROL]))
    assert chatml.render(MESSAGES[:2]).endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert chatml.stop == ()
    assert {plain.source, chatml.source} == {PLAIN, CHATML}


def test_file_with_a_broken_template(tmp_path: Path) -> None:
    """The error names the line."""
    extra = [kv("tokenizer.chat_template", STRING, "a\n{% if %}")]
    with pytest.raises(TemplateError, match="line 2"):
        of_file(write_vocabulary(tmp_path / "a", "llama", ["<unk>"], types=[UNKNOWN], extra=extra))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for m in messages %}\n  {% if loop.last %}\nlast\n  {% endif %}\n{% endfor %}\n", "last\n"),
        (
            "{% for m in messages %}{% if loop.index == 3 %}{% break %}{% endif %}{{ m.role }} {% endfor %}",
            "system user ",
        ),
        (
            "{% for m in messages %}{% if m.role != 'user' %}{% continue %}{% endif %}{{ m['content'] }}{% endfor %}",
            "HiBye",
        ),
        ("{{ {'a': 'é<', 'b': [1, none]} | tojson }}", '{"a": "é<", "b": [1, null]}'),
        ("{{ [1, 2] | tojson(indent=2) }}", "[\n  1,\n  2\n]"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "4"),
        ("{{ messages[1:][0]['content'] | trim | upper }}{{ '-' * 3 }}{{ 7 // 2 }}{{ 2 ** 3 }}", "HI---38"),
        ("{{ bos_token }}{{ eos_token }}{{ tools is none }}{{ undefined_thing is defined }}", "<s></s>TrueFalse"),
        ("{% macro turn(m) %}[{{ m.role }}]{% endmacro %}{{ turn(messages[0]) }}", "[system]"),
        ("{% generation %}x{% endgeneration %}", "x"),
        ("{% set t %}a{{ 1 }}{% endset %}{{ t ~ t }}", "a1a1"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(', ') }}", "Hi, Bye"),
        ("{{ '%s:%03d' % ('a', 5) }}{{ '{}={:.1f}'.format('b', 2) }}{{ 'a-b'.replace('-', '+') }}", "a:005b=2.0a+b"),
        ("{{ 'a,b'.split(',')[-1] }}{{ ','.join(['x', 'y']) }}{{ 'abc'[::-1] }}{{ 'x'.strip() }}", "bx,ycbax"),
        ("{{ loop_controls | default('none') }}{{ range(3) | list }}", "none[0, 1, 2]"),
    ],
)
def test_what_templates_use(source: str, text: str) -> None:
    """Everything that common templates are made of works."""
    assert render(source) == text


def test_time_and_variables() -> None:
    """Dates for system prompts, and the caller's own variables."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", render("{{ strftime_now('%Y-%m-%d') }}"))
    assert render("{{ enable_thinking }}", enable_thinking=False) == "False"


def test_messages_are_not_changed() -> None:
    """A template works on copies, and cannot change even those."""
    before = [dict(message) for message in MESSAGES]
    with pytest.raises(TemplateError, match="unsafe"):
        render("{{ messages[0].update({'content': 'x'}) }}")
    assert before == MESSAGES


def test_refusals_carry_the_templates_words() -> None:
    """`raise_exception` tells the user why."""
    with pytest.raises(TemplateError, match="line 2 of the chat template failed: roles must alternate"):
        render("\n{{ raise_exception('roles must alternate') }}")


def test_failures_name_the_line() -> None:
    """Also where it fails while running."""
    with pytest.raises(TemplateError, match=r"line 3 .*'nope' is undefined"):
        render("\n\n{{ nope.x }}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ messages.append(1) }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ self._TemplateReference__context.environment }}{{ self.__dict__ }}",
        "{{ (lipsum | attr('__globals__'))['os'] }}",
        "{{ raise_exception.__globals__['os'] }}",
        "{{ strftime_now.__code__.co_consts }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
    ],
)
def test_templates_cannot_reach_python(source: str) -> None:
    """What looks for a way out of the sandbox fails."""
    with pytest.raises(TemplateError):
        render(source)


DOUBLING = "{%% set ns = namespace(x=%s) %%}{%% for i in range(99) %%}%s{%% endfor %%}"
LONG = "{% set s = 'a' * 3000000 %}"


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in 'x' * 99999 %}{% for b in 'x' * 99999 %}{% endfor %}{% endfor %}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{% for i in range(90000) %}" + "x" * 100 + "{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m0() %}{% endmacro %}"
        + "".join(f"{{% macro m{i}() %}}{{{{ m{i - 1}() }}}}{{{{ m{i - 1}() }}}}{{% endmacro %}}" for i in range(1, 40))
        + "{{ m39() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        DOUBLING % ("'aaaa'", "{% set ns.x = ns.x ~ ns.x %}"),
        DOUBLING % ("'aaaa'", "{% set ns.x = ns.x + ns.x %}"),
        DOUBLING % ("'aaaa'", "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"),
        DOUBLING % ("[1]", "{% set ns.x = ns.x + ns.x %}"),
        DOUBLING % ("[1]", "{% set ns.x = [ns.x, ns.x] %}{% set y = ns.x | string %}"),
        DOUBLING % ("7", "{% set ns.x = ns.x * ns.x %}"),
        DOUBLING % ("'ab'", "{% set ns.x = ns.x | replace('a', ns.x) %}"),
        "{{ 'a' * 10 ** 10 }}{{ 10 ** 10 * 'a' }}",
        "{{ [0] * 10 ** 10 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 'a'.center(10 ** 10) }}",
        "{{ 'a'.ljust(10 ** 10) }}",
        "{{ 'a' | center(10 ** 10) }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ '%*d' % (10 ** 10, 1) }}",
        "{{ '{:10000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10 ** 10) }}",
        "{{ [1] | tojson(indent=10 ** 10) }}",
        LONG + "{{ s.replace('a', s) }}",
        LONG + "{{ s | replace('', s) }}",
        LONG + "{{ s.join(range(99999) | map('string')) }}",
        LONG + "{{ ([s] * 1000) | join }}",
        LONG + "{{ [s] * 1000 }}",
        LONG + "{{ range(99999) | join(s) }}",
        "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}",
        "{{ 1" + " + 1" * 20000 + " }}",
        "{% if 1 %}" * 200 + "{% endif %}" * 200,
        "x" * (template_limits.MAX_SOURCE + 1),
    ],
)
def test_templates_cannot_keep_the_machine_busy(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endless loops, exploding texts and giant widths end soon, with an error and without much memory."""
    monkeypatch.setattr(template_limits, "MAX_SECONDS", 1.0)
    start = time.process_time()
    with pytest.raises(TemplateError):
        render(source)
    assert time.process_time() - start < 4 * SLOWER * template_limits.MAX_SECONDS


def test_slow_steps_end_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps that each take long are stopped by the clock."""
    monkeypatch.setattr(template_limits, "MAX_SECONDS", 0.2)
    with pytest.raises(TemplateError, match="seconds"):
        render(LONG + "{% for i in range(90000) %}{% set q = s[::-1] %}{% endfor %}")


def test_long_conversations_are_fine() -> None:
    """The limits are far from what a real conversation needs."""
    template = of_file(model_path())
    text = template.render([{"role": "user", "content": "word " * 200}] * 2000)
    assert text.count("<|user|>") == 2000
