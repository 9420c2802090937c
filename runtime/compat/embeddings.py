"""Texts as vectors, with llama-cpp-python's names for what becomes of the vectors of the tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from iqrun.engine.session import Session
from iqrun.generation.numbers import Pooling, embed
from iqrun.program import Program

FILE_OR_NONE, FILE_OR_MEAN = -1, -2  # as the file says, and what if it says nothing
NO_POOLING, MEAN = 0, 1
POOLINGS: Mapping[int, Pooling] = {MEAN: "mean", 2: "cls", 3: "last"}


def pooling_type(wanted: int, metadata: Mapping[str, str]) -> int:
    """The pooling to use: what is wanted, or what the file says.

    Raises:
        NotImplementedError: it is not known, as that of models that rank.
    """
    arch = metadata.get("general.architecture", "")
    unsaid = MEAN if wanted == FILE_OR_MEAN else NO_POOLING
    found = int(metadata.get(f"{arch}.pooling_type", unsaid)) if wanted in (FILE_OR_NONE, FILE_OR_MEAN) else wanted
    if found != NO_POOLING and found not in POOLINGS:
        raise NotImplementedError(f"pooling_type {found} is not supported by iqrun.compat: use 0 to 3")
    return found


def vectors(
    session: Session, program: Program, ids: Sequence[int], pooling: int, normalize: bool
) -> list[float] | list[list[float]]:
    """One vector for the text, or one for each of its tokens if there is no pooling.

    Args:
        session: an empty one.
        program: of its model.
        ids: at least one token.
        pooling: `NO_POOLING`, or one of `POOLINGS`.
        normalize: to length 1.
    """
    if pooling != NO_POOLING:
        vector: list[float] = embed(session, program, ids, POOLINGS[pooling], normalize).tolist()
        return vector
    return [embed(session, program, [token], "last", normalize).tolist() for token in ids]  # each after those before it
