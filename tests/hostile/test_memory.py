"""Memory that is not there: refused before it is taken, or an error that leaves everything usable."""

from __future__ import annotations

import sys

import pytest

from tests.hostile.test_mapped_files import run_script


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
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
