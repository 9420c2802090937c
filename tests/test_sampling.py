import numpy as np
import pytest

from iqrun.errors import IqrunError
from iqrun.sampling import (
    Candidates,
    Sampler,
    SamplingOptions,
    apply_repeat_penalty,
    draw,
    greedy,
    min_p,
    nucleus,
    top_k,
    top_p,
)


def logits_of(*probabilities: float) -> np.ndarray:
    return np.log(np.asarray(probabilities, np.float32))


def sorted_candidates(logits: np.ndarray) -> Candidates:
    order = np.argsort(-logits, kind="stable")
    return Candidates(order, logits[order])


def test_greedy_takes_the_best_and_of_equals_the_lowest_id() -> None:
    """The arg max; ties are broken by id."""
    assert greedy(np.array([0.1, 3.0, 3.0, -1.0], np.float32)) == 1


def test_repeat_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    """Each recent token once, whatever how often it occurred; the input is left alone."""
    logits = np.array([2.0, -2.0, 4.0, 0.0], np.float32)
    out = apply_repeat_penalty(logits, [0, 1, 1, 3], 2.0)
    assert out.tolist() == [1.0, -4.0, 4.0, 0.0]
    assert logits.tolist() == [2.0, -2.0, 4.0, 0.0]


@pytest.mark.parametrize("n_vocab", [7, 97, 4096, 32003, 128256])
@pytest.mark.parametrize("k", [1, 2, 40])
def test_top_k_equals_a_full_sort(n_vocab: int, k: int) -> None:
    """The shortcut for large vocabularies finds exactly what a stable sort finds, ties included."""
    rng = np.random.default_rng(n_vocab + k)
    logits = np.round(rng.normal(size=n_vocab).astype(np.float32), 1)  # many ties
    expected = np.argsort(-logits, kind="stable")[:k]
    ids, values = top_k(logits, k)
    assert ids.tolist() == expected.tolist()
    assert values.tolist() == logits[expected].tolist()


def test_top_k_finds_winners_that_share_a_column_of_the_reduction() -> None:
    """The bound from column maxima holds when the best logits all stand in one column."""
    logits = np.zeros(128256, np.float32)
    logits[:: 128256 // 64] = np.arange(len(logits[:: 128256 // 64])) + 1
    expected = np.argsort(-logits, kind="stable")[:40]
    assert top_k(logits, 40).ids.tolist() == expected.tolist()


def test_top_p_keeps_the_shortest_head_that_reaches_p() -> None:
    """0.5 + 0.3 reaches 0.75, and exactly 0.5 is reached by the first alone; at least one stays."""
    candidates = sorted_candidates(logits_of(0.05, 0.5, 0.15, 0.3))
    assert top_p(candidates, 0.75).ids.tolist() == [1, 3]
    assert top_p(candidates, 0.499).ids.tolist() == [1]
    assert top_p(candidates, 0.0).ids.tolist() == [1]
    assert top_p(candidates, 1.0).ids.tolist() == [1, 3, 2, 0]


def test_min_p_is_relative_to_the_best() -> None:
    """With p = 0.25 a token of 0.15 stays beside one of 0.5, one of 0.05 does not."""
    candidates = sorted_candidates(logits_of(0.05, 0.5, 0.15, 0.3))
    assert min_p(candidates, 0.25).ids.tolist() == [1, 3, 2]
    assert min_p(candidates, 0.0).ids.tolist() == [1, 3, 2, 0]
    assert min_p(candidates, 1.0).ids.tolist() == [1]


@pytest.mark.parametrize("p", [0.1, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("floor", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("scale", [0.2, 3.0])
def test_nucleus_equals_top_p_and_min_p_of_the_sorted_vocabulary(p: float, floor: float, scale: float) -> None:
    """Without top-k, the shortcut gives what sorting everything gives, for flat and for peaked distributions."""
    logits = (np.random.default_rng(5).normal(size=5000) * scale).astype(np.float32)
    expected = min_p(top_p(sorted_candidates(logits), p), floor)
    assert nucleus(logits, p, floor).ids.tolist() == expected.ids.tolist()


def test_draw_follows_the_probabilities() -> None:
    """20 000 draws at temperature 1 match 0.5, 0.3, 0.2 within 0.015; at 0.5 they match the squared ones."""
    candidates = sorted_candidates(logits_of(0.5, 0.3, 0.2))
    random = np.random.default_rng(3)
    for temperature, weights in ((1.0, np.array([0.5, 0.3, 0.2])), (0.5, np.array([0.25, 0.09, 0.04]))):
        counts = np.bincount([draw(candidates, temperature, random) for _ in range(20000)], minlength=3)
        assert counts / 20000 == pytest.approx(weights / weights.sum(), abs=0.015)


def test_tiny_temperature_takes_the_best() -> None:
    """A temperature that makes the quotient overflow is greedy, without a warning."""
    candidates = sorted_candidates(logits_of(0.2, 0.8))
    assert draw(candidates, 1e-300, np.random.default_rng(0)) == 1


def test_sampler_with_a_seed_repeats_itself() -> None:
    """The same seed gives the same tokens, another seed gives others."""
    logits = np.random.default_rng(1).normal(size=1000).astype(np.float32)

    def tokens(seed: int) -> list[int]:
        sampler = Sampler(SamplingOptions(seed=seed))
        return [sampler(logits) for _ in range(50)]

    assert tokens(7) == tokens(7)
    assert tokens(7) != tokens(8)


def test_sampler_defaults_are_llama_cpps() -> None:
    """0.8, 40, 0.95, 0.05, no penalty over 64."""
    o = SamplingOptions()
    assert (o.temperature, o.top_k, o.top_p, o.min_p, o.repeat_penalty, o.repeat_last_n) == (
        0.8,
        40,
        0.95,
        0.05,
        1.0,
        64,
    )


def test_sampler_draws_only_what_the_chain_keeps() -> None:
    """top_k 3 with top_p and min_p off draws the three best and nothing else."""
    logits = np.arange(100, dtype=np.float32) * 0.01
    sampler = Sampler(SamplingOptions(top_k=3, top_p=1.0, min_p=0.0, seed=1))
    assert {sampler(logits) for _ in range(200)} == {97, 98, 99}


def test_sampler_penalty_looks_only_so_far_back() -> None:
    """Token 1 is the best and was drawn three tokens ago: with repeat_last_n 2 it is drawn again, with 3 it is not."""
    logits = np.array([1.0, 1.5, 0.0], np.float32)
    near = Sampler(SamplingOptions(temperature=0, repeat_penalty=2.0, repeat_last_n=2))
    far = Sampler(SamplingOptions(temperature=0, repeat_penalty=2.0, repeat_last_n=3))
    assert near(logits, [1, 2, 2]) == 1
    assert far(logits, [1, 2, 2]) == 0


@pytest.mark.parametrize("n_vocab", [50, 128256])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("options", [{"temperature": 0.0}, {}, {"top_k": 0}, {"top_k": 0, "min_p": 0.0}])
def test_damaged_logits_are_an_error(n_vocab: int, bad: float, options: dict[str, float]) -> None:
    """One NaN or infinity anywhere is told, not sampled from."""
    logits = np.zeros(n_vocab, np.float32)
    logits[n_vocab // 3] = bad
    with pytest.raises(IqrunError, match="damaged"):
        Sampler(SamplingOptions(**options))(logits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 1.01),
        ("min_p", -1.0),
        ("repeat_penalty", 0.0),
        ("repeat_last_n", -1),
        ("seed", -1),
        ("top_k", True),
    ],
)
def test_wrong_option_is_named(name: str, value: float) -> None:
    """A value out of range is a ValueError that names the option."""
    with pytest.raises(ValueError, match=name):
        SamplingOptions(**{name: value})  # type: ignore[arg-type]
