import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqrun.errors import ContextFullError
from iqrun.generation.generate import Step, StopFinder, generate
from iqrun.sampling import SamplingOptions
from tests.emulated import n_random

GREEDY = SamplingOptions(temperature=0)
END = 0


class ScriptedSession:
    """Whatever it is given, its logits ask for the next token of a script."""

    def __init__(self, script: Sequence[int], n_ctx: int = 100, n_vocab: int = 300) -> None:
        self.script, self.n_ctx, self.n_vocab = list(script), n_ctx, n_vocab
        self.tokens: list[int] = []
        self.n_prompt = 0

    def __len__(self) -> int:
        return len(self.tokens)

    def recent(self, n: int) -> list[int]:
        return self.tokens[-n:] if n else []

    def evaluate(self, ids: Sequence[int]) -> np.ndarray:
        if len(self.tokens) + len(ids) > self.n_ctx:
            raise ContextFullError("full")
        self.n_prompt = self.n_prompt or len(ids)
        self.tokens += ids
        logits = np.zeros(self.n_vocab, np.float32)
        logits[self.script[len(self.tokens) - self.n_prompt]] = 9.0
        return logits


class ByteTokenizer:
    """Token i is byte i; token 0 ends."""

    end_ids = frozenset({END})

    class Decoder:
        def __init__(self) -> None:
            import codecs

            self.utf8 = codecs.getincrementaldecoder("utf-8")("replace")

        def feed(self, token_id: int) -> str:
            return self.utf8.decode(bytes([token_id]))

        def flush(self) -> str:
            return self.utf8.decode(b"", final=True)

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id])

    def stream_decoder(self, *, at_start: bool = False) -> "ByteTokenizer.Decoder":
        return self.Decoder()


def run(script: bytes, *, n_ctx: int = 100, **options: object) -> list[Step]:
    session = ScriptedSession(list(script) + [1] * 50, n_ctx)
    return list(generate(session, ByteTokenizer(), [5, 6], sampling=GREEDY, **options))  # type: ignore[arg-type]


def text_of(steps: Sequence[Step]) -> str:
    return "".join(step.text for step in steps)


def test_end_token_ends_and_is_not_text() -> None:
    """The end token is reported with reason "end", and its text is not part of the answer."""
    steps = run(b"hi\0")
    assert text_of(steps) == "hi"
    assert [step.token_id for step in steps] == [ord("h"), ord("i"), END]
    assert [step.finish_reason for step in steps] == [None, None, "end"]


def test_max_tokens_ends_with_reason_length() -> None:
    """Exactly so many tokens are drawn; the timings count them."""
    steps = run(b"abcdef", max_tokens=3)
    assert text_of(steps) == "abc"
    assert steps[-1].finish_reason == "length"
    assert steps[-1].timings is not None
    assert (steps[-1].timings.n_prompt, steps[-1].timings.n_generated) == (2, 3)


def test_max_tokens_zero_evaluates_the_prompt_only() -> None:
    """No token is drawn, and there is still a last step."""
    steps = run(b"abc", max_tokens=0)
    assert [(step.text, step.token_id, step.finish_reason) for step in steps] == [("", None, "length")]


def test_full_context_ends_with_reason_context() -> None:
    """The last token drawn need not fit: it is not evaluated."""
    steps = run(b"abcdefgh", n_ctx=5)
    assert text_of(steps) == "abcd"
    assert steps[-1].finish_reason == "context"


def test_prompt_that_does_not_fit_raises() -> None:
    """A prompt larger than the context is the caller's problem, before any token."""
    with pytest.raises(ContextFullError):
        run(b"abc", n_ctx=1)


def test_last_token_drawn_is_not_evaluated() -> None:
    """Every token but the last is in the session afterwards."""
    session = ScriptedSession(b"abcdef")
    list(generate(session, ByteTokenizer(), [5], sampling=GREEDY, max_tokens=3))
    assert session.tokens == [5, ord("a"), ord("b")]


def test_character_is_never_cut() -> None:
    """The bytes of one character come out together; what stays incomplete at the end becomes U+FFFD."""
    steps = run("aé€".encode() + b"\xe2\x82\0")
    assert [step.text for step in steps] == ["a", "", "é", "", "", "€", "", "", "\ufffd"]


@pytest.mark.parametrize("stop", ["\n\n", ["zzz", "\n\n"], ["\n\n", "\n\nB"]])
def test_stop_string_across_tokens_is_cut_off(stop: object) -> None:
    """The text ends before the stop string, though each half came in its own token."""
    steps = run(b"one\n\nB\0", stop=stop)
    assert text_of(steps) == "one"
    assert steps[-1].finish_reason == "stop"
    assert steps[-1].token_id == ord("\n")


def test_text_held_back_comes_out_when_it_is_no_stop_string() -> None:
    """A newline is held back while "\\n\\n" is possible, and follows with the next token."""
    steps = run(b"a\nb\0", stop="\n\n")
    assert [step.text for step in steps] == ["a", "", "\nb", ""]


def test_text_held_back_at_the_end_is_not_lost() -> None:
    """The beginning of a stop string at the end of the answer is text."""
    assert text_of(run(b"a\n\0", stop="\n\n")) == "a\n"
    assert text_of(run(b"a\n", stop="\n\n", max_tokens=2)) == "a\n"


def test_stop_string_in_the_last_flush() -> None:
    """A stop string that is completed by the decoder's last character still cuts the text."""
    assert text_of(run(b"ab\xe2\0", stop="b\ufffd")) == "a"


def test_logprobs_are_the_models() -> None:
    """9 for the scripted token and 0 for the 299 others: each step tells log-softmax of them, best first."""
    total = math.log(math.exp(9) + 299)
    biased = SamplingOptions(temperature=0, logit_bias={ord("z"): 99.0})
    session = ScriptedSession(b"ab")
    steps = list(generate(session, ByteTokenizer(), [5], sampling=biased, max_tokens=2, logprobs=2))
    for step, letter in zip(steps, b"ab", strict=True):
        assert step.token_id == ord("z") and step.logprob == pytest.approx(-total, rel=1e-6)
        assert [found.token_id for found in step.top_logprobs] == [letter, 0]
        assert [found.logprob for found in step.top_logprobs] == pytest.approx([9 - total, -total], rel=1e-6)
    (step,) = generate(ScriptedSession(b"a"), ByteTokenizer(), [5], sampling=GREEDY, max_tokens=1, logprobs=0)
    assert step.logprob == pytest.approx(9 - total, rel=1e-5) and step.top_logprobs == ()
    assert run(b"a\0")[0].logprob is None


def test_ignore_eos_goes_on() -> None:
    """The end token is never drawn: the text ends with max_tokens."""
    options = SamplingOptions(temperature=0, ignore_eos=True)
    steps = list(generate(ScriptedSession(b"a\0b"), ByteTokenizer(), [5], sampling=options, max_tokens=3))
    assert END not in [step.token_id for step in steps] and steps[-1].finish_reason == "length"


def test_options_reach_the_engine() -> None:
    """With the demo model: DRY breaks the repetition that a prompt of repetitions asks for, and the log-probabilities
    are those of a distribution, with the greedy choice first.
    """
    import iqrun
    from iqrun.models.demo import model_path

    prompt = "The cat ran and ran. " * 6
    with iqrun.load(model_path(), n_threads=1) as model:
        plain = model.complete(prompt, max_tokens=12, temperature=0)
        dried = model.complete(prompt, max_tokens=12, temperature=0, dry_multiplier=4.0, dry_penalty_last_n=-1)
        step = next(model.generate(prompt, sampling=GREEDY, max_tokens=2, logprobs=model.n_vocab))
    assert plain.endswith(". The cat") and not dried.endswith("The cat")
    assert step.token_id == step.top_logprobs[0].token_id and step.logprob == step.top_logprobs[0].logprob
    assert sum(math.exp(found.logprob) for found in step.top_logprobs) == pytest.approx(1.0, abs=1e-4)


def test_processors_see_prompt_and_answer() -> None:
    """All tokens that were evaluated so far."""
    seen = []
    options = SamplingOptions(temperature=0, processors=[lambda tokens, logits: seen.append(list(tokens)) or logits])
    list(generate(ScriptedSession(b"abc"), ByteTokenizer(), [5, 6], sampling=options, max_tokens=2))
    assert seen == [[5, 6], [5, 6, ord("a")]]


def test_wrong_arguments_are_refused_at_once() -> None:
    """Before the prompt is evaluated: the generator need not be started."""
    session = ScriptedSession(b"a")
    with pytest.raises(ValueError, match="stop"):
        generate(session, ByteTokenizer(), [1], stop=["a", ""])
    with pytest.raises(ValueError, match="max_tokens"):
        generate(session, ByteTokenizer(), [1], max_tokens=-1)
    with pytest.raises(ValueError, match="logprobs"):
        generate(session, ByteTokenizer(), [1], logprobs=-1)
    assert session.tokens == []


def test_timings_leave_out_the_callers_time() -> None:
    """Time that passes while the caller looks at a step is not decode time."""
    import time

    steps: Iterator[Step] = generate(ScriptedSession(b"ab\0"), ByteTokenizer(), [1], sampling=GREEDY)
    collected = []
    for step in steps:
        collected.append(step)
        time.sleep(0.05)
    assert collected[-1].timings is not None
    assert collected[-1].timings.generate_seconds < 0.05 * (len(collected) - 1)


@settings(max_examples=n_random(100), deadline=None)
@given(st.lists(st.text("ab", max_size=4)), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_stop_finder_equals_search_in_the_whole_text(pieces: list[str], stops: list[str]) -> None:
    """However the text is cut into pieces: what comes out is the text up to the first end of a stop string's match.

    The finder decides with each piece, so of two stop strings the one that is complete first wins.
    """
    finder = StopFinder(stops)
    out = "".join(finder.feed(piece) for piece in pieces) + finder.finish()
    expected, text = "", ""
    for piece in pieces:
        text += piece
        places = [text.find(stop) for stop in stops if stop in text]
        if places:
            expected = text[: min(places)]
            break
    else:
        expected = text
    assert out == expected
