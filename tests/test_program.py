from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from iqrun.errors import GGUFError, UnsupportedModelError
from iqrun.gguf import GGUFFile, GGUFPlan, GGUFWriter, ValueType
from iqrun.program import Program
from tests.reference_program import ReferenceSession

N_VOCAB, N_EMBD, HEAD_DIM = 12, 16, 4
F32, F16, IQ3_S = 0, 1, 21


def write(path: Path, shapes: dict[str, tuple[int, ...]], types: dict[str, int]) -> Path:
    """A file with random tensors of (rows, cols) or (n,)."""
    rng = np.random.default_rng(0)
    plan = GGUFPlan()
    plan.set("general.architecture", "test", ValueType.STRING)
    infos = [plan.add_tensor(name, shape[::-1], types.get(name, F32)) for name, shape in shapes.items()]
    with GGUFWriter(path, plan) as writer:
        for info in infos:
            values = rng.normal(size=info.n_weights).astype(np.float16 if info.type_id == F16 else np.float32)
            writer.write(values if info.type_id in (F32, F16) else bytes(info.n_bytes))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Iterator[GGUFFile]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (N_VOCAB, N_EMBD),
        "norm.weight": (N_EMBD,),
        "half_norm.weight": (N_EMBD,),
        "head_norm.weight": (HEAD_DIM,),
        "blk.0.attn_q.weight": (16, N_EMBD),
        "blk.0.attn_q.bias": (16,),
        "blk.0.attn_k.weight": (8, N_EMBD),
        "blk.0.attn_v.weight": (8, N_EMBD),
        "blk.1.attn_q.weight": (24, N_EMBD),
        "foreign.weight": (2, 256),
    }
    path = write(tmp_path / "model.gguf", shapes, {"half_norm.weight": F16, "foreign.weight": IQ3_S})
    with GGUFFile(path) as opened:
        yield opened


def qkv(p: Program) -> tuple[Program, list]:
    x = p.embed("token_embd.weight")
    names = [f"blk.0.attn_{s}.weight" for s in "qkv"]
    return p, p.matmul(x, names, n_rows=[16, 8, 8], biases=["blk.0.attn_q.bias", None, None])


def test_program_prints_itself(file: GGUFFile) -> None:
    """One line per result: operation, buffers with their width, weights with type and shape."""
    p, (q, k, v) = qkv(Program(file, n_layer=1))
    table = p.rope_table(np.ones(2, np.float32))
    p.rope(q, table, head_dim=HEAD_DIM, halves=True)
    a = p.attention(q, k, v, layer=0, head_dim=HEAD_DIM, scale=0.5)
    p.output(*p.matmul(p.select(a), ["token_embd.weight"], n_rows=[N_VOCAB], into=["logits"]))
    assert str(p) == "\n".join(
        [
            "program of test: 7 operations, 8 buffers, 1 KV layers",
            "(* = one row per wanted output; the other buffers have one per token)",
            "   0  embed         x[16] = token_embd.weight f32 [12 x 16]",
            "   1  matmul        attn_q[16] = blk.0.attn_q.weight f32 [16 x 16] + blk.0.attn_q.bias  of x[16]",
            "                    attn_k[8] = blk.0.attn_k.weight f32 [8 x 16]  of x[16]",
            "                    attn_v[8] = blk.0.attn_v.weight f32 [8 x 16]  of x[16]",
            "   2  rope_table    rope[4] = rope_inv_freq f32 [2]",
            "   3  rope          attn_q[16] = rope[4], 4 heads of 4, halves",
            "   4  attention     attn[16] = attn_q[16], attn_k[8], attn_v[8], layer 0, 4 heads over 2 of 4, scale 0.5",
            "   5  select        attn[16]* = attn[16]",
            "   6  matmul        logits[12]* = token_embd.weight f32 [12 x 16]  of attn[16]*",
        ]
    )


def test_bytes_per_token_count_every_weight_once_and_one_embedding_row(file: GGUFFile) -> None:
    """Matrices whole, biases and norms too; of the embedding matrix one row, unless it is the output matrix as well."""
    p, (q, _, _) = qkv(Program(file, n_layer=1))
    row, qkv_bytes = 4 * N_EMBD, 4 * (32 * N_EMBD + 16)
    assert p.weight_bytes_per_token == row + qkv_bytes
    p.output(*p.matmul(p.select(q), ["token_embd.weight"], n_rows=[N_VOCAB]))
    assert p.weight_bytes_per_token == row + qkv_bytes + N_VOCAB * row


def test_buffer_is_reused_by_name_but_not_with_another_width(file: GGUFFile) -> None:
    """The layers share buffers; a name stands for one width."""
    p = Program(file, n_layer=2)
    x = p.embed("token_embd.weight")
    (first,) = p.matmul(x, ["blk.0.attn_q.weight"], n_rows=[16])
    (again,) = p.matmul(x, ["blk.0.attn_q.weight"], n_rows=[16])
    assert first is again
    with pytest.raises(UnsupportedModelError, match=r"attn_q\[16\] cannot be reused with 24 columns"):
        p.matmul(x, ["blk.1.attn_q.weight"], n_rows=[24])


def test_selected_rows_are_another_buffer_of_the_same_name(file: GGUFFile) -> None:
    """Rows of outputs and rows of tokens never share memory."""
    p = Program(file, n_layer=0)
    x = p.embed("token_embd.weight")
    selected = p.select(x)
    assert (selected.name, selected.rows) == ("x", "outputs")
    assert selected.index != x.index
    with pytest.raises(UnsupportedModelError, match="selected already"):
        p.select(selected)
    with pytest.raises(UnsupportedModelError, match="select the wanted ones"):
        p.output(x)


def test_weights_are_views_of_the_file(file: GGUFFile) -> None:
    """No copy of a matrix is made."""
    p = Program(file, n_layer=0)
    p.embed("token_embd.weight")
    assert np.shares_memory(p.weights[0].data, file.tensor_bytes("token_embd.weight"))


def test_vector_in_half_precision_is_decoded(file: GGUFFile) -> None:
    """Norm weights and biases reach the engine as float32, whatever the file has."""
    p = Program(file, n_layer=0)
    p.rms_norm(p.embed("token_embd.weight"), "half_norm.weight", 1e-5)
    expected = file.tensor_bytes("half_norm.weight").view(np.float16).astype(np.float32)
    assert p.weights[1].type_name == "F32"
    assert p.weights[1].data.view(np.float32).tolist() == expected.tolist()


def test_shapes_are_checked_when_written(file: GGUFFile) -> None:
    """Each mistake is told with the name of the tensor, or the operation and its buffers."""
    p, (q, k, v) = qkv(Program(file, n_layer=1))
    x, table = p.buffers[0], p.rope_table(np.ones(4, np.float32))
    with pytest.raises(GGUFError, match=r"attn_q\.weight' has 16 rows of 16 weights, .* ask for 20 rows of 16"):
        p.matmul(x, ["blk.0.attn_q.weight"], n_rows=[20])
    with pytest.raises(GGUFError, match="ask for 16 rows of 8"):
        p.matmul(k, ["blk.0.attn_q.weight"], n_rows=[16])
    with pytest.raises(GGUFError, match=r"'nothing' .* is missing"):
        p.matmul(x, ["nothing"], n_rows=[16])
    with pytest.raises(UnsupportedModelError, match="1 to 4"):
        p.matmul(x, ["blk.0.attn_q.weight"] * 5, n_rows=[16] * 5)
    with pytest.raises(UnsupportedModelError, match="stored as IQ3_S"):
        p.embed("foreign.weight")
    with pytest.raises(GGUFError, match=r"norm\.weight"):
        p.rms_norm(k, "norm.weight", 1e-5)
    with pytest.raises(UnsupportedModelError, match="heads of 3"):
        p.rms_norm(q, "head_norm.weight", 1e-5, head_dim=3)
    with pytest.raises(UnsupportedModelError, match="turns more columns"):
        p.rope(q, table, head_dim=HEAD_DIM, halves=False)
    with pytest.raises(UnsupportedModelError, match="heads of 5"):
        p.rope(q, table, head_dim=5, halves=False)
    with pytest.raises(UnsupportedModelError, match="differ in columns"):
        p.attention(q, k, q, layer=0, head_dim=HEAD_DIM, scale=1.0)
    with pytest.raises(UnsupportedModelError, match="cannot share"):
        p.attention(k, q, q, layer=0, head_dim=HEAD_DIM, scale=1.0)
    with pytest.raises(UnsupportedModelError, match="layer 1 is not below 1"):
        p.attention(q, k, v, layer=1, head_dim=HEAD_DIM, scale=1.0)
    with pytest.raises(UnsupportedModelError, match="differ in shape"):
        p.add(x, k)
    with pytest.raises(UnsupportedModelError, match="differ in rows"):
        p.matmul_add(p.select(x), x, "blk.0.attn_q.weight")


def test_program_without_output_says_so(file: GGUFFile) -> None:
    """A forgotten output() is the architecture's mistake."""
    with pytest.raises(ValueError, match="no output"):
        _ = Program(file, n_layer=0).logits


def test_unused_tensor_is_refused(file: GGUFFile) -> None:
    """The first tensor that nothing used is named."""
    p, _ = qkv(Program(file, n_layer=1))
    with pytest.raises(UnsupportedModelError, match=r"'norm\.weight' is not part of the architecture 'test'"):
        p.refuse_unused()


def test_norm_per_head_normalises_each_head(file: GGUFFile) -> None:
    """With head_dim, each group of columns has its own mean square; the weight is shared by the heads."""
    p = Program(file, n_layer=0)
    x = p.embed("token_embd.weight")
    out = p.rms_norm(x, "head_norm.weight", 0.0, head_dim=HEAD_DIM)
    p.output(p.select(out))
    result = ReferenceSession(p).evaluate([3]).reshape(-1, HEAD_DIM)
    weight = file.tensor_bytes("head_norm.weight").view(np.float32)
    assert ((result / weight) ** 2).mean(axis=1) == pytest.approx(np.ones(4))
