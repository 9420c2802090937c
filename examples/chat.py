"""A conversation of two turns; the second one is answered with the first in mind.

python examples/chat.py models/demo/stories-13m-f16.gguf
"""

import sys

import iqrun

with iqrun.load(sys.argv[1]) as model:
    chat = model.chat()
    for question in ("Tell me a story about a cat.", "Can you tell me a story about Lily?"):
        print(f"> {question}")
        for piece in chat.send(question, max_tokens=120, temperature=0.7):
            print(piece, end="", flush=True)
        print("\n")
