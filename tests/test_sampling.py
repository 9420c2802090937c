"""Sampling: every sampler against numbers worked out from its definition, then the chain."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from iqrun.errors import IqrunError
from iqrun.sampling import Candidates, Sampler, SamplingOptions
from iqrun.sampling.candidates import draw, only_best, probabilities, sort
from iqrun.sampling.mirostat import Mirostat
from iqrun.sampling.penalties import dry, penalties
from iqrun.sampling.temperature import dynamic_temperature, temperature
from iqrun.sampling.truncation import min_p, top_k, top_n_sigma, top_p, typical, xtc


def whole(logits: np.ndarray) -> Candidates:
    """All tokens in the order of their ids."""
    return Candidates(np.arange(len(logits)), logits)


def chances(*shares: float) -> Candidates:
    return whole(np.log(np.asarray(shares, np.float32)))


def ids(candidates: Candidates) -> list[int]:
    return candidates.ids.tolist()


# ---- truncation ----


def test_only_best_takes_of_equals_the_lowest_id() -> None:
    """The arg max; ties are broken by id."""
    assert ids(only_best(whole(np.array([0.1, 3.0, 3.0, -1.0], np.float32)))) == [1]


@pytest.mark.parametrize("n_vocab", [7, 97, 4096, 32003, 128256])
@pytest.mark.parametrize("k", [1, 2, 40, 300, 4000])
def test_top_k_equals_a_full_sort(n_vocab: int, k: int) -> None:
    """The core's selection finds exactly what a stable sort finds, ties included."""
    k = min(k, n_vocab - 1)
    rng = np.random.default_rng(n_vocab + k)
    logits = np.round(rng.normal(size=n_vocab).astype(np.float32), 1)  # many ties
    expected = np.argsort(-logits, kind="stable")[:k]
    chosen = top_k(whole(logits), k)
    assert ids(chosen) == expected.tolist()
    assert chosen.logits.tolist() == logits[expected].tolist() and chosen.best_first
    assert ids(top_k(sort(whole(logits)), k)) == expected.tolist()


@pytest.mark.parametrize("order", ["ascending", "descending", "equal", "forbidden", "zeros"])
@pytest.mark.parametrize("k", [1, 16, 63, 200])
def test_top_k_in_any_order(order: str, k: int) -> None:
    """Every logit better than the last, or none; ties, -inf and both zeros: what a stable sort finds."""
    n_vocab = 1000  # no multiple of the blocks in which logits are looked at
    logits = {
        "ascending": np.arange(n_vocab, dtype=np.float32),
        "descending": -np.arange(n_vocab, dtype=np.float32),
        "equal": np.ones(n_vocab, np.float32),
        "forbidden": np.where(np.arange(n_vocab) % 7 == 3, np.float32(1), np.float32(-np.inf)),
        "zeros": np.where(np.arange(n_vocab) % 2 == 0, np.float32(-0.0), np.float32(0.0)),
    }[order]
    assert ids(top_k(whole(logits), k)) == np.argsort(-logits, kind="stable")[:k].tolist()


@pytest.mark.parametrize("place", [0, 39, 40, 103, 104, 999])
def test_top_k_overlooks_no_nan(place: int) -> None:
    """Wherever it stands: among the first k, in a block, in what is left behind the blocks."""
    logits = -np.arange(1000, dtype=np.float32)
    logits[place] = -np.nan if place % 2 else np.nan
    with pytest.raises(IqrunError, match="weights are damaged"):
        top_k(whole(logits), 40)


def test_top_k_of_float64_is_a_sort() -> None:
    """An own sampler may return such logits, which float32 would mix up."""
    logits = 1.0 + np.arange(100) * 1e-12
    assert ids(top_k(whole(logits), 3)) == [99, 98, 97]


@pytest.mark.parametrize("sorted_first", [False, True])
def test_top_p_keeps_the_shortest_head_that_reaches_p(sorted_first: bool) -> None:
    """0.5 + 0.3 reaches 0.75, and 0.499 is reached by the first alone; at least one stays."""
    candidates = chances(0.05, 0.5, 0.15, 0.3)
    candidates = sort(candidates) if sorted_first else candidates
    assert ids(top_p(candidates, 0.75)) == [1, 3]
    assert ids(top_p(candidates, 0.499)) == [1]
    assert ids(top_p(candidates, 0.0)) == [1]
    assert sorted(ids(top_p(candidates, 1.0))) == [0, 1, 2, 3]


@pytest.mark.parametrize("sorted_first", [False, True])
def test_min_p_is_relative_to_the_best(sorted_first: bool) -> None:
    """With p = 0.25 a token of 0.15 stays beside one of 0.5, one of 0.05 does not."""
    candidates = chances(0.05, 0.5, 0.15, 0.3)
    candidates = sort(candidates) if sorted_first else candidates
    assert sorted(ids(min_p(candidates, 0.25))) == [1, 2, 3]
    assert len(ids(min_p(candidates, 0.0))) == 4
    assert ids(min_p(candidates, 1.0)) == [1]


@pytest.mark.parametrize("p", [0.1, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("floor", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("scale", [0.2, 3.0])
def test_top_p_of_a_vocabulary_equals_that_of_the_sorted_one(p: float, floor: float, scale: float) -> None:
    """Without top-k, the shortcuts give what sorting everything gives, for flat and for peaked distributions."""
    logits = (np.random.default_rng(5).normal(size=5000) * scale).astype(np.float32)
    expected = min_p(top_p(sort(whole(logits)), p), floor)
    found = min_p(top_p(whole(logits), p, floor), floor)
    assert ids(sort(found)) == ids(expected)


def test_top_n_sigma_measures_from_the_best_in_standard_deviations() -> None:
    """Logits 8, 4, 2, 2: mean 4, sigma sqrt(6) = 2.449; one sigma keeps 8, two keep 4, three keep all."""
    candidates = whole(np.array([2.0, 8.0, 4.0, 2.0], np.float32))
    assert [ids(top_n_sigma(candidates, n)) for n in (1.0, 1.7, 2.0, 3.0)] == [[1], [1, 2], [1, 2], [0, 1, 2, 3]]
    assert ids(top_n_sigma(candidates, -1.0)) == [0, 1, 2, 3]


def test_top_n_sigma_leaves_forbidden_tokens_out_of_the_deviation() -> None:
    """-inf would make it NaN."""
    candidates = whole(np.array([2.0, 8.0, 4.0, 2.0, -np.inf], np.float32))
    assert ids(top_n_sigma(candidates, 1.7)) == [1, 2]


def test_typical_keeps_the_expected_surprise() -> None:
    """Shares 0.5, 0.2, 0.15, 0.15: entropy 1.2376 nats; distances 0.544, 0.372, 0.659, 0.659: so 1, 0, 2, 3."""
    candidates = chances(0.5, 0.2, 0.15, 0.15)
    entropy = -(0.5 * math.log(0.5) + 0.2 * math.log(0.2) + 0.3 * math.log(0.15))
    assert entropy == pytest.approx(1.2376, abs=1e-4)
    assert ids(typical(candidates, 0.1)) == [1]
    assert ids(typical(candidates, 0.5)) == [0, 1]
    assert ids(typical(candidates, 0.8)) == [0, 1, 2]
    assert ids(typical(candidates, 1.0)) == [0, 1, 2, 3]


def test_typical_may_drop_the_best() -> None:
    """That is its point: a sure token says less than expected."""
    assert 0 not in ids(typical(chances(0.4, *[0.06] * 10), 0.3))


def test_xtc_leaves_the_least_of_the_top_choices() -> None:
    """Of 0.4, 0.3, 0.2 above 0.15, only 0.2 stays, and all below; at threshold 0.45 nothing is above."""
    candidates, random = chances(0.3, 0.4, 0.1, 0.2), np.random.default_rng(0)
    assert sorted(ids(xtc(candidates, 1.0, 0.15, random))) == [2, 3]
    assert sorted(ids(xtc(candidates, 1.0, 0.35, random))) == [0, 1, 2, 3]
    assert sorted(ids(xtc(candidates, 1.0, 0.45, random))) == [0, 1, 2, 3]
    assert sorted(ids(xtc(candidates, 1.0, 0.6, random))) == [0, 1, 2, 3]
    assert sorted(ids(xtc(candidates, 0.0, 0.15, random))) == [0, 1, 2, 3]


def test_xtc_acts_as_often_as_it_should() -> None:
    """A probability of 0.3 in 4000 tries."""
    candidates, random = chances(0.5, 0.5), np.random.default_rng(1)
    acted = sum(len(xtc(candidates, 0.3, 0.1, random).ids) == 1 for _ in range(4000))
    assert acted / 4000 == pytest.approx(0.3, abs=0.03)


# ---- temperature ----


def test_temperature_divides() -> None:
    """At 0.5 shares are squared: 0.5, 0.3, 0.2 become 25/38, 9/38, 4/38."""
    shares = probabilities(temperature(chances(0.5, 0.3, 0.2), 0.5))
    assert shares == pytest.approx(np.array([25, 9, 4]) / 38, abs=1e-6)


@pytest.mark.parametrize("t", [0.0, 1e-300, 5e-324])
def test_tiny_temperature_takes_the_best(t: float) -> None:
    """Also where the quotient overflows, without a warning, whatever the sign of the logits."""
    for logits in ([1.0, 3.0, 2.0], [-3.0, -1.0, -2.0]):
        assert drawn(np.array(logits, np.float32), 20, temperature=t, samplers="t") == {1}


def test_dynamic_temperature_follows_the_entropy() -> None:
    """0.5, 0.25, 0.25: H = 1.5 ln 2, n = 3, H / ln n = 0.94639; from 0.5 to 1.5 that is 1.44639; squared 1.39566."""
    candidates = chances(0.5, 0.25, 0.25)
    share = 1.5 * math.log(2) / math.log(3)
    for exponent, t in ((1.0, 0.5 + share), (2.0, 0.5 + share**2)):
        expected = probabilities(temperature(candidates, t))
        assert probabilities(dynamic_temperature(candidates, 1.0, 0.5, exponent)) == pytest.approx(expected, abs=1e-6)
    assert t == pytest.approx(1.39566, abs=1e-5)


def test_dynamic_temperature_of_a_sure_and_of_a_clueless_model() -> None:
    """No entropy: the lowest temperature, not below 0; full entropy: the highest."""
    sure = dynamic_temperature(whole(np.array([100.0, 0.0], np.float32)), 0.5, 0.7, 1.0)
    assert probabilities(sure) == pytest.approx([1.0, 0.0]) and sure.logits[0] > 1e30
    flat = dynamic_temperature(whole(np.array([2.0, 2.0], np.float32)), 0.5, 0.7, 1.0)
    assert flat.logits == pytest.approx([2.0 / 1.2] * 2)


# ---- penalties ----


def test_penalties() -> None:
    """Repeat divides or multiplies once; presence once, frequency for each time; the input is left alone."""
    logits = np.array([2.0, -2.0, 4.0, 0.0], np.float32)
    assert penalties(whole(logits), [0, 1, 1, 3], 2.0).logits.tolist() == [1.0, -4.0, 4.0, 0.0]
    assert penalties(whole(logits), [0, 1, 1], 1.0, 0.5, 0.25).logits.tolist() == [1.25, -3.0, 4.0, 0.0]
    assert penalties(whole(logits), [0, 1, 1], 2.0, 0.5, 0.25).logits.tolist() == [0.25, -5.0, 4.0, 0.0]
    assert logits.tolist() == [2.0, -2.0, 4.0, 0.0]


def test_penalties_of_some_candidates() -> None:
    """After top-k, tokens stand elsewhere than their ids, and some are gone."""
    chosen = top_k(whole(np.array([2.0, 5.0, 4.0, 0.0], np.float32)), 3)
    changed = penalties(chosen, [0, 3, 1, 1], 1.0, 0.0, 1.0)
    assert dict(zip(ids(changed), changed.logits.tolist(), strict=True)) == {1: 3.0, 2: 4.0, 0: 1.0}
    assert not changed.best_first


def dried(recent: Sequence[int], *, n_vocab: int = 10, allowed: int = 2, words: Sequence[str] = ()) -> list[float]:
    """Penalties of DRY with multiplier 1 and base 2."""
    names = [words[i] if i < len(words) else f"<{i}>" for i in range(n_vocab)]
    logits = np.zeros(n_vocab, np.float32)
    breakers = [b"\n", b"END"]
    changed = dry(whole(logits), recent, 1.0, 2.0, allowed, breakers, lambda i: names[i].encode())
    return (-changed.logits).tolist()


def test_dry_weakens_what_prolongs_a_repetition() -> None:
    """ "1 2 3 4 ... 1 2 3": 4 would make four, so 2 ** (3 - 2); what followed elsewhere is left alone."""
    assert dried([1, 2, 3, 4, 5, 1, 2, 3]) == [0, 0, 0, 0, 2, 0, 0, 0, 0, 0]
    assert dried([1, 2, 3, 4, 5, 1, 2, 3], allowed=3) == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert dried([1, 2, 3, 4, 5, 1, 2, 3], allowed=4) == [0.0] * 10
    assert dried([3, 4, 5, 3]) == [0.0] * 10


def test_dry_takes_the_longest_repetition() -> None:
    """The example a b c c b c y a b c: c after "a b c" counts 3, y after "b c" counts 2."""
    a, b, c, y = 1, 2, 3, 4
    assert dried([a, b, c, c, b, c, y, a, b, c]) == [0, 0, 0, 2, 1, 0, 0, 0, 0, 0]


def test_dry_stops_at_breakers() -> None:
    """A repetition does not reach across a breaker, also one that spans tokens; a breaker itself is not weakened."""
    words = ["", "a", "b", "c", "d", "\n", "xE", "N", "Dy"]
    assert dried([1, 2, 3, 4, 1, 2, 3], words=words)[4] == 2
    assert dried([1, 5, 2, 3, 4, 1, 5, 2, 3], words=words)[4] == 1
    assert dried([1, 2, 5, 3, 4, 1, 2, 5, 3], words=words) == [0.0] * 10
    assert dried([6, 7, 8, 1, 2, 3, 4, 6, 7, 8, 1, 2], words=words)[3] == 1
    assert dried([1, 2, 6, 7, 8, 4, 1, 2, 6, 7, 8], words=words) == [0.0] * 10
    assert dried([1, 2, 5, 3, 1, 2], words=words) == [0.0] * 10


def test_dry_equals_its_definition() -> None:
    """For random texts: the longest suffix that occurred before each token, found by trying all."""
    rng = np.random.default_rng(2)
    for _ in range(50):
        recent = rng.integers(0, 3, size=rng.integers(1, 40)).tolist()
        expected = [0.0] * 10
        for i in range(1, len(recent)):
            n = 0
            while n < i and recent[i - 1 - n] == recent[-1 - n]:
                n += 1
            if n >= 2:
                expected[recent[i]] = max(expected[recent[i]], min(2.0 ** (n - 2), 2.0**127))
        assert dried(recent) == pytest.approx(expected, rel=1e-6)


def test_dry_does_not_overflow() -> None:
    """A repetition of a thousand tokens."""
    logits = np.zeros(3, np.float32)
    changed = dry(whole(logits), [1] * 1000, 0.8, 1.75, 2, [], lambda _: b"")
    assert np.isfinite(changed.logits).all() and changed.logits[1] < -1e30


# ---- mirostat ----


def test_mirostat_cuts_at_mu_and_learns() -> None:
    """mu starts at 2 tau; shares 0.5 and 0.25 are surprises of 1 and 2 bits; drawn 0.25 of 0.75: 1.585 bits."""
    mirostat = Mirostat(tau=1.1, eta=0.5)
    left = mirostat.truncate(chances(0.125, 0.5, 0.125, 0.25))
    assert ids(left) == [1, 3]
    mirostat.observe(left, 1)
    assert mirostat.mu == pytest.approx(2.2 - 0.5 * (math.log2(3) - 1.1))
    mirostat.mu = 0.1
    assert ids(mirostat.truncate(chances(0.125, 0.5, 0.125, 0.25))) == [1]


def test_mirostat_holds_the_surprise() -> None:
    """Over 3000 draws from a wide distribution the mean surprise comes near tau."""
    logits = -1.1 * np.log(np.arange(1, 2001)).astype(np.float32)
    shares = probabilities(whole(logits))
    sampler = Sampler(SamplingOptions(mirostat=2, mirostat_tau=3.0, temperature=1.0, seed=4))
    drawn = [sampler(logits) for _ in range(3000)]
    cut = [-math.log2(shares[token]) for token in drawn[500:]]
    assert 3.0 <= np.mean(cut) <= 4.5  # measured against the whole distribution: a little more than tau


# ---- the chain ----


def drawn(logits: np.ndarray, n: int = 300, previous: Sequence[int] = (), **options: object) -> set[int]:
    sampler = Sampler(SamplingOptions(**{"seed": 1, **options}))  # type: ignore[arg-type]
    return {sampler(logits, previous) for _ in range(n)}


def test_draws_follow_the_probabilities() -> None:
    """20 000 draws at temperature 1 match 0.5, 0.3, 0.2 within 0.015; at 0.5 they match the squared ones."""
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    for t, weights in ((1.0, np.array([0.5, 0.3, 0.2])), (0.5, np.array([0.25, 0.09, 0.04]))):
        sampler = Sampler(SamplingOptions(temperature=t, top_k=0, top_p=1.0, min_p=0.0, seed=3))
        counts = np.bincount([sampler(logits) for _ in range(20000)], minlength=3)
        assert counts / 20000 == pytest.approx(weights / weights.sum(), abs=0.015)


def test_a_seed_repeats_the_tokens() -> None:
    """The same seed gives the same tokens, another seed gives others."""
    logits = np.random.default_rng(1).normal(size=1000).astype(np.float32)

    def tokens(seed: int) -> list[int]:
        sampler = Sampler(SamplingOptions(seed=seed))
        return [sampler(logits) for _ in range(50)]

    assert tokens(7) == tokens(7)
    assert tokens(7) != tokens(8)


def test_defaults_are_llama_cpps() -> None:
    """Each value and the order."""
    o = SamplingOptions()
    assert (o.temperature, o.top_k, o.top_p, o.min_p, o.typical_p, o.top_n_sigma) == (0.8, 40, 0.95, 0.05, 1.0, -1.0)
    assert (o.repeat_penalty, o.repeat_last_n, o.presence_penalty, o.frequency_penalty) == (1.0, 64, 0.0, 0.0)
    assert (o.dry_multiplier, o.dry_base, o.dry_allowed_length, o.dry_penalty_last_n) == (0.0, 1.75, 2, 64)
    assert tuple(o.dry_sequence_breakers) == ("\n", ":", '"', "*")
    assert (o.xtc_probability, o.xtc_threshold, o.dynatemp_range, o.dynatemp_exponent) == (0.0, 0.1, 0.0, 1.0)
    assert (o.mirostat, o.mirostat_tau, o.mirostat_eta, o.ignore_eos) == (0, 5.0, 0.1, False)
    assert ";".join(map(str, o.samplers)) == "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature"


def test_only_what_the_chain_keeps_is_drawn() -> None:
    """top_k 3 with top_p and min_p off draws the three best and nothing else."""
    assert drawn(np.arange(100, dtype=np.float32) * 0.01, top_k=3, top_p=1.0, min_p=0.0) == {97, 98, 99}


def test_the_order_matters() -> None:
    """Temperature 4 before min-p lets in what it drops the other way round."""
    logits = np.array([8.0, 4.0, 0.0], np.float32)
    options = {"temperature": 4.0, "min_p": 0.05, "top_p": 1.0}
    assert drawn(logits, **options) == {0}
    assert drawn(logits, samplers="temperature;min_p", **options) == {0, 1, 2}
    assert drawn(logits, samplers="tm", **options) == {0, 1, 2}


@pytest.mark.parametrize("order", ["pmt", "ptm", "mpt", "mtp", "tpm", "tmp"])
@pytest.mark.parametrize("k", [5, 40, 900])
def test_samplers_side_by_side_keep_what_they_keep_one_by_one(order: str, k: int) -> None:
    """Behind top-k the core takes several at once. With functions in between, arrays go through each on its own."""
    kept: list[Candidates] = []

    def look(candidates: Candidates) -> Candidates:
        kept.append(candidates)
        return candidates

    rng = np.random.default_rng(k)
    options = {"top_k": k, "top_p": 0.8, "min_p": 0.02, "temperature": 1.3}
    names = SamplingOptions(samplers=order).samplers
    for seed in range(20):
        logits = (rng.normal(size=4000) * rng.uniform(0.2, 4.0)).astype(np.float32)
        drawn(logits, 1, samplers=("top_k", *names, look), seed=seed, **options)
        drawn(logits, 1, samplers=("top_k", *(each for name in names for each in (look, name)), look), **options)
        together, *_, one_by_one = kept
        kept.clear()
        assert ids(together) == ids(sort(one_by_one))
        assert together.logits == pytest.approx(sort(one_by_one).logits, rel=1e-6)


def test_a_draw_from_sorted_candidates_is_that_from_unsorted_ones() -> None:
    """The same places of the cumulative probabilities, at their ends too."""
    logits = np.log(np.array([0.5, 0.25, 0.125, 0.125]))
    for uniform, place in ((0.0, 0), (0.499, 0), (0.501, 1), (0.749, 1), (0.751, 2), (0.876, 3), (1 - 2**-53, 3)):
        assert draw(Candidates(np.arange(4), logits), uniform) == place
        assert draw(Candidates(np.arange(4), logits, True), uniform) == place
        assert draw(Candidates(np.arange(4), logits.astype(np.float32), True), uniform) == place


def test_a_sampler_that_is_not_named_does_not_act() -> None:
    """Without top_k in the order, its option means nothing."""
    assert len(drawn(np.zeros(20, np.float32), top_k=1, top_p=1.0, min_p=0.0, samplers="temperature")) == 20


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("edskypmxt", SamplingOptions().samplers),
        ("kt", ("top_k", "temperature")),
        ("top-k; typical ;temp", ("top_k", "typ_p", "temperature")),
        ("", ()),
    ],
)
def test_orders_are_read_as_llama_cpp_does(text: str, names: tuple[str, ...]) -> None:
    """Names in all their spellings, or letters."""
    assert SamplingOptions(samplers=text).samplers == names


def test_penalties_look_only_so_far_back() -> None:
    """Token 1 is the best and was drawn three tokens ago: with repeat_last_n 2 it is drawn again, with 3 it is not."""
    logits = np.array([1.0, 1.5, 0.0], np.float32)
    for n, token in ((2, 1), (3, 0), (-1, 0), (0, 1)):
        assert drawn(logits, 1, [1, 2, 2], temperature=0, repeat_penalty=2.0, repeat_last_n=n) == {token}


@pytest.mark.parametrize(
    ("options", "n"),
    [
        ({}, 0),
        ({"repeat_last_n": 9}, 0),
        ({"repeat_penalty": 1.1}, 64),
        ({"presence_penalty": 0.1, "repeat_last_n": 5}, 5),
        ({"dry_multiplier": 0.8, "dry_penalty_last_n": 77, "repeat_penalty": 1.1}, 77),
    ],
)
def test_a_sampler_asks_for_no_more_tokens_than_it_needs(options: dict[str, float], n: int) -> None:
    """The default chain looks at none."""
    assert Sampler(SamplingOptions(**options)).n_recent == n  # type: ignore[arg-type]
    assert Sampler(SamplingOptions(dry_multiplier=1.0, dry_penalty_last_n=-1)).n_recent > 1 << 30


def test_logit_bias() -> None:
    """Adds to a logit; -inf forbids; a token outside of the vocabulary is an error."""
    logits = np.array([1.0, 2.0, 3.0], np.float32)
    assert drawn(logits, temperature=0, logit_bias={0: 2.5}) == {0}
    assert drawn(logits, logit_bias={2: -np.inf, 1: -np.inf}) == {0}
    assert logits.tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="token 3, but the vocabulary has 3"):
        drawn(logits, logit_bias={3: 1.0})


def test_ignore_eos_forbids_the_end() -> None:
    """All tokens that end an answer."""
    sampler = Sampler(SamplingOptions(temperature=0, ignore_eos=True), end_ids={2, 1})
    assert sampler(np.array([1.0, 2.0, 3.0], np.float32)) == 0
    assert Sampler(SamplingOptions(temperature=0), end_ids={2})(np.array([1.0, 2.0, 3.0], np.float32)) == 2


def test_processors_see_the_tokens_and_change_the_logits() -> None:
    """In turn; the model's logits stay as they are."""
    seen = []

    def forbid_repeats(tokens: Sequence[int], logits: np.ndarray) -> np.ndarray:
        seen.append(list(tokens))
        logits[list(tokens)] = -np.inf
        return logits

    logits = np.array([1.0, 2.0, 3.0], np.float32)
    options = SamplingOptions(temperature=0, processors=[lambda _, x: x * 2, forbid_repeats])
    sampler = Sampler(options)
    assert sampler(logits, [2, 2]) == 1
    assert seen == [[2, 2]] and logits.tolist() == [1.0, 2.0, 3.0] and sampler.n_recent > 1 << 30
    with pytest.raises(ValueError, match="processor returned shape"):
        Sampler(SamplingOptions(processors=[lambda _, x: x[:2]]))(logits)


def test_an_own_sampler_takes_its_place_in_the_chain() -> None:
    """A plain function from candidates to candidates."""

    def odd_only(candidates: Candidates) -> Candidates:
        odd = candidates.ids % 2 == 1
        return Candidates(candidates.ids[odd], candidates.logits[odd])

    logits = np.arange(10, dtype=np.float32)
    assert drawn(logits, top_k=4, top_p=1.0, min_p=0.0, samplers=("top_k", odd_only)) == {7, 9}
    assert drawn(logits, temperature=0, samplers=("top_k", odd_only, "temperature")) == {9}
    with pytest.raises(IqrunError, match="left no token"):
        drawn(logits, samplers=(lambda c: Candidates(c.ids[:0], c.logits[:0]),))


@pytest.mark.parametrize("n_vocab", [50, 128256])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {},
        {"top_k": 0},
        {"top_k": 0, "min_p": 0.0},
        {"top_k": 0, "min_p": 0.0, "top_p": 1.0},
        {"top_n_sigma": 1.0},
        {"typical_p": 0.5, "top_k": 0},
        {"xtc_probability": 1.0, "samplers": "x"},
        {"mirostat": 2},
        {"dynatemp_range": 0.5, "samplers": "t"},
        {"repeat_penalty": 1.5, "temperature": 0},
    ],
)
def test_damaged_logits_are_an_error(n_vocab: int, bad: float, options: dict[str, float]) -> None:
    """One NaN or infinity anywhere is told, not sampled from."""
    logits = np.zeros(n_vocab, np.float32)
    logits[n_vocab // 3] = bad
    with pytest.raises(IqrunError, match="damaged"):
        Sampler(SamplingOptions(**options))(logits, [1])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_k", True),
        ("top_p", 1.01),
        ("min_p", -1.0),
        ("repeat_penalty", 0.0),
        ("repeat_last_n", -2),
        ("seed", -1),
        ("presence_penalty", float("nan")),
        ("dry_base", 0.9),
        ("dry_allowed_length", 0),
        ("dry_sequence_breakers", ["", "a"]),
        ("dry_sequence_breakers", "abc"),
        ("typical_p", 2.0),
        ("xtc_threshold", -0.1),
        ("dynatemp_range", -1.0),
        ("mirostat", 1),
        ("mirostat_tau", -1.0),
        ("logit_bias", {-1: 1.0}),
        ("logit_bias", {1: float("inf")}),
        ("logit_bias", {1: float("nan")}),
        ("samplers", "top_k;frob"),
        ("samplers", "kk"),
        ("processors", [3]),
    ],
)
def test_wrong_option_is_named(name: str, value: object) -> None:
    """A value out of range is a ValueError that names the option."""
    with pytest.raises(ValueError, match=name):
        SamplingOptions(**{name: value})  # type: ignore[arg-type]


def test_options_can_be_passed_on_by_name() -> None:
    """As keywords, with the very functions that were given."""
    options = SamplingOptions(top_k=3, processors=(max,), samplers="kt")
    assert SamplingOptions(**options.keywords()) == options
    assert hash(SamplingOptions(logit_bias={1: 2.0}, dry_sequence_breakers=["a"], processors=[max])) is not None
    assert options.keywords()["processors"][0] is max
