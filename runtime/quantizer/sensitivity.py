"""How much the model's predictions suffer from an error in each matrix: an estimate from the weights and their inputs.

Everything that a block computes is added to the residual stream. If a block's output has the energy E and the stream
behind it the energy R, an error of relative energy e in the output is one of ``e E / R`` in the stream, which is all
that the rest of the model sees. So a matrix counts by the share ``E / R`` of its branch, times a constant of its role:
how much of its relative error arrives in the branch's output, and what an error in the stream does compared with one in
the logits.

E is known from an importance matrix: ``sum over j of x_j^2 |W_j|^2`` for the columns W_j of the branch's last matrix
and the mean squares x_j^2 of its inputs. The constants are measured: on a small Llama the divergence that each matrix
alone causes at 2 and at 3 bits is ``constant * share * e`` within 30 % from the second block on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import expm1
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from iqrun.gguf import GGUFFile, TensorInfo
from iqrun.quantizer.imatrix import Imatrix
from iqrun.quantizer.recipes import OUTPUT, TOKEN_EMBEDDING
from iqrun.quantizer.rows import read_rows

Doubles = npt.NDArray[np.float64]

# Nats of divergence per relative squared error. Unknown matrices count like those that write to the stream.
_OUTPUT, _OUTPUT_UNWEIGHTED = 1.2, 0.7  # for errors weighted by importance, and for plain ones
_STREAM = 0.16
_ROLES: Mapping[str, float] = MappingProxyType({"attn_q": 0.08, "attn_k": 0.14, "ffn_up": 0.09})

# A branch whose energy is not known is taken to do its part of what is typical for a whole model: attention and
# feed-forward together make the stream's energy grow some 11-fold. The logarithms of their parts:
_GROWTH: Mapping[str, float] = MappingProxyType({"attn": 0.8, "ffn": 1.6})
_BLOCK = re.compile(r"blk\.(\d+)\.(.+)\.weight$")
_POST_NORM = re.compile(r"^(post_attention_norm|post_ffw_norm|attn_post_norm|ffn_post_norm)$")
_ROW_SAMPLE = 256  # rows of a matrix that stand for all


def sensitivities(source: GGUFFile, matrix: Imatrix | None) -> dict[str, float]:
    """Of each matrix the estimated divergence, in nats per token, for a relative squared error of 1.

    Only the proportions between them mean something.
    """
    blocks = [block for name in source.tensors if (block := _BLOCK.match(name))]
    n_blocks = len({block[1] for block in blocks})
    typical = {branch: -expm1(-growth / n_blocks) for branch, growth in _GROWTH.items()} if n_blocks else {}
    shares = _shares(source, {} if matrix is None else _energies(source, blocks, matrix), typical)
    tied = OUTPUT not in source.tensors
    found = {}
    for name, info in source.tensors.items():
        if len(info.shape) < 2 or info.format is None:
            continue
        block = _BLOCK.match(name)
        if name == OUTPUT or (tied and name == TOKEN_EMBEDDING):
            found[name] = _OUTPUT_UNWEIGHTED if matrix is None else _OUTPUT
        elif block is None:
            found[name] = _STREAM
        else:
            found[name] = _ROLES.get(_stem(block[2]), _STREAM) * shares.get(_branch(block), typical[_branch(block)[1]])
    return found


def _stem(name: str) -> str:
    """``ffn_up_exps`` and ``ffn_up_shexp`` are kinds of ``ffn_up``."""
    return re.sub(r"_(exps|shexp|chexps)$", "", name)


def _branch(block: re.Match[str]) -> tuple[int, str]:
    """A block's number and the branch of it that a tensor belongs to."""
    return int(block[1]), "ffn" if block[2].startswith("ffn") else "attn"


def _shares(
    source: GGUFFile, energies: Mapping[tuple[int, str], float], typical: Mapping[str, float]
) -> dict[tuple[int, str], float]:
    """The share of each branch in the stream behind it, where its energy is known."""
    n_blocks = 1 + max((number for number, _ in energies), default=-1)
    stream = _embedding_energy(source)
    found: dict[tuple[int, str], float] = {}
    for number in range(n_blocks):
        for branch in _GROWTH:
            energy = energies.get((number, branch))
            if energy is None:
                stream /= 1 - typical[branch]
                continue
            stream += energy
            found[number, branch] = energy / stream if stream > 0 else typical[branch]
    return found


def _energies(source: GGUFFile, blocks: Sequence[re.Match[str]], matrix: Imatrix) -> dict[tuple[int, str], float]:
    """The energy of each branch's output; none where a norm follows, which makes it meaningless."""
    normed = {int(block[1]) for block in blocks if _POST_NORM.match(block[2])}
    found: dict[tuple[int, str], float] = {}
    for block in blocks:
        if int(block[1]) in normed or _stem(block[2]) not in ("attn_output", "ffn_down"):
            continue
        info = source.tensors[block[0]]
        inputs = matrix.of(info)
        if inputs is not None and info.format is not None:
            branch = _branch(block)
            found[branch] = found.get(branch, 0.0) + _energy(source, info, inputs.astype(np.float64))
    return found


def _energy(source: GGUFFile, info: TensorInfo, inputs: Doubles) -> float:
    """Of the output per token; of experts the mean, as if each token met one."""
    squares, rows_each = 0.0, info.n_rows // len(inputs)
    for index, values in enumerate(inputs):
        rows = _sample(source, info, index * rows_each, rows_each)
        squares += float((np.square(rows, dtype=np.float64).mean(axis=0) @ values) * rows_each)
    return squares / len(inputs)


def _embedding_energy(source: GGUFFile) -> float:
    info = source.tensors.get(TOKEN_EMBEDDING)
    if info is None or info.format is None:
        return 0.0
    return float(np.square(_sample(source, info, 0, info.n_rows), dtype=np.float64).sum(axis=1).mean())


def _sample(source: GGUFFile, info: TensorInfo, start: int, n_rows: int) -> npt.NDArray[np.float32]:
    """Rows of a tensor, evenly spread over a range."""
    picked = start + np.unique(np.linspace(0, n_rows - 1, min(n_rows, _ROW_SAMPLE)).astype(np.int64))
    rows = read_rows(source, info, picked)
    source.release_rows(info.name, start, start + n_rows)
    return rows
