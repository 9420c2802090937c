"""A chat in a window (Tk): the model writes in a thread of its own, the window never freezes.

python examples/window.py models/demo/stories-13m-f16.gguf
"""

from __future__ import annotations

import queue
import sys
import threading
from typing import Any

import iqrun

POLL_MS = 30


class Writer:
    """Asks a chat in a thread; the window fetches the pieces when it has time.

    Attributes:
        busy: whether an answer is being written.
    """

    def __init__(self, chat: iqrun.Chat) -> None:
        self._chat = chat
        self._pieces: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def ask(self, text: str) -> None:
        """Begins an answer; does nothing while one is being written."""
        if not self.busy:
            self._stop.clear()
            self._thread = threading.Thread(target=self._write, args=(text,), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the answer within one token."""
        self._stop.set()

    def fetch(self) -> str:
        """What was written since the last call."""
        parts = []
        while not self._pieces.empty():
            parts.append(self._pieces.get())
        return "".join(parts)

    def close(self) -> None:
        """Ends the answer and waits for the thread."""
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def _write(self, text: str) -> None:
        try:
            for piece in self._chat.send(text, max_tokens=200):
                self._pieces.put(piece)
                if self._stop.is_set():
                    break
        except iqrun.IqrunError as error:
            self._pieces.put(f"[{error}]")
        self._pieces.put("\n\n")


class Window:
    """A text, a line to type in, and two buttons."""

    def __init__(self, root: Any, writer: Writer) -> None:
        import tkinter as tk
        from tkinter.scrolledtext import ScrolledText

        self._root, self._writer = root, writer
        root.title("iqrun")
        self._text = ScrolledText(root, wrap=tk.WORD, width=80, height=24)
        self._text.pack(fill=tk.BOTH, expand=True)
        self._line = tk.Entry(root)
        self._line.pack(side=tk.LEFT, fill=tk.X, expand=True)
        self._line.bind("<Return>", lambda _: self.send())
        tk.Button(root, text="Send", command=self.send).pack(side=tk.LEFT)
        tk.Button(root, text="Stop", command=writer.stop).pack(side=tk.LEFT)
        root.protocol("WM_DELETE_WINDOW", self.quit)
        self._line.focus()
        self.poll()

    def send(self) -> None:
        """Asks what is in the line."""
        question = self._line.get().strip()
        if question and not self._writer.busy:
            self._line.delete(0, "end")
            self._show(f"> {question}\n")
            self._writer.ask(question)

    def poll(self) -> None:
        """Shows what was written meanwhile, again and again."""
        self._show(self._writer.fetch())
        self._root.after(POLL_MS, self.poll)

    def quit(self) -> None:
        self._writer.close()
        self._root.destroy()

    def _show(self, text: str) -> None:
        if text:
            self._text.insert("end", text)
            self._text.see("end")


def main() -> None:
    import tkinter as tk

    with iqrun.load(sys.argv[1]) as model:
        root = tk.Tk()
        Window(root, Writer(model.chat()))
        root.mainloop()


if __name__ == "__main__":
    main()
