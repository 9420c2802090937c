"""The examples run as their first lines say, on the model that comes with iqrun; the window without a screen."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import iqrun

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
DEMO = ROOT / "models" / "demo" / "stories-13m-f16.gguf"


def run(name: str, *words: str, stdin: str = "") -> str:
    """What an example prints; it must end well and say nothing on stderr."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def load(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_tested_here() -> None:
    """A new one needs a test of its own."""
    tested = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in tested or f'load("{path.stem}")' in tested, path.name


def test_button() -> None:
    """A story for each push, spoken sentence by sentence, each as soon as it is complete."""
    lines = run("button.py", str(DEMO), stdin="\n\n").splitlines()
    assert len(lines) >= 4
    assert all(line == line.strip() and line for line in lines)
    taken: list[str] = []
    pieces = (taken.append(piece) or piece for piece in ["A fox", " ran. It", " was", " red! ", "Then"])
    found = load("button").sentences(pieces)
    assert next(found) == "A fox ran."
    assert len(taken) == 2
    assert list(found) == ["It was red!", "Then"]


def test_chat() -> None:
    """Two questions, each with an answer."""
    lines = run("chat.py", str(DEMO)).splitlines()
    questions = [index for index, line in enumerate(lines) if line.startswith("> ")]
    assert len(questions) == 2
    assert all(len(lines[index + 1]) > 20 for index in questions)


def test_complete() -> None:
    """The continuation of a text."""
    assert len(run("complete.py", str(DEMO), "Once upon a time")) > 100


def test_quantize_and_compare(tmp_path: Path) -> None:
    """A line per type, with its size and divergence."""
    story = (ROOT / "tests" / "data" / "story.txt").read_text(encoding="utf-8")
    text = tmp_path / "text.txt"
    text.write_text(story + story, encoding="utf-8")
    lines = run("quantize_and_compare.py", str(DEMO), str(text), "IQ4_K").splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("IQ4_K")
    assert "mean KL divergence" in lines[0]


def test_score_choices() -> None:
    """Milk is what a cat drinks."""
    lines = run("score_choices.py", str(DEMO), "The cat drank the", " milk", " house").splitlines()
    scores = {
        line.split()[1].strip("'"): float(line.split()[0]) for line in (line.replace("' ", "'") for line in lines)
    }
    assert scores["milk"] > scores["house"]


def test_batch_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """Every row gets an answer; what is there stays, and the second run writes only the rest."""
    source, target = tmp_path / "questions.csv", tmp_path / "answers.csv"
    source.write_text('animal,note\ncat,"a, b"\ndog,\nfox,x\n', encoding="utf-8")
    words = ["--template", "Tell me a story about a {animal}.", "--max-tokens", "12"]
    assert run("batch_csv.py", str(DEMO), str(source), str(target), *words).startswith("3 answers")
    whole = target.read_text(encoding="utf-8")
    rows = list(csv.DictReader(whole.splitlines()))
    assert [(row["animal"], row["note"]) for row in rows] == [("cat", "a, b"), ("dog", ""), ("fox", "x")]
    assert all(len(row["answer"]) > 10 for row in rows)
    target.write_text("".join(whole.splitlines(keepends=True)[:2]), encoding="utf-8")
    assert run("batch_csv.py", str(DEMO), str(source), str(target), *words).startswith("2 answers")
    assert list(csv.DictReader(target.read_text(encoding="utf-8").splitlines())) == rows


def test_bot_answers_each_person() -> None:
    """Answers carry the name of the one who asked, in the order of the questions; a conversation can be forgotten."""
    said = run("bot.py", str(DEMO), stdin="ann: Tell me a story.\nbob: Tell me about a cat.\nann: !forget\nnonsense\n")
    starts = [line.split()[0] for line in said.splitlines() if line.startswith("@")]
    assert starts == ["@ann", "@bob", "@ann"]
    assert "@ann forgotten." in said


def test_bot_drops_the_oldest_conversation() -> None:
    """Memory is bounded: the person who was silent longest begins anew."""
    bot_file = load("bot")
    with iqrun.load(DEMO, n_ctx=64, n_threads=1) as model:
        bot = bot_file.Bot(model, None)
        first = bot._chat("0")
        for index in range(1, bot_file.MAX_PEOPLE + 1):
            bot._chat(str(index))
        assert len(bot._chats) == bot_file.MAX_PEOPLE
        assert bot._chat("0") is not first


def test_llama_cpp_python() -> None:
    """Three ways to ask, three answers."""
    lines = [line for line in run("llama_cpp_python.py", str(DEMO)).splitlines() if line.strip()]
    assert lines[0].startswith("Once upon a time, there was")
    assert len(lines) >= 3


def test_window_writer_streams_and_stops() -> None:
    """The part behind the window: pieces arrive while the thread writes, `stop` ends it, errors become text."""
    window = load("window")
    with iqrun.load(DEMO, n_threads=2) as model:
        writer = window.Writer(model.chat())
        writer.ask("Tell me a story about a cat.")
        assert writer.busy
        writer.ask("This one is not heard.")
        writer._thread.join(60)
        answer = writer.fetch()
        assert len(answer) > 20
        assert answer.endswith("\n\n")
        assert not writer.busy
        writer.ask("Tell me a story about a dog.")
        writer.close()
        assert len(writer.fetch()) < 60  # the first word or two
        writer._chat.close()
        writer.ask("Hello?")
        writer.close()
        assert "closed" in writer.fetch()


class FakeTk:
    """Stands for tkinter: records what is inserted, keeps the callbacks."""

    WORD = BOTH = LEFT = X = "x"

    def __init__(self) -> None:
        self.shown = ""
        self.typed = ""
        self.commands: dict[str, Callable[[], None]] = {}
        self.later: list[Callable[[], None]] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tk, scrolled = ModuleType("tkinter"), ModuleType("tkinter.scrolledtext")
        for name in ("WORD", "BOTH", "LEFT", "X"):
            setattr(tk, name, "x")
        tk.Entry = tk.Button = scrolled.ScrolledText = self.widget  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "tkinter", tk)
        monkeypatch.setitem(sys.modules, "tkinter.scrolledtext", scrolled)

    def widget(self, _root: Any, text: str = "", command: Any = None, **_: Any) -> Any:
        if command is not None:
            self.commands[text] = command
        return self

    def insert(self, _where: str, text: str) -> None:
        self.shown += text

    def get(self) -> str:
        return self.typed

    def after(self, _ms: int, callback: Callable[[], None]) -> None:
        self.later.append(callback)

    def __getattr__(self, _name: str) -> Any:
        return lambda *_, **__: None


def test_window_shows_question_and_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a screen that is not there: Send asks, polling shows, the line is read once."""
    window = load("window")
    screen = FakeTk()
    screen.install(monkeypatch)
    with iqrun.load(DEMO, n_threads=2) as model:
        writer = window.Writer(model.chat())
        shown = window.Window(screen, writer)
        screen.typed = "Tell me a story."
        screen.commands["Send"]()
        writer._thread.join(60)
        screen.later.pop()()
        assert screen.shown.startswith("> Tell me a story.\n")
        assert len(screen.shown) > 60
        shown.quit()
