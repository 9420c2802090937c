"""Completes a prompt, piece by piece.

python examples/complete.py models/demo/stories-13m-f16.gguf "Once upon a time"
"""

import sys

import iqrun

with iqrun.load(sys.argv[1]) as model:
    for piece in model.stream(sys.argv[2], max_tokens=100):
        print(piece, end="", flush=True)
    print()
