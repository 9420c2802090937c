"""A program at work in the native core: memory, steps, sessions.

- `lowering`: a `Program` as the core's structures;
- `allocation`: what a context takes; refuses what does not fit before anything is allocated;
- `context`: the core's context, its sequences and their KV cache;
- `steps`: one batch of tokens through it, which Ctrl-C may interrupt;
- `state`: a sequence as bytes, checked when it is read back;
- `session`: one sequence with a context of its own, `iqrun.Session`;
- `warm`: reads a mapped model through once.
"""
