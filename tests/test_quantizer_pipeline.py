"""iqrun.quantizer.pipeline: the file that comes out, what is checked before, and what a failure leaves behind."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from iqrun import formats
from iqrun.errors import FormatError, GGUFError, QuantizeError, ResourceError
from iqrun.formats import Format
from iqrun.gguf import GGUFFile, GGUFPlan, GGUFWriter, ValueType, keys
from iqrun.gguf.part_file import PartFile
from iqrun.quantizer import pipeline, quantize, stream
from iqrun.quantizer.gain import unbias
from iqrun.quantizer.recipes import Choice
from iqrun.quantizer.rows import encode_rows
from tests.gguf_builder import F32, STRING, UINT16, RawGGUF, kv, tiny_llama
from tests.test_quantizer_imatrix import dat_entry, dat_file


def model(tmp_path: Path, **options: Any) -> Path:
    options = {"n_embd": 256, "n_ff": 512, "n_layer": 2, "weight_type": "F16"} | options
    return tiny_llama(tmp_path / "in.gguf", **options)


def decoded(path: Path) -> dict[str, np.ndarray]:
    with GGUFFile(path) as file:
        return {
            name: formats.decode(file.tensor_rows(name), info.type.name, info.n_cols)
            for name, info in file.tensors.items()
        }


def types(path: Path) -> dict[str, str]:
    with GGUFFile(path) as file:
        return {name: info.type.name for name, info in file.tensors.items()}


def full_imatrix(source: Path, path: Path, value: float | None = None) -> Path:
    """An entry for every matrix of a model."""
    rng = np.random.default_rng(3)
    with GGUFFile(source) as file:
        matrices = {name: info.n_cols for name, info in file.tensors.items() if len(info.shape) == 2}
    values = {name: rng.uniform(0.1, 10, n) if value is None else np.full(n, value) for name, n in matrices.items()}
    tail = struct.pack("<ii", 5, 4) + b"text"
    return dat_file(path, *(dat_entry(name.encode(), entry) for name, entry in values.items()), tail=tail)


def nothing_left(tmp_path: Path, *kept: str) -> bool:
    return {"in.gguf", *kept} == {path.name for path in tmp_path.iterdir()}


# ---- the file that comes out ------------------------------------------------------------------------------------


def test_iq3_k_file(tmp_path: Path) -> None:
    """Types by the mix, vectors unchanged, metadata carried over, weights near the original."""
    source, out = model(tmp_path), tmp_path / "out.gguf"
    report = quantize(source, out, "iq3_k")
    before, after, kinds = decoded(source), decoded(out), types(out)
    assert list(before) == list(after) == [tensor.name for tensor in report.tensors]
    assert tuple(kinds[name] for name in ("blk.0.attn_q.weight", "blk.1.attn_v.weight", "output_norm.weight")) == (
        "IQ3_K",
        "IQ4_K",
        "F32",
    )
    for tensor in report.tensors:
        x, y = before[tensor.name].astype(np.float64), after[tensor.name].astype(np.float64)
        assert tensor.relative_error == pytest.approx(np.sqrt(((x - y) ** 2).sum() / (x**2).sum()), rel=1e-6)
        assert (0 if tensor.target == "F32" else 1e-4) <= tensor.relative_error < 0.25
        assert kinds[tensor.name] == tensor.target
    with GGUFFile(source) as first, GGUFFile(out) as second:
        for key in first.metadata:
            assert first.metadata.raw_value(key) == second.metadata.raw_value(key)
        added = set(second.metadata) - set(first.metadata)
        assert {keys.FILE_TYPE, keys.QUANTIZATION_VERSION, keys.IQRUN_VERSION} == added
        assert (second.metadata[keys.FILE_TYPE], second.metadata[keys.QUANTIZATION_VERSION]) == (139, 2)
        assert second.file_bytes == report.n_bytes == out.stat().st_size


def test_the_gguf_package_reads_the_file(tmp_path: Path) -> None:
    """A Q8_0 file is one for the reference reader too, and its own decoder agrees with ours."""
    source, out = model(tmp_path), tmp_path / "out.gguf"
    quantize(source, out, "Q8_0")
    ours = decoded(out)
    for tensor in gguf.GGUFReader(out).tensors:
        theirs = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(ours[tensor.name].reshape(theirs.shape), theirs)


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q8_0", "Q6_0", "IQ2_KS", "IQ4_KSS", "IQ6_K"])
def test_every_kind_of_type(tmp_path: Path, name: str) -> None:
    """Float types, 32-blocks and row_meta types, pure: every matrix is of the type, bits per weight are right."""
    source, out = model(tmp_path, n_layer=1), tmp_path / "out.gguf"
    report = quantize(source, out, name, pure=True, effort="fast")
    row = formats.by_name(name)
    for tensor in report.tensors:
        if len(tensor.shape) > 1:
            assert name == tensor.target
            assert 8 * row.row_bytes(tensor.shape[0]) / tensor.shape[0] == pytest.approx(tensor.bpw)
    assert row.file_type == GGUFFile(out).metadata[keys.FILE_TYPE]


def test_round_trip_to_f32(tmp_path: Path) -> None:
    """A quantized file turned back into F32 holds exactly its decoded weights."""
    source, small, back = model(tmp_path), tmp_path / "small.gguf", tmp_path / "back.gguf"
    quantize(source, small, "IQ4_K")
    report = quantize(small, back, "F32", allow_requantize=True)
    assert {"F32"} == set(types(back).values())
    assert {0.0} == {tensor.relative_error for tensor in report.tensors}
    before, after = decoded(small), decoded(back)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_f16_to_f16_is_a_copy(tmp_path: Path) -> None:
    """Tensors that are of the type already are copied bit for bit."""
    source, out = model(tmp_path), tmp_path / "out.gguf"
    quantize(source, out, "F16")
    with GGUFFile(source) as first, GGUFFile(out) as second:
        assert all(np.array_equal(first.tensor_bytes(name), second.tensor_bytes(name)) for name in first.tensors)


def test_threads_do_not_change_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1, 2 and 5 threads, and a second run, give the same file and the same errors."""
    monkeypatch.setattr(stream, "_PIECE_WEIGHTS", 1 << 13)
    source = model(tmp_path)
    matrix = full_imatrix(source, tmp_path / "m.dat")
    reports = [quantize(source, tmp_path / f"{n}.gguf", "IQ2_K", imatrix=matrix, n_threads=n) for n in (1, 2, 5)]
    first = (tmp_path / "1.gguf").read_bytes()
    assert first == (tmp_path / "2.gguf").read_bytes() == (tmp_path / "5.gguf").read_bytes()
    assert reports[0].tensors == reports[1].tensors == reports[2].tensors
    quantize(source, tmp_path / "1.gguf", "IQ2_K", imatrix=matrix, n_threads=1, overwrite=True)
    assert first == (tmp_path / "1.gguf").read_bytes()


def test_pieces_do_not_change_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the rows are cut into pieces, the file is the same."""
    source = model(tmp_path)
    quantize(source, tmp_path / "a.gguf", "IQ4_KS")
    monkeypatch.setattr(stream, "_PIECE_WEIGHTS", 1)
    quantize(source, tmp_path / "b.gguf", "IQ4_KS")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_imatrix_guides_and_is_recorded(tmp_path: Path) -> None:
    """An importance matrix changes the weights, the weighted error is reported, and the file says where it is from."""
    source, out = model(tmp_path, n_layer=1), tmp_path / "out.gguf"
    matrix = full_imatrix(source, tmp_path / "m.dat")
    plain = quantize(source, tmp_path / "plain.gguf", "IQ3_K")
    guided = quantize(source, out, "IQ3_K", imatrix=matrix)
    assert (guided.tensors[0].weighted, plain.tensors[0].weighted) == (True, False)
    entries = {t.name for t in guided.tensors if len(t.shape) == 2}
    name = "blk.0.attn_q.weight"
    values = pipeline.read_imatrix(matrix).entries[name].astype(np.float64)
    x, before, after = (decoded(path)[name].astype(np.float64) for path in (source, tmp_path / "plain.gguf", out))
    reported = {t.name: t.relative_error for t in guided.tensors}[name]
    weighted = np.sqrt((values * (x - after) ** 2).sum() / (values * x**2).sum())
    assert reported == pytest.approx(weighted, rel=1e-5)
    assert (values * (x - after) ** 2).sum() < (values * (x - before) ** 2).sum()
    with GGUFFile(out) as file:
        data = file.metadata
        assert (data[keys.QUANTIZE_IMATRIX_FILE], data[keys.QUANTIZE_IMATRIX_DATASET]) == ("m.dat", "text")
        found = (data[keys.QUANTIZE_IMATRIX_N_ENTRIES], data[keys.QUANTIZE_IMATRIX_N_CHUNKS])
        assert (len(entries), 5) == found


def test_scale_of_the_imatrix_is_irrelevant(tmp_path: Path) -> None:
    """Importance is relative: a constant one, tiny or huge, gives the bytes of none at all or of each other."""
    source = model(tmp_path, n_layer=1)
    outs = []
    for index, value in enumerate((1e-30, 1.0, 1e30)):
        matrix = full_imatrix(source, tmp_path / "m.dat", value)
        quantize(source, tmp_path / f"{index}.gguf", "IQ4_KS", imatrix=matrix)
        outs.append([value.tobytes() for value in decoded(tmp_path / f"{index}.gguf").values()])
    assert outs[0] == outs[1] == outs[2]


def test_experts_have_their_own_importance(tmp_path: Path) -> None:
    """A 3-D tensor is encoded matrix by matrix, each with its row of the importance matrix."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((2, 3, 256), np.float32)
    raw = RawGGUF()
    raw.add_tensor("blk.0.ffn_up_exps.weight", (256, 3, 2), F32, weights.tobytes())
    source = raw.write(tmp_path / "in.gguf")
    importance = rng.uniform(0.01, 10, (2, 256)).astype(np.float32)
    matrix = dat_file(tmp_path / "m.dat", dat_entry(b"blk.0.ffn_up_exps.weight", importance.reshape(-1)))
    quantize(source, tmp_path / "out.gguf", "IQ2_K", imatrix=matrix)
    scaled = importance / importance.mean(axis=1, keepdims=True, dtype=np.float64)
    wanted = []
    for matrix_weights, columns in zip(weights, scaled.astype(np.float32), strict=True):
        q = formats.encode(matrix_weights, "IQ2_K", columns)
        unbias(q, formats.by_name("IQ2_K"), matrix_weights, formats.decode(q, "IQ2_K", 256), columns)
        wanted.append(q)
    with GGUFFile(tmp_path / "out.gguf") as file:
        assert np.array_equal(np.concatenate(wanted), file.tensor_rows("blk.0.ffn_up_exps.weight"))


def test_odd_rows_fall_back_and_are_reported(tmp_path: Path) -> None:
    """Rows of 96 and 64 weights: the substitutes of the field, flagged, with one warning."""
    source, out = model(tmp_path, n_embd=64, n_ff=96), tmp_path / "out.gguf"
    report = quantize(source, out, "IQ5_K")
    matrices = [tensor for tensor in report.tensors if len(tensor.shape) == 2]
    assert {"Q6_0", "Q8_0"} == {tensor.target for tensor in matrices}
    assert all(tensor.fallback is not None for tensor in matrices)
    assert len(matrices) == report.n_fallbacks
    assert any("do not fill whole blocks" in warning for warning in report.warnings)


def test_missing_imatrix_entries_are_a_warning(tmp_path: Path) -> None:
    """Low-bit tensors without an entry are listed; the run goes on."""
    source = model(tmp_path, n_layer=1)
    matrix = dat_file(tmp_path / "m.dat", dat_entry(b"blk.0.attn_q.weight", np.ones(256)))
    report = quantize(source, tmp_path / "out.gguf", "IQ2_K", imatrix=matrix)
    assert any("says nothing about" in w and "blk.0.attn_k.weight" in w for w in report.warnings)
    assert any("without an importance matrix" in w for w in quantize(source, "x", "IQ2_K", dry_run=True).warnings)


class WholeMatrices:
    """A matrix encoder that does what the row encoder does, and notes what it was given."""

    def __init__(self) -> None:
        self.identity = "as rows"
        self.seen: list[tuple[str, int, int, int]] = []

    def handles(self, choice: Choice) -> bool:
        return "ffn" in choice.tensor.name

    def __call__(
        self, name: str, matrix: int, first: int, weights: np.ndarray, target: Format, importance: np.ndarray | None
    ) -> np.ndarray:
        self.seen.append((name, matrix, first, len(weights)))
        data = encode_rows(weights, target, importance, "fast")[0]
        weights[:] = np.nan  # it may
        return data


def test_matrix_encoder_replaces_the_row_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the tensors that it handles whole, or in bands if they are large; the report is the same."""
    source = model(tmp_path, n_layer=1)
    matrix = full_imatrix(source, tmp_path / "m.dat")
    plain = quantize(source, tmp_path / "plain.gguf", "IQ3_K", imatrix=matrix, effort="fast")
    whole = [("down", 0, 256), ("gate", 0, 512), ("up", 0, 512)]
    wide = [(0, 300), (300, 212)]
    bands = [("down", 0, 150), ("down", 150, 106), *((name, *band) for name in ("gate", "up") for band in wide)]
    for band_weights, wanted in ((1 << 25, whole), (300 * 256, bands)):
        monkeypatch.setattr(stream, "_BAND_WEIGHTS", band_weights)
        encoder = WholeMatrices()
        report = quantize(
            source, tmp_path / "out.gguf", "IQ3_K", imatrix=matrix, effort="fast", encoder=encoder, overwrite=True
        )
        assert (tmp_path / "out.gguf").read_bytes() == (tmp_path / "plain.gguf").read_bytes()
        assert wanted == sorted((name.split(".")[2][4:], first, n) for name, _, first, n in encoder.seen)
        errors = [(a.relative_error, b.relative_error) for a, b in zip(plain.tensors, report.tensors, strict=True)]
        assert all(a == pytest.approx(b, rel=1e-9) for a, b in errors)


def test_matrix_encoder_sees_expert_by_expert(tmp_path: Path) -> None:
    """Also without an importance matrix; a resumed run must have the same encoder."""
    rng = np.random.default_rng(0)
    raw = RawGGUF()
    raw.add_tensor("blk.0.ffn_up_exps.weight", (256, 3, 2), F32, rng.standard_normal((2, 3, 256), np.float32).tobytes())
    raw.add_tensor("blk.0.attn_q.weight", (256, 3), F32, rng.standard_normal((3, 256), np.float32).tobytes())
    source, encoder = raw.write(tmp_path / "in.gguf"), WholeMatrices()

    def stop(done: int, total: int, name: str) -> None:
        if "attn_q" in name:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(source, tmp_path / "out.gguf", "IQ3_K", encoder=encoder, resume=True, progress=stop)
    assert [("blk.0.ffn_up_exps.weight", index, 0, 3) for index in (0, 1)] == sorted(encoder.seen)
    encoder.identity = "another"
    with pytest.raises(QuantizeError, match="the method changed"):
        quantize(source, tmp_path / "out.gguf", "IQ3_K", encoder=encoder, resume=True)


def test_tied_embedding_uses_the_output_entry(tmp_path: Path) -> None:
    """Without output.weight the embedding is the output matrix, also for the importance matrix."""
    source = model(tmp_path, tied=True)
    matrix = dat_file(tmp_path / "m.dat", dat_entry(b"output.weight", np.linspace(0.1, 5, 256)))
    report = quantize(source, tmp_path / "out.gguf", "IQ3_K", imatrix=matrix)
    assert {"token_embd.weight"} == {tensor.name for tensor in report.tensors if tensor.weighted}


def test_split_input_becomes_one_file(tmp_path: Path) -> None:
    """A split model is read as one; the split.* keys do not survive."""
    whole = model(tmp_path)
    with GGUFFile(whole) as file:
        names = list(file.tensors)
        for index, part in enumerate((names[:5], names[5:])):
            plan = GGUFPlan()
            if index == 0:
                for key in file.metadata:
                    plan.copy(file.metadata, key)
            plan.set(keys.SPLIT_NO, index, ValueType.UINT16)
            plan.set(keys.SPLIT_COUNT, 2, ValueType.UINT16)
            plan.set(keys.SPLIT_TENSORS_COUNT, len(names), ValueType.INT32)
            for name in part:
                plan.add_tensor(name, file.tensors[name].shape, file.tensors[name].type_id)
            with GGUFWriter(tmp_path / f"s-{index + 1:05d}-of-00002.gguf", plan) as writer:
                for name in part:
                    writer.write(file.tensor_bytes(name))
    quantize(whole, tmp_path / "a.gguf", "IQ4_K")
    quantize(tmp_path / "s-00001-of-00002.gguf", tmp_path / "b.gguf", "IQ4_K")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_alignment_and_unknown_tensors_survive(tmp_path: Path) -> None:
    """The file's own alignment is kept, and tensors of integers are copied."""
    raw = RawGGUF(kvs=[kv("general.alignment", 4, 128), kv("split.no", UINT16, 0), kv("x", STRING, "y")], alignment=128)
    raw.add_tensor("ids", (3, 2), 26, np.arange(6, dtype="<i4").tobytes())
    raw.add_tensor("blk.0.attn_q.weight", (256, 1), F32, bytes(1024))
    quantize(raw.write(tmp_path / "in.gguf"), tmp_path / "out.gguf", "IQ4_K")
    with GGUFFile(tmp_path / "out.gguf") as file:
        assert (file.alignment, "split.no" in file.metadata) == (128, False)
        assert list(range(6)) == file.tensor_bytes("ids").view("<i4").tolist()
        assert file.tensors["blk.0.attn_q.weight"].offset % 128 == 0


# ---- what is checked before --------------------------------------------------------------------------------------


def test_dry_run_knows_the_exact_size(tmp_path: Path) -> None:
    """A dry run writes nothing and predicts the size of the real one."""
    source = model(tmp_path)
    dry = quantize(source, tmp_path / "out.gguf", "IQ3_K", dry_run=True)
    assert nothing_left(tmp_path)
    assert {None} == {tensor.relative_error for tensor in dry.tensors}
    real = quantize(source, tmp_path / "out.gguf", "IQ3_K")
    assert dry.n_bytes == real.n_bytes == (tmp_path / "out.gguf").stat().st_size
    assert [(t.name, t.target) for t in dry.tensors] == [(t.name, t.target) for t in real.tensors]


@pytest.mark.parametrize("how", ["same", "symlink", "hard link", "other spelling"])
def test_input_is_never_the_output(tmp_path: Path, how: str) -> None:
    """IN == OUT is refused however it is written, even with overwrite, and IN is untouched."""
    source = model(tmp_path)
    before = source.read_bytes()
    out = {"same": source, "other spelling": tmp_path / "." / "x" / ".." / "in.gguf"}.get(how, tmp_path / "link.gguf")
    (tmp_path / "x").mkdir()
    if how == "symlink":
        out.symlink_to(source)
    elif how == "hard link":
        os.link(source, out)
    with pytest.raises(QuantizeError, match="is the input"):
        quantize(source, out, "IQ3_K", overwrite=True)
    assert before == source.read_bytes()


def test_imatrix_is_never_the_output(tmp_path: Path) -> None:
    """The importance matrix is an input too."""
    source = model(tmp_path)
    matrix = full_imatrix(source, tmp_path / "m.dat")
    with pytest.raises(QuantizeError, match="is the input"):
        quantize(source, matrix, "IQ3_K", imatrix=matrix, overwrite=True)


def test_existing_output_needs_overwrite(tmp_path: Path) -> None:
    """OUT is kept unless overwrite is given, then it is replaced at the end."""
    source, out = model(tmp_path), tmp_path / "out.gguf"
    out.write_bytes(b"precious")
    with pytest.raises(QuantizeError, match="exists; choose another name"):
        quantize(source, out, "IQ3_K")
    assert out.read_bytes() == b"precious"

    def stop(*_: object) -> None:
        assert out.read_bytes() == b"precious"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(source, out, "IQ3_K", overwrite=True, progress=stop)
    assert out.read_bytes() == b"precious"
    assert nothing_left(tmp_path, "out.gguf")
    quantize(source, out, "IQ3_K", overwrite=True)
    assert out.read_bytes()[:4] == b"GGUF"


def test_quantized_input_needs_permission(tmp_path: Path) -> None:
    """Quantizing twice is refused with the tensor's name and type, unless allowed."""
    source, small, out = model(tmp_path), tmp_path / "small.gguf", tmp_path / "out.gguf"
    quantize(source, small, "Q8_0")
    for target in ("IQ3_K", "Q8_0"):
        with pytest.raises(QuantizeError, match=r"'token_embd\.weight' is Q8_0.*--allow-requantize"):
            quantize(small, out, target)
    quantize(small, out, "IQ3_K", allow_requantize=True)
    assert types(out)["blk.0.attn_q.weight"] == "IQ3_K"


def test_undecodable_input_is_named(tmp_path: Path) -> None:
    """A tensor of a type that iqrun cannot decode is refused before anything is written."""
    raw = RawGGUF()
    raw.add_tensor("blk.0.attn_q.weight", (256, 1), 16, bytes(66))
    with pytest.raises(QuantizeError, match=r"'blk\.0\.attn_q\.weight' is IQ2_XXS, which iqrun cannot decode"):
        quantize(raw.write(tmp_path / "in.gguf"), tmp_path / "out.gguf", "IQ4_K", allow_requantize=True)
    with pytest.raises(QuantizeError, match="has no tensors"):
        quantize(RawGGUF().write(tmp_path / "in.gguf"), tmp_path / "out.gguf", "IQ4_K")


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    """Types, efforts, threads, expressions, folders and files that cannot be."""
    source, out = model(tmp_path, n_layer=1), tmp_path / "out.gguf"
    with pytest.raises(FormatError, match="'IQ3_X' is not a known type: did you mean"):
        quantize(source, out, "IQ3_X")
    with pytest.raises(ValueError, match="effort 'hard' is unknown"):
        quantize(source, out, "IQ3_K", effort="hard")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="n_threads is 0"):
        quantize(source, out, "IQ3_K", n_threads=0)
    with pytest.raises(QuantizeError, match="is wrong"):
        quantize(source, out, "IQ3_K", tensor_types=[("(", "Q8_0")])
    with pytest.raises(QuantizeError, match="does not exist; create it first"):
        quantize(source, tmp_path / "absent" / "out.gguf", "IQ3_K")
    with pytest.raises(QuantizeError, match="not a regular file"):
        quantize(source, tmp_path, "IQ3_K", overwrite=True)
    with pytest.raises(QuantizeError, match="not a regular file"):
        quantize(source, "/dev/null", "IQ3_K", overwrite=True)
    with pytest.raises(GGUFError, match="cannot open it"):
        quantize(tmp_path / "absent.gguf", out, "IQ3_K")
    with pytest.raises(QuantizeError, match=r"'token_embd\.weight' has 3 values, but the tensor needs 256"):
        quantize(source, out, "IQ3_K", imatrix=dat_file(tmp_path / "m", dat_entry(b"token_embd.weight", np.ones(3))))
    (tmp_path / "m").unlink()
    assert nothing_left(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_refused(tmp_path: Path) -> None:
    """A folder without write permission is found before the work."""
    source = model(tmp_path)
    (tmp_path / "ro").mkdir(mode=0o555)
    with pytest.raises(QuantizeError, match="is not writable"):
        quantize(source, tmp_path / "ro" / "out.gguf", "IQ3_K")


def test_full_disk_is_seen_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little free space: both numbers, and no tensor was touched."""
    source = model(tmp_path)
    need = quantize(source, "x", "IQ3_K", dry_run=True).n_bytes
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, need - 1))
    with pytest.raises(ResourceError, match=f"needs {need} bytes, but the disk has only {need - 1} free"):
        quantize(source, tmp_path / "out.gguf", "IQ3_K")
    assert nothing_left(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, need))
    quantize(source, tmp_path / "out.gguf", "IQ3_K")


# ---- failures on the way ------------------------------------------------------------------------------------------


def test_disk_that_fills_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails in the middle: a clear error, no file, no temporary."""
    source = model(tmp_path)
    calls = 0
    real = PartFile.write

    def write(self: PartFile, data: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, data)

    monkeypatch.setattr(PartFile, "write", write)
    with pytest.raises(ResourceError, match="the disk is full"):
        quantize(source, tmp_path / "out.gguf", "IQ3_K")
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("name", "row", "column"), [("blk.1.ffn_down.weight", 37, 201), ("output_norm.weight", 0, 5)])
def test_bad_weights_are_named(tmp_path: Path, bad: float, name: str, row: int, column: int) -> None:
    """NaN and infinities, in matrices and in vectors that are only copied: tensor, row and column, nothing left."""
    source = model(tmp_path)
    with GGUFFile(source) as file:
        info = file.tensors[name]
        value = np.array([bad], "<f4" if info.type.name == "F32" else "<f2").tobytes()
        at = info.offset + row * info.row_bytes + column * len(value)
    data = bytearray(source.read_bytes())
    data[at : at + len(value)] = value
    source.write_bytes(data)
    with pytest.raises(QuantizeError, match=f"'{name}' holds -?(nan|inf) at row {row}, column {column}"):
        quantize(source, tmp_path / "out.gguf", "IQ3_K")
    assert nothing_left(tmp_path)


def test_weights_too_large_for_f16_are_named(tmp_path: Path) -> None:
    """A weight that the new type cannot hold is an error, not a broken model; BF16 holds it."""
    raw = RawGGUF()
    raw.add_tensor("big", (32, 1), F32, np.full(32, 1e6, "<f4").tobytes())
    source = raw.write(tmp_path / "in.gguf")
    with pytest.raises(QuantizeError, match="'big' has weights too large for F16"):
        quantize(source, tmp_path / "out.gguf", "F16")
    assert nothing_left(tmp_path)
    assert quantize(source, tmp_path / "out.gguf", "BF16").tensors[0].relative_error < 0.01


def test_progress_counts_weights_in_order(tmp_path: Path) -> None:
    """The callback sees every tensor, in file order, and ends at the total."""
    source = model(tmp_path)
    calls: list[tuple[int, int, str]] = []
    report = quantize(source, tmp_path / "out.gguf", "IQ3_K", progress=lambda *call: calls.append(call))
    assert [tensor.name for tensor in report.tensors] == list(dict.fromkeys(name for _, _, name in calls))
    assert sorted(done for done, _, _ in calls) == [done for done, _, _ in calls]
    assert (report.n_weights, {report.n_weights}) == (calls[-1][0], {total for _, total, _ in calls})


def test_report_as_dict_is_json(tmp_path: Path) -> None:
    """`to_dict` holds plain values: per tensor and in total."""
    import json

    report = quantize(model(tmp_path, n_layer=1), tmp_path / "out.gguf", "IQ3_K")
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert {"source", "destination", "type", "n_bytes", "bpw", "seconds", "tensors", "warnings"} <= set(found)
    assert len(report.tensors) == len(found["tensors"])
    assert report.tensors[0].relative_error == found["tensors"][0]["relative_error"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory")
def test_memory_is_bounded(tmp_path: Path) -> None:
    """A model of 128 MiB is quantized in a process that grows by a fraction of it."""
    raw = RawGGUF(infos=[], data=b"")
    rows = 8192
    raw.add_tensor("blk.0.ffn_up.weight", (4096, rows), F32, np.ones(4096 * rows, "<f4").tobytes())
    source = raw.write(tmp_path / "in.gguf")
    script = (
        "import resource, sys; from iqrun.quantizer import quantize\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "quantize(sys.argv[1], sys.argv[2], 'F16', n_threads=2)\n"
        "print(peak() - before)"
    )
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "out.gguf")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) < 48 << 10  # KiB
