"""A chat bot for a channel with several people, without a network: lines ``name: text`` come from stdin.

    python examples/bot.py model.gguf

The loop is what a bot for a chat service needs: it never blocks while the model writes, each person has a conversation,
one answer is written at a time, and ``!forget`` and ``!stop`` work at any moment. Replace `lines` and `say` by the
service's own functions.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import iqrun

MAX_TOKENS = 80
MAX_PEOPLE = 8  # each conversation has a KV cache; the one that was silent longest goes


class Bot:
    """Answers people, one after the other, and remembers what each of them said."""

    def __init__(self, model: iqrun.Model, say: Callable[[str], Awaitable[None]]) -> None:
        self._model, self._say = model, say
        self._chats: dict[str, iqrun.Chat] = {}
        self._turn = asyncio.Lock()  # one answer at a time: they would only slow each other down
        self._stopped: set[str] = set()

    async def hear(self, name: str, text: str) -> None:
        """Somebody wrote something."""
        if text == "!stop":
            self._stopped.add(name)
        elif text == "!forget":
            async with self._turn:
                if (chat := self._chats.pop(name, None)) is not None:
                    chat.close()
            await self._say(f"@{name} forgotten.")
        else:
            async with self._turn:
                await self._answer(name, text)

    async def _answer(self, name: str, text: str) -> None:
        self._stopped.discard(name)
        pieces = self._chat(name).send(text, max_tokens=MAX_TOKENS)
        answer = ""
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:  # the loop stays free meanwhile
            answer += piece
            if name in self._stopped:
                pieces.close()  # stops the model within one token
                answer += " ..."
                break
        await self._say(f"@{name} {answer.strip()}")

    def _chat(self, name: str) -> iqrun.Chat:
        """The conversation of one person; becomes the latest."""
        chat = self._chats.pop(name, None) or self._model.chat()
        self._chats[name] = chat
        if len(self._chats) > MAX_PEOPLE:
            self._chats.pop(next(iter(self._chats))).close()
        return chat


async def lines() -> AsyncIterator[str]:
    """What people write, line by line."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield line.strip()


async def say(text: str) -> None:
    """What the bot writes."""
    print(text, flush=True)


async def main() -> None:
    with iqrun.load(sys.argv[1]) as model:
        bot = Bot(model, say)
        answers = []
        async for line in lines():
            name, _, text = line.partition(": ")
            if text:
                answers.append(asyncio.create_task(bot.hear(name, text)))
                await asyncio.sleep(0)  # let it begin: messages are heard in the order they came
        await asyncio.gather(*answers)


if __name__ == "__main__":
    asyncio.run(main())
