"""From a prompt to a text, token by token.

- `generate`: one text, in one session;
- `writer`: chooses each token, turns it into text and knows when to end, with `stops` (stop strings), `grammar`
  (`iqrun.Grammar`: what the text must look like) and `records` (what each step tells);
- `lookup`: guesses tokens from the text so far, which a step checks together;
- `batch`: several texts in one context;
- `texts`: all this as methods of a model, with `cancellation` (`iqrun.CancelToken`) and `aio` (for asyncio);
- `numbers`: embeddings and scores, where no text is wanted.
"""
