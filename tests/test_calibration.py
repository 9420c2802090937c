"""Calibration against numpy: the sums, the second moments, merging, going on, both file formats."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import iqrun
from iqrun.calibration import calibrate as calibrate_module
from iqrun.calibration import collector
from iqrun.calibration.calibrate import calibrate, merge_imatrices, moments_of
from iqrun.errors import IqrunError, QuantizeError
from iqrun.gguf import GGUFFile, keys
from iqrun.quantizer import GramFile, read_imatrix
from tests.gguf_builder import tiny_llama
from tests.reference_program import ReferenceSession

TEXT = " ".join(f"the {word} ran to the {word[::-1]} and took it" for word in ("dog", "cat", "mouse", "house", "tree"))
OTHER = " ".join(f"{word} is not a {word[1:]}" for word in ("mother", "brother", "flower", "bread", "stone", "water"))
N_CTX = 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "model.gguf")


@pytest.fixture
def model(path: Path) -> Iterator[iqrun.Model]:
    with iqrun.load(path, n_ctx=N_CTX, n_threads=2, kv_type="f32") as model:
        yield model


class Recorder(ReferenceSession):
    """Keeps the input of every product, by weight name."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.seen: dict[str, list[np.ndarray]] = {}
        self.dealt: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}  # with the expert of each row

    def _product(self, op, i):  # type: ignore[no-untyped-def]
        if op.weight[i].n_expert:
            self.dealt.setdefault(op.weight[i].name, []).append((self._get(op.src[0]), np.sort(self._experts.ravel())))
            return super()._product(op, i)
        self.seen.setdefault(op.weight[i].name, []).append(self._get(op.src[0]))
        return super()._product(op, i)


def reference(model: iqrun.Model, text: str, n_ctx: int = N_CTX) -> dict[str, np.ndarray]:
    """Per weight all its input rows, computed in float64."""
    ids = model.tokenizer.encode(text, add_special=True)
    seen: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(ids) - n_ctx + 1, n_ctx):
        session = Recorder(model.program)
        session.evaluate([model.tokenizer.bos_id, *ids[start + 1 : start + n_ctx]])  # type: ignore[list-item]
        for name, rows in session.seen.items():
            seen.setdefault(name, []).extend(rows)
    return {name: np.concatenate(rows) for name, rows in seen.items()}


def stored(path: Path, name: str) -> np.ndarray:
    with GGUFFile(path) as file:
        return file.tensor_bytes(name).view(np.float32).copy()


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3"])
def test_sums_are_those_of_numpy(arch: str, tmp_path: Path) -> None:
    """Every matmul input of every architecture, the output matrix included; counts are tokens."""
    out = tmp_path / "m.gguf"
    with iqrun.load(tiny_llama(tmp_path / "a.gguf", arch=arch), n_ctx=N_CTX, n_threads=2, kv_type="f32") as model:
        expected = reference(model, TEXT)
        calibrate(model, TEXT, out, n_ctx=N_CTX)
    names = {name.removesuffix(".in_sum2") for name in _tensors(out) if name.endswith(".in_sum2")}
    assert names == set(expected)
    assert {"output.weight", "blk.1.ffn_down.weight", "blk.0.attn_v.weight"} <= names
    for name, rows in expected.items():
        np.testing.assert_allclose(stored(out, f"{name}.in_sum2"), (rows**2).sum(axis=0), rtol=2e-3)
        assert stored(out, f"{name}.counts").tolist() == [len(rows)]


def test_experts_are_counted_apart(tmp_path: Path) -> None:
    """Each expert has the sums and the count of the rows that it meets; one that meets none has zeros."""
    out, source = tmp_path / "m.gguf", tiny_llama(tmp_path / "a.gguf", arch="qwen3moe", n_expert=40, n_used=2)
    with iqrun.load(source, n_ctx=N_CTX, n_threads=2, kv_type="f32") as model:
        calibrate(model, TEXT, out, n_ctx=N_CTX, max_chunks=1, full=True)
        session = Recorder(model.program)
        ids = model.tokenizer.encode(TEXT, add_special=True)[:N_CTX]
        session.evaluate([model.tokenizer.bos_id, *ids[1:]])  # type: ignore[list-item]
    for name, [(rows, experts)] in session.dealt.items():
        sums = np.zeros((40, rows.shape[1]))
        np.add.at(sums, experts, rows**2)
        counts = np.bincount(experts, minlength=40)
        assert counts.sum() == 2 * N_CTX and (counts == 0).any()
        np.testing.assert_allclose(stored(out, f"{name}.in_sum2").reshape(sums.shape), sums, rtol=2e-3, atol=1e-6)
        assert stored(out, f"{name}.counts").tolist() == counts.tolist()
    assert "blk.1.ffn_down_exps.weight" in session.dealt
    with GramFile(out) as grams:
        assert "blk.0.ffn_gate_inp.weight" in grams.sources and "blk.0.ffn_up_exps.weight" not in grams.sources
    target = tmp_path / "q.gguf"
    iqrun.quantize(source, target, "IQ4_K", imatrix=out)
    with iqrun.load(target, n_ctx=N_CTX) as model:
        assert np.isfinite(model.session().evaluate([1, 5])).all()


def _tensors(path: Path) -> list[str]:
    with GGUFFile(path) as file:
        return list(file.tensors)


def test_layout_is_llama_cpps(model: iqrun.Model, tmp_path: Path) -> None:
    """general.type, imatrix.* and the tensors' shapes, as the gguf package reads them."""
    gguf = pytest.importorskip("gguf")
    calibrate(model, TEXT, tmp_path / "m.gguf", n_ctx=N_CTX, max_chunks=2, dataset="story.txt")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert fields == {
        "general.type": "imatrix",
        "imatrix.datasets": ["story.txt"],
        "imatrix.chunk_count": 2,
        "imatrix.chunk_size": N_CTX,
    }
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
    assert shapes["blk.0.ffn_down.weight.in_sum2"] == [128, 1]
    assert shapes["blk.0.ffn_down.weight.counts"] == [1, 1]


def test_full_is_x_transposed_x(model: iqrun.Model, tmp_path: Path) -> None:
    """The second-moment matrices, shared by the weights of one input, and their diagonal equal to the sums."""
    out = tmp_path / "m.gguf"
    expected = reference(model, TEXT)
    calibrate(model, TEXT, out, n_ctx=N_CTX, full=True)
    with GramFile(out) as grams:
        assert set(grams.sources) == set(expected)
        assert grams.sources["blk.0.attn_v.weight"] == "blk.0.attn_q.weight"
        assert grams.of("nothing") is None
        for name, x in expected.items():
            gram = grams.of(name)
            assert gram is not None
            assert np.array_equal(gram, gram.T)
            np.testing.assert_allclose(gram, x.T @ x, atol=2e-3 * (x**2).sum(axis=0).max())
            np.testing.assert_allclose(np.diag(gram), stored(out, f"{name}.in_sum2"), rtol=1e-5)


def test_little_memory_gives_the_same_bytes(model: iqrun.Model, tmp_path: Path) -> None:
    """Second moments in several passes over the text are those of one pass."""
    calibrate(model, TEXT, tmp_path / "a.gguf", n_ctx=N_CTX, full=True)
    total = []
    calibrate(
        model,
        TEXT,
        tmp_path / "b.gguf",
        n_ctx=N_CTX,
        full=True,
        gram_bytes=1,
        progress=lambda done, of: total.append((done, of)),
    )
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    assert total[-1][0] == total[-1][1] == len(total)
    assert len(total) % 9 == 0  # 4 inputs in each of 2 layers, and the output


def test_chunks_longer_than_a_step(tmp_path: Path) -> None:
    """A context beyond the engine's batch is run in several steps of one sequence."""
    text = (TEXT + " " + OTHER + " ") * 8
    with iqrun.load(tiny_llama(tmp_path / "a.gguf", n_ctx=2048), n_ctx=600, n_threads=2, kv_type="f32") as model:
        expected = reference(model, text, 600)
        calibrate(model, text, tmp_path / "m.gguf", n_ctx=600)
    name = "blk.1.attn_output.weight"
    assert len(expected[name]) >= 600
    np.testing.assert_allclose(stored(tmp_path / "m.gguf", f"{name}.in_sum2"), (expected[name] ** 2).sum(0), rtol=2e-3)


@pytest.mark.parametrize("full", [False, True])
def test_merging_equals_one_run_over_both_texts(model: iqrun.Model, tmp_path: Path, full: bool) -> None:
    """Sums, counts, chunks and second moments add up, while computing and afterwards."""
    a, b, c, d = (tmp_path / f"{letter}.gguf" for letter in "abcd")
    calibrate(model, TEXT, a, n_ctx=N_CTX, full=full, dataset="one")
    both = calibrate(model, OTHER, b, n_ctx=N_CTX, full=full, dataset="two", merge=[a])
    calibrate(model, OTHER, c, n_ctx=N_CTX, full=full, dataset="two")
    added = merge_imatrices([c, a], d, full=full, n_ctx=N_CTX)
    assert (both.datasets, added.datasets) == (("two", "one"), ("two", "one"))
    first, second = reference(model, TEXT), reference(model, OTHER)
    assert both.n_chunks == added.n_chunks == (len(first["output.weight"]) + len(second["output.weight"])) // N_CTX
    for name in first:
        rows = np.concatenate([first[name], second[name]])
        for path in (b, d):
            np.testing.assert_allclose(stored(path, f"{name}.in_sum2"), (rows**2).sum(axis=0), rtol=2e-3)
            assert stored(path, f"{name}.counts").tolist() == [len(rows)]
        np.testing.assert_allclose(stored(b, f"{name}.in_sum2"), stored(d, f"{name}.in_sum2"), rtol=1e-6)
        if full:
            alone = stored(a, f"{name}.in_gram") if name == "output.weight" else None
            with GramFile(b) as grams, GramFile(a) as one, GramFile(c) as two:
                np.testing.assert_array_equal(grams.triangle(name), two.triangle(name) + one.triangle(name))
            assert alone is None or alone.any()


def test_both_formats_say_the_same(model: iqrun.Model, tmp_path: Path) -> None:
    """GGUF and .dat hold the same means; a .dat merges with the context as its chunk length."""
    one = calibrate(model, TEXT, tmp_path / "m.gguf", n_ctx=N_CTX, dataset="t")
    two = calibrate(model, TEXT, tmp_path / "m.dat", n_ctx=N_CTX, dataset="t")
    assert (one.is_legacy, two.is_legacy) == (False, True)
    assert (one.n_chunks, one.dataset, list(one.entries)) == (two.n_chunks, two.dataset, list(two.entries))
    for name, values in one.entries.items():
        np.testing.assert_allclose(values, two.entries[name], rtol=1e-6)
    back = merge_imatrices([tmp_path / "m.dat"], tmp_path / "back.gguf", n_ctx=N_CTX)
    for name, entry in moments_of(back).items():
        assert entry.counts.tolist() == one.counts[name].tolist()
        np.testing.assert_allclose(entry.mean_square[0], one.entries[name], rtol=1e-6)


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("full", [False, True])
def test_resuming_gives_the_same_bytes(
    model: iqrun.Model, tmp_path: Path, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped anywhere, in any pass: what was counted is not counted again, and the file is the same."""
    monkeypatch.setattr(calibrate_module._Interval, "is_over", lambda self: True)
    whole, out = tmp_path / "whole.gguf", tmp_path / "out.gguf"
    options = {"n_ctx": N_CTX, "full": full, "gram_bytes": 60_000}
    calls: list[int] = []
    calibrate(model, TEXT, whole, progress=lambda done, _: calls.append(done), **options)  # type: ignore[arg-type]
    assert len(calls) > (8 if full else 3)

    def dies_at(last: int) -> Callable[[int, int], None]:
        def progress(done: int, total: int) -> None:
            seen.append(done)
            if done == last:
                raise Killed

        return progress

    seen: list[int] = []
    for last in calls[1::2]:
        with pytest.raises(Killed):
            calibrate(model, TEXT, out, resume=True, progress=dies_at(last), **options)  # type: ignore[arg-type]
        assert not out.exists()
    (tmp_path / ".out.gguf.part0.01234567.part").write_bytes(b"killed while it was written")
    calibrate(model, TEXT, out, resume=True, progress=dies_at(0), **options)  # type: ignore[arg-type]
    assert whole.read_bytes() == out.read_bytes()
    assert len(seen) == len(calls) + len(calls[1::2])  # each death costs the chunk that it interrupts
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.gguf", "out.gguf", "whole.gguf"]


def test_a_part_of_another_job_is_refused(model: iqrun.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another text is another job; a damaged part is named; without resuming both are ignored."""
    monkeypatch.setattr(calibrate_module._Interval, "is_over", lambda self: True)
    out = tmp_path / "out.gguf"

    def die(done: int, total: int) -> None:
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        calibrate(model, TEXT, out, n_ctx=N_CTX, progress=die)
    with pytest.raises(QuantizeError, match=r"out\.gguf\.part0 was kept by a job with another"):
        calibrate(model, OTHER, out, n_ctx=N_CTX, resume=True)
    (tmp_path / "out.gguf.part0").write_bytes(b"GGUF")
    with pytest.raises(QuantizeError, match="start without resuming"):
        calibrate(model, TEXT, out, n_ctx=N_CTX, resume=True)
    assert calibrate(model, OTHER, out, n_ctx=N_CTX).entries


def test_what_cannot_work_is_told_before_the_work(model: iqrun.Model, path: Path, tmp_path: Path) -> None:
    """Outputs and inputs that do not fit: one clear error, no file, no progress."""

    def never(done: int, total: int) -> None:
        raise AssertionError("the work began")

    calibrate(model, TEXT, tmp_path / "a.gguf", n_ctx=N_CTX)
    for error, match, options in [
        (QuantizeError, "exists", {"out": tmp_path / "a.gguf"}),
        (QuantizeError, "is the input", {"out": path, "overwrite": True}),
        (QuantizeError, "does not exist", {"out": tmp_path / "none" / "b.gguf"}),
        (QuantizeError, "cannot be read", {"merge": [tmp_path / "none"]}),
        (QuantizeError, "no second-moment matrices", {"merge": [tmp_path / "a.gguf"], "full": True}),
        (ValueError, "cannot hold second-moment", {"out": tmp_path / "b.dat", "full": True}),
        (ValueError, "a chunk of 4096", {"n_ctx": 4096}),
        (ValueError, "max_chunks", {"max_chunks": 0}),
    ]:
        with pytest.raises(error, match=match):
            calibrate(model, TEXT, **{"out": tmp_path / "b.gguf", "n_ctx": N_CTX, "progress": never, **options})  # type: ignore[arg-type]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gguf", "model.gguf"]


def test_matrices_of_another_model_do_not_merge(model: iqrun.Model, tmp_path: Path) -> None:
    """Entries of another length, and second moments of another size, are named."""
    other = tiny_llama(tmp_path / "wide.gguf", n_ff=96)
    with iqrun.load(other, n_ctx=N_CTX, n_threads=1) as wide:
        calibrate(wide, TEXT, tmp_path / "wide.imatrix", n_ctx=N_CTX, full=True)
    calibrate(model, TEXT, tmp_path / "a.gguf", n_ctx=N_CTX, full=True)
    for full in (False, True):
        with pytest.raises(QuantizeError, match=r"'blk\.0\.ffn_down\.weight' have 128 and 96 values"):
            merge_imatrices([tmp_path / "a.gguf", tmp_path / "wide.imatrix"], tmp_path / "b.gguf", full=full)
    with pytest.raises(ValueError, match="nothing to merge"):
        merge_imatrices([], tmp_path / "b.gguf")


def test_damaged_weights_are_told(tmp_path: Path) -> None:
    """NaN activations name the matrix that would have seen them."""
    path = tiny_llama(tmp_path / "model.gguf")
    with GGUFFile(path) as file:
        info = file.tensors["blk.1.attn_norm.weight"]
    data = bytearray(path.read_bytes())
    data[info.offset : info.offset + 4] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    with iqrun.load(path, n_ctx=N_CTX) as model, pytest.raises(IqrunError, match=r"NaN .* 'blk\.1\.attn_q\.weight'"):
        calibrate(model, TEXT, tmp_path / "m.gguf", n_ctx=N_CTX)
    assert not (tmp_path / "m.gguf").exists()


def test_the_quantizer_takes_it(path: Path, model: iqrun.Model, tmp_path: Path) -> None:
    """A full matrix guides like any other; every matrix of the model has an entry."""
    calibrate(model, TEXT, tmp_path / "m.gguf", n_ctx=N_CTX, full=True, dataset="t.txt")
    report = iqrun.quantize(path, tmp_path / "q.gguf", "IQ4_NL", imatrix=tmp_path / "m.gguf", pure=True)
    guided = {tensor.name for tensor in report.tensors if tensor.weighted}
    assert guided == set(read_imatrix(tmp_path / "m.gguf").entries)
    with GGUFFile(tmp_path / "q.gguf") as file:
        assert file.metadata[keys.QUANTIZE_IMATRIX_DATASET] == "t.txt"


def test_passes_are_cut_by_memory() -> None:
    """As many inputs as fit, at least one, in order."""
    inputs = [collector.Input(op, (f"w{op}",), n) for op, n in enumerate((7, 7, 15, 7))]
    sizes = [4 * n * (n + 1) // 2 for n in (7, 7, 15, 7)]
    cut = [[i.op for i in run] for run in collector.passes(inputs, sizes[0] * 2)]
    assert cut == [[0, 1], [2], [3]]
    assert [[i.op for i in run] for run in collector.passes(inputs, sum(sizes))] == [[0, 1, 2, 3]]


def test_files_that_lie_are_merged_or_refused(tmp_path: Path) -> None:
    """Huge counts are cut to what the formats hold; sums beyond float32 name the entry; no file is left."""
    values = np.full(4, 3e38, "<f4").tobytes()
    entry = struct.pack("<i", 1) + b"a" + struct.pack("<ii", 1, 4) + values
    (tmp_path / "m.dat").write_bytes(struct.pack("<i", 1) + entry + struct.pack("<i", 2**31 - 1))
    merged = merge_imatrices([tmp_path / "m.dat"], tmp_path / "one.gguf", n_ctx=1)
    assert (merged.n_chunks, merged.entries["a"][0]) == (2**31 - 1, np.float32(3e38))
    for name in ("two.gguf", "two.dat"):
        with pytest.raises(QuantizeError, match="the sums of 'a' are too large"):
            merge_imatrices([tmp_path / "m.dat", tmp_path / "m.dat"], tmp_path / name, n_ctx=16)
        assert not (tmp_path / name).exists()
