"""iqrun quantize: its output, its exit codes, its manners."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iqrun.cli.main import main
from iqrun.cli.options import byte_size
from iqrun.gguf import GGUFFile
from tests.gguf_builder import tiny_llama


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "in.gguf", n_embd=256, n_ff=512, n_layer=1, weight_type="F16")


def quantize(*words: object) -> int:
    return main(["quantize", *(str(word) for word in words)])


def test_prints_table_and_totals(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line per tensor with type, bits and error, then the totals; nothing but warnings on stderr."""
    out = tmp_path / "out.gguf"
    assert quantize(source, out, "iq4_ks", "--threads", 2) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].split()[:6] == ["tensor", "shape", "from", "to", "bpw", "error"]
    with GGUFFile(out) as file:
        assert list(file.tensors) == [line.split()[0] for line in lines[1 : 1 + len(file.tensors)]]
        assert file.tensors["blk.0.attn_q.weight"].type.name == "IQ4_KS"
    line = next(line.split() for line in lines if line.startswith("blk.0.attn_q"))
    assert line[1:5] == ["256x256", "F16", "IQ4_KS", "4.375"]
    assert 0 < float(line[5]) < 15
    assert f"{out.stat().st_size} bytes" in lines[-1]
    assert captured.err == ""


def test_json_report(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints the whole report and nothing else on stdout."""
    assert quantize(source, tmp_path / "out.gguf", "IQ4_K", "--json", "--effort", "fast") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["type"], report["effort"], report["dry_run"]) == ("IQ4_K", "fast", False)
    assert (tmp_path / "out.gguf").stat().st_size == report["n_bytes"]
    assert {"name", "shape", "source", "target", "bpw", "relative_error", "fallback"} <= set(report["tensors"][0])


def test_calibrate_and_feedback(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both write files of the same size and other bytes; options that do not go together are refused."""
    text, matrix, plain = tmp_path / "text.txt", tmp_path / "full.gguf", tmp_path / "plain.gguf"
    text.write_text("the dog ran to the house and took the bread " * 20)
    assert main(["imatrix", "-m", str(source), "-f", str(text), "-o", str(matrix), "--full", "--ctx", "32"]) == 0
    assert quantize(source, plain, "IQ2_K", "--imatrix", matrix) == 0
    for name, options in (("a", ["--imatrix", matrix, "--feedback"]), ("b", ["--calibrate", text, "--ctx", 32])):
        assert quantize(source, tmp_path / name, "IQ2_K", *options) == 0
        assert (tmp_path / name).stat().st_size <= plain.stat().st_size
        assert (tmp_path / name).read_bytes() != plain.read_bytes()
    assert "without an importance matrix" not in capsys.readouterr().err
    assert quantize(source, tmp_path / "c", "IQ2_K", "--feedback") == 2
    assert "--imatrix" in capsys.readouterr().err
    assert quantize(source, tmp_path / "c", "IQ2_K", "--calibrate", text, "--ctx", 4096) == 2
    assert "tokens" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_awq(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--awq goes with every way to encode, leaves only OUT, says so in the file, and needs an importance matrix."""
    text, matrix = tmp_path / "text.txt", tmp_path / "full.gguf"
    text.write_text("the dog ran to the house and took the bread " * 20)
    assert main(["imatrix", "-m", str(source), "-f", str(text), "-o", str(matrix), "--full", "--ctx", "32"]) == 0
    awq = ["--awq", "--imatrix", matrix, "--effort", "fast"]
    for options in ([], ["--feedback"], ["--calibrate", text, "--ctx", 32], ["--resume", "--max-shard-size", "1G"]):
        capsys.readouterr()
        assert quantize(source, tmp_path / "dry", "IQ3_K", *awq, *options, "--dry-run", "--json") == 0
        planned = json.loads(capsys.readouterr().out)
        assert quantize(source, tmp_path / "out", "IQ3_K", *awq, *options, "--json") == 0
        report = json.loads(capsys.readouterr().out)
        assert report["source"] == planned["source"] == str(source)
        assert report["source_bytes"] == source.stat().st_size
        assert report["n_bytes"] == planned["n_bytes"] == (tmp_path / "out").stat().st_size
        with GGUFFile(tmp_path / "out") as file:
            assert file.metadata.get_str("iqrun.quantize.scaling") == "activation-aware"
        (tmp_path / "out").unlink()
    assert quantize(source, tmp_path / "out", "--target-bpw", 4, *awq) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full.gguf", "in.gguf", "out", "text.txt"]
    assert quantize(source, tmp_path / "c", "IQ3_K", "--awq") == 2
    assert "--imatrix" in capsys.readouterr().err
    assert quantize(source, tmp_path / "out", "IQ3_K", *awq) == 1
    assert "exists" in capsys.readouterr().err


def test_report_file(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--report writes the charts beside the table; a name that cannot be is told before any work."""
    page, out = tmp_path / "report.html", tmp_path / "out.gguf"
    assert quantize(source, out, "IQ4_K", "--report", tmp_path / "report.gif") == 2
    assert "must end in one of" in capsys.readouterr().err
    assert not out.exists()
    assert quantize(source, out, "IQ4_K", "--report", page, "--effort", "fast") == 0
    assert "blk.0.attn_q.weight" in page.read_text(encoding="utf-8")


def test_options_reach_the_quantizer(source: Path, tmp_path: Path) -> None:
    """Overrides, pure, keep-f32 and the types of embedding and output."""
    out = tmp_path / "out.gguf"
    rules = ["--tensor-type", "attn_q=Q8_0", "--tensor-type", "attn_(k|q)=iq5_k", "--keep-f32", "attn_v"]
    assert quantize(source, out, "IQ2_K", "--pure", *rules, "--output-type", "q6_k", "--embedding-type", "Q4_0") == 0
    with GGUFFile(out) as file:
        found = {name: info.type.name for name, info in file.tensors.items()}
    wanted = {"attn_q": "Q8_0", "attn_k": "IQ5_K", "attn_v": "F32", "attn_output": "IQ2_K", "ffn_up": "IQ2_K"}
    assert wanted == {name: found[f"blk.0.{name}.weight"] for name in wanted}
    assert (found["output.weight"], found["token_embd.weight"]) == ("Q6_K", "Q4_0")


def test_dry_run_writes_nothing(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--dry-run shows types and the exact size; a low-bit type without importance matrix gets a warning."""
    out = tmp_path / "out.gguf"
    assert quantize(source, out, "IQ2_K", "--dry-run") == 0
    captured = capsys.readouterr()
    assert not out.exists()
    assert "nothing written" in captured.out
    assert "warning: IQ2_K without an importance matrix" in captured.err
    size = int(captured.out.split(" bytes)")[0].rsplit("(", 1)[1])
    assert quantize(source, out, "IQ2_K") == 0
    assert size == out.stat().st_size


def test_searched_mix(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A target instead of a type, measured on a text, in several files, with hashes."""
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat " * 200)
    words = ["--target-bpw", "4.5", "--include-types", "iq2_k, IQ4_K,iq6_k", "--measure", text]
    assert quantize(source, tmp_path / "out.gguf", *words, "--max-shard-size", "250K", "--hash", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert 4.3 < report["bpw"] <= 4.5
    assert {"F32", "IQ2_K", "IQ4_K", "IQ6_K"} >= {tensor["target"] for tensor in report["tensors"]}
    shards = sorted(tmp_path.glob("out-*-of-*.gguf"))
    assert len(shards) > 1
    assert all(path.stat().st_size <= 250_000 for path in shards)
    assert quantize(source, tmp_path / "best.gguf", "IQ3_K", "--best-mix", "--dry-run") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("IQ3_K: ")


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("123", 123), ("2G", 2 * 10**9), ("1.5 GiB", 3 << 29), ("700m", 700 * 10**6), ("2KB", 2000), ("10kib", 10240)],
)
def test_sizes_as_people_write_them(text: str, n_bytes: int) -> None:
    """K, M and G are decimal, KiB and so on binary."""
    assert n_bytes == byte_size(text)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["a", "b"],
        ["a", "b", "IQ9_K"],
        ["a", "b", "Q2_K"],
        ["a", "b", "IQ3_K", "--embedding-type", "Q4_K"],
        ["a", "b", "IQ3_K", "--threads", "x"],
        ["a", "b", "IQ3_K", "--threads", "0"],
        ["a", "b", "IQ3_K", "--effort", "hard"],
        ["a", "b", "IQ3_K", "--tensor-type", "ffn"],
        ["a", "b", "IQ3_K", "--tensor-type", "ffn=IQ9"],
        ["a", "b", "IQ3_K", "--tensor-type", "(=IQ3_K"],
        ["a", "b", "IQ3_K", "--keep-f32", "["],
        ["a", "b", "IQ3_K", "--output-type", ""],
        ["a", "b", "IQ3_K", "--target-bpw", "3"],
        ["a", "b", "IQ3_K", "--include-types", "IQ3_K"],
        ["a", "b", "IQ3_K", "--measure", "text"],
        ["a", "b", "--target-size", "2X"],
        ["a", "b", "--target-bpw", "3", "--include-types", "IQ9"],
        ["a", "b", "--target-bpw", "3", "--target-size", "2G"],
        ["a", "b", "IQ3_K", "--max-shard-size", "-1"],
    ],
)
def test_misuse_exits_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line: exit code 2, the reason on stderr, nothing on stdout."""
    try:
        code = quantize(*words)
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert captured.err


def test_a_rule_that_matches_nothing_is_told(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A slip in a regular expression must not pass silently: the job may take hours."""
    rules = ("--tensor-type", "ffn_dwon=IQ6_K", "--tensor-type", "attn_v=IQ6_K", "--keep-f32", "atn_q")
    assert quantize(source, tmp_path / "out.gguf", "IQ4_K", "--dry-run", *rules) == 0
    err = capsys.readouterr().err
    assert "'ffn_dwon' is found in no tensor's name" in err
    assert "'atn_q' is found in no tensor's name" in err
    assert "attn_v" not in err


def test_failure_exits_with_1_and_one_sentence(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing input, an existing output, the input as output: code 1 and one line naming the file."""
    (tmp_path / "there.gguf").write_bytes(b"x")
    for words, text in [
        ((tmp_path / "absent.gguf", tmp_path / "out.gguf", "IQ3_K"), "absent.gguf: cannot open it"),
        ((source, tmp_path / "there.gguf", "IQ3_K"), "there.gguf exists"),
        ((source, source, "IQ3_K", "--overwrite"), "is the input"),
        ((source, tmp_path / "o", "IQ3_K", "--imatrix", tmp_path / "none"), "importance matrix cannot be read"),
    ]:
        assert quantize(*words) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert text in captured.err
        assert captured.err.count("\n") == 1


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """-h lists every option and examples."""
    with pytest.raises(SystemExit) as stop:
        quantize("-h")
    text = capsys.readouterr().out
    assert not stop.value.code
    for word in (
        "--imatrix",
        "--pure",
        "--resume",
        "--target-size",
        "--dry-run",
        "--overwrite",
        "examples:",
        "IQ3_K --imatrix",
    ):
        assert word in text


@pytest.mark.skipif(sys.platform != "linux", reason="POSIX signals")
def test_termination_leaves_nothing_behind(tmp_path: Path) -> None:
    """SIGTERM in the middle of a long job: the temporary file goes too."""
    large = tiny_llama(tmp_path / "in.gguf", n_embd=1024, n_ff=4096, n_layer=1, weight_type="F16")
    out = tmp_path / "folder" / "out.gguf"
    out.parent.mkdir()
    command = [
        sys.executable,
        "-m",
        "iqrun",
        "quantize",
        str(large),
        str(out),
        "IQ2_K",
        "--effort",
        "best",
        "-t",
        "1",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    while not list(out.parent.iterdir()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[1] == b""
    assert process.returncode == 128 + signal.SIGTERM
    assert list(out.parent.iterdir()) == []


def test_works_in_a_pipe(source: Path, tmp_path: Path) -> None:
    """In a pipe there is no progress bar; a reader that goes away early is no error message."""
    command = [sys.executable, "-m", "iqrun", "quantize", str(source), str(tmp_path / "out.gguf"), "IQ4_K"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("tensor")
    shell = f"'{sys.executable}' -m iqrun inspect --json '{source}' | head -c 10"
    piped = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
    assert piped.stderr == ""
