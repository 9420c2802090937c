"""Memory that is not there: refused before it is taken, or an error that leaves everything usable."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from iqrun.tokenizer.bpe import BYTE_OF_LETTER
from tests.emulated import EMULATED
from tests.hostile.test_mapped_files import run_script
from tests.tokenizer_reference import write_vocabulary


@pytest.mark.skipif(sys.platform != "linux" or EMULATED, reason="limits the address space, which emulators do not")
def test_an_allocation_that_fails_leaves_the_model_usable() -> None:
    """With 200 MB of address space left, a context of 350 MB is a ResourceError; smaller ones and the model still work,
    and a copy of the file that does not fit is refused, too."""
    found = run_script(
        """
        import resource, sys
        import iqrun
        from iqrun.models.demo import model_path
        with iqrun.load(model_path(), n_threads=1, n_ctx=256) as model:
            text = model.complete("Once", max_tokens=4, temperature=0)
            pages = int(open("/proc/self/statm").read().split()[0])
            limit = pages * resource.getpagesize() + 200_000_000
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            for _ in range(3):
                try:
                    model.session(n_ctx=1 << 18)
                except iqrun.ResourceError as error:
                    assert "n_ctx" in str(error) or "memory" in str(error), error
                else:
                    sys.exit("it fitted")
            model.session(n_ctx=512).close()
            assert model.complete("Once", max_tokens=4, temperature=0) == text
        """
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
@pytest.mark.parametrize("room", [0, 100_000, 5_000_000])
def test_a_disk_that_takes_no_more_leaves_nothing_behind(tmp_path: Path, room: int) -> None:
    """The system refuses to write beyond a limit: quantizing is a ResourceError that says how much is needed."""
    found = run_script(
        """
        import resource, sys
        import iqrun
        from iqrun.models.demo import model_path
        room = int(sys.argv[2])
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        try:
            iqrun.quantize(model_path(), sys.argv[1], "IQ4_KS", effort="fast", n_threads=2)
        except iqrun.ResourceError as error:
            print(error)
        """,
        tmp_path / "out.gguf",
        room,
    )
    assert found.returncode == 0, found.stderr
    assert re.search(r"out.gguf: the disk is full; the file needs \d+ bytes, and nothing was left behind", found.stdout)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_tokenizers_that_are_made_again_and_again_leave_nothing(tmp_path: Path) -> None:
    """The words that a byte-level BPE library remembers outlived its tokenizers: 1.5 KB of each, found by fuzzing."""
    path = write_vocabulary(tmp_path / "v.gguf", "gpt2", [*BYTE_OF_LETTER, "<|end|>"], merges=[], pre="gpt-2")
    found = run_script(
        """
        import gc, resource, sys
        from iqrun.tokenizer import Tokenizer
        def rss():
            gc.collect()
            return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
        def once():
            Tokenizer.from_gguf(sys.argv[1]).encode("Once upon a time, hello")
        for _ in range(300):
            once()
        before = rss()
        for _ in range(1500):
            once()
        print(rss() - before)
        """,
        path,
    )
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) < 600_000
