"""Answers every row of a CSV file; a run that was stopped goes on where it was.

    python examples/batch_csv.py model.gguf questions.csv answers.csv --template "Tell me a story about {animal}."

The template names columns of the input; the output has all of them and one more, ``answer``.
"""

import argparse
import csv
from pathlib import Path

import iqrun


def rows_done(path: Path) -> int:
    """How many answers are in the file already."""
    if not path.exists():
        return 0
    with path.open(newline="", encoding="utf-8") as file:
        return sum(1 for _ in csv.DictReader(file))


def answer_all(model: iqrun.Model, source: Path, target: Path, template: str, max_tokens: int) -> int:
    """Writes the answers that are missing, each as soon as it is there; returns how many."""
    done = rows_done(target)
    with source.open(newline="", encoding="utf-8") as read, target.open("a", newline="", encoding="utf-8") as write:
        reader = csv.DictReader(read)
        writer = csv.DictWriter(write, [*(reader.fieldnames or ()), "answer"])
        if not done:
            writer.writeheader()
        chat = model.chat()
        n_answers = 0
        for row in list(reader)[done:]:
            chat.clear()  # each row is a conversation of its own; what they begin with alike is not read again
            answer = "".join(chat.send(template.format(**row), max_tokens=max_tokens, seed=1))
            writer.writerow({**row, "answer": answer.strip()})
            write.flush()
            n_answers += 1
    return n_answers


def main() -> None:
    parser = argparse.ArgumentParser(description="answers every row of a CSV file")
    parser.add_argument("model")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--template", required=True, help="a question with {column} in it")
    parser.add_argument("--max-tokens", type=int, default=128)
    args = parser.parse_args()
    with iqrun.load(args.model) as model:
        n_answers = answer_all(model, args.source, args.target, args.template, args.max_tokens)
    print(f"{n_answers} answers written to {args.target}")


if __name__ == "__main__":
    main()
