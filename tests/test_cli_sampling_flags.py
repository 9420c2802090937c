"""The options of sampling: one table for the command line and for `/set`."""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import fields
from typing import Any

import pytest

from iqrun import SamplingOptions
from iqrun.cli import options, sampling_flags
from iqrun.cli.sampling_flags import BY_NAME, FLAGS, Flag


def parsed(*words: str) -> SamplingOptions:
    parser = argparse.ArgumentParser()
    options.add_sampling_options(parser)
    return options.sampling(parser.parse_args(words))


def test_every_option_has_a_flag() -> None:
    """All but functions can be given on the command line; without any, the defaults are the library's."""
    assert {flag.field for flag in FLAGS} == {field.name for field in fields(SamplingOptions)} - {"processors"}
    assert parsed() == SamplingOptions()


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_help_tells_the_true_default(flag: Flag) -> None:
    """The default in the help is the value that the option has."""
    told = re.search(r"\(default ([^)]*?)(: [a-z ]*)?\)$", flag.help)
    assert told is not None
    text = told[1]
    if flag.name == "dry-sequence-breaker":
        assert tuple(text.replace("\\n", "\n").split(" ")) == SamplingOptions().dry_sequence_breakers
        return
    field, value = sampling_flags.parse(flag.name, text)
    assert getattr(SamplingOptions(**{field: value}), field) == getattr(SamplingOptions(), field)


SOME: dict[str, Any] = {
    "temp": 0.3, "top-k": 7, "top-p": 0.5, "min-p": 0.25, "seed": 5, "repeat-last-n": -1, "repeat-penalty": 1.5,
    "presence-penalty": 0.5, "frequency-penalty": -0.5, "dry-multiplier": 0.5, "dry-base": 2.0, "dry-allowed-length": 3,
    "dry-penalty-last-n": 9, "dry-sequence-breaker": ("a b", "\n", "'"), "top-n-sigma": 1.5, "typical": 0.5,
    "xtc-probability": 0.5, "xtc-threshold": 0.25, "dynatemp-range": 0.5, "dynatemp-exp": 2.0, "mirostat": 2,
    "mirostat-ent": 4.0, "mirostat-lr": 0.25, "samplers": ("min_p", "temperature"), "ignore-eos": True,
    "logit-bias": {3: 1.5, 4: -math.inf},
}  # fmt: skip


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_what_set_shows_can_be_typed_again(flag: Flag) -> None:
    """For a value that is not the default."""
    changed = SamplingOptions(**{flag.field: SOME[flag.name]})
    assert changed != SamplingOptions()
    name, _, text = sampling_flags.shown(flag, changed).partition(" ")
    field, value = sampling_flags.parse(name, text)
    assert SamplingOptions(**{field: value}) == changed


def test_command_line() -> None:
    """Values, several values, switches, and none."""
    found = parsed("--temp", "0.5", "-l", "3+2", "-l", "4-inf", "--ignore-eos", "--sampling-seq", "kt", "-s", "9")
    expected = {
        "temperature": 0.5,
        "logit_bias": {3: 2.0, 4: -math.inf},
        "ignore_eos": True,
        "samplers": "kt",
        "seed": 9,
    }
    assert found == SamplingOptions(**expected)
    assert parsed("--dry-sequence-breaker", "none").dry_sequence_breakers == ()
    assert parsed("--dry-sequence-breaker", "\\n", "--dry-sequence-breaker", "x").dry_sequence_breakers == ("\n", "x")
    assert parsed("--seed", "-1").seed is None


@pytest.mark.parametrize("words", [["--top-k", "many"], ["--logit-bias", "5"], ["--logit-bias", "a+1"]])
def test_wrong_values_are_refused_by_the_parser(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With the option's name."""
    with pytest.raises(SystemExit):
        parsed(*words)
    assert words[0] in capsys.readouterr().err


def test_names_are_llama_cpps() -> None:
    """Someone who comes from llama-cli finds them."""
    assert {"temp", "top-k", "typical", "xtc-probability", "dry-multiplier", "mirostat-ent", "samplers"} <= set(BY_NAME)
