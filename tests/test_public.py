"""The public face: what `iqrun` exports."""

from __future__ import annotations

import pytest

import iqrun

PUBLIC = {
    *("CancelledError", "ClosedError", "ContextFullError", "FormatError", "GGUFError", "IqrunError", "QuantizeError"),
    *("ResourceError", "StateError", "TemplateError", "TokenizerError", "UnsupportedModelError"),
    *("CancelToken", "Grammar", "GrammarError", "IncompleteError"),
    *("Chat", "GGUFFile", "Model", "SamplingOptions", "Session", "Tokenizer"),
    *(
        "__version__",
        "calibrate",
        "calibrated_encoder",
        "compare",
        "cpu_info",
        "divergence",
        "formats",
        "guard_mapped_files",
        "load",
        "measure_sensitivity",
        "perplexity",
    ),
    "quantize",
}


def test_all_is_pinned() -> None:
    """Adding or removing a public name is a decision, not an accident."""
    assert sorted(iqrun.__all__) == sorted(PUBLIC)
    assert set(dir(iqrun)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_can_be_had(name: str) -> None:
    """The lazy import finds each one."""
    assert getattr(iqrun, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    """As for any module."""
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = iqrun.nothing_here


def test_every_error_is_an_iqrun_error() -> None:
    """One except clause catches them all."""
    for name in PUBLIC:
        if name.endswith("Error"):
            assert issubclass(getattr(iqrun, name), iqrun.IqrunError)


def test_version_is_the_distribution_s() -> None:
    """The version comes from the metadata of the installed package."""
    from importlib.metadata import version

    assert iqrun.__version__ == version("iqrun")
