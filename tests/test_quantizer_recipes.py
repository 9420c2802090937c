"""iqrun.quantizer.recipes: which tensor gets which type."""

from __future__ import annotations

import pytest

from iqrun.errors import FormatError, QuantizeError
from iqrun.formats import FORMATS, by_name
from iqrun.gguf import TensorInfo
from iqrun.gguf.tensor_type import find
from iqrun.quantizer.recipe_tables import BASE, GQA, MOE
from iqrun.quantizer.recipes import FALLBACKS, Recipe, Traits, fitting


def tensor(name: str, *shape: int, type_id: int = 1) -> TensorInfo:
    return TensorInfo(name, find(type_id), shape or (512, 512), 1, 1, 0)


def chosen(recipe: Recipe, name: str, *shape: int, type_id: int = 1, **traits: bool) -> str | None:
    target = recipe.choose(tensor(name, *shape, type_id=type_id), Traits(**traits)).target
    return None if target is None else target.name


def test_tables_name_writable_types_only() -> None:
    """Every type in the tables exists and can be written, and a substitute has blocks of 32."""
    for table in (BASE, GQA, MOE):
        for main, mix in table.items():
            assert all(FORMATS[name].can_encode for name in (main, *mix.values()))
    assert {32} == {FORMATS[name].block_weights for name in FALLBACKS.values()}
    iqk = {
        name for name, row in FORMATS.items() if name.startswith("IQ") and row.block_weights == 256 and row.can_encode
    }
    assert iqk <= set(FALLBACKS)


def test_ik3_k_mix() -> None:
    """IQ3_K: value and output matrices wider; a tied embedding counts as output; vectors are copied."""
    recipe = Recipe(by_name("IQ3_K"))
    assert chosen(recipe, "blk.0.ffn_down.weight") == "IQ3_K"
    assert chosen(recipe, "blk.0.attn_q.weight") == "IQ3_K"
    assert FORMATS["IQ3_K"].bpw < by_name(chosen(recipe, "blk.7.attn_v.weight") or "").bpw
    assert FORMATS["IQ4_K"].bpw < by_name(chosen(recipe, "output.weight") or "").bpw
    assert chosen(recipe, "token_embd.weight") == "IQ3_K"
    assert FORMATS["IQ3_K"].bpw < by_name(chosen(recipe, "token_embd.weight", tied=True) or "").bpw
    for kept in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.attn_q.bias"):
        assert chosen(recipe, kept, 512) is None
    assert chosen(recipe, "blk.0.ffn_gate_inp.weight", 512, 8) is None
    assert chosen(recipe, "blk.0.attn_q_norm.weight", 64, 8) is None
    assert chosen(recipe, "lookup.weight", type_id=26) is None


def test_kinds_of_models_have_their_own_mix() -> None:
    """Grouped queries: less for q, more for k. Experts: everything around them is wider, they are not."""
    recipe = Recipe(by_name("IQ3_K"))
    assert chosen(recipe, "blk.0.attn_k.weight") == "IQ3_K"
    assert chosen(recipe, "blk.0.attn_k.weight", gqa=True) == "IQ4_KSS"
    assert chosen(recipe, "blk.0.attn_q.weight", gqa=True) == "IQ3_KS"
    assert chosen(recipe, "blk.0.attn_v.weight", gqa=True) == "IQ4_K"
    for name in ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"):
        assert chosen(recipe, f"blk.0.{name}.weight", 512, 64, 8, moe=True, gqa=True) == "IQ3_K"
    for name in ("attn_q", "attn_output", "ffn_down_shexp", "ffn_up"):
        assert chosen(recipe, f"blk.0.{name}.weight", moe=True, gqa=True) == "IQ4_K"
    assert chosen(recipe, "blk.0.attn_v.weight", moe=True) == "IQ5_K"
    assert chosen(recipe, "blk.0.ffn_gate_inp.weight", 512, 8, moe=True) is None
    assert chosen(recipe, "output.weight", moe=True) == "IQ5_K"
    assert chosen(recipe, "blk.0.attn_qkv.weight") == "IQ4_K"
    assert chosen(Recipe(by_name("IQ3_K"), pure=True), "blk.0.attn_q.weight", gqa=True, moe=True) == "IQ3_K"


def test_traits_are_read_from_the_tensors() -> None:
    """Tied without output.weight, grouped from four query heads per KV head on, experts by their names."""

    def traits(**rows: int) -> Traits:
        names = {f"blk.0.{name}.weight" if name != "output" else "output.weight": n for name, n in rows.items()}
        return Traits.of({name: TensorInfo(name, find(1), (256, n), n, 1, 0) for name, n in names.items()})

    assert traits(attn_q=512, attn_k=128) == Traits(tied=True, gqa=True)
    assert traits(attn_q=512, attn_k=256, output=9) == Traits()
    assert traits(attn_k=128, output=9) == Traits()
    assert traits(ffn_up_exps=1, output=9) == Traits(moe=True)


def test_pure_means_every_matrix() -> None:
    """--pure: embeddings and output too, norms still not."""
    recipe = Recipe(by_name("IQ2_K"), pure=True)
    for name in ("token_embd.weight", "output.weight", "blk.0.attn_v.weight", "blk.0.attn_output.weight"):
        assert chosen(recipe, name, tied=True) == "IQ2_K"
    assert chosen(recipe, "output_norm.weight", 512) is None


def test_overrides_come_first_and_in_order() -> None:
    """The first regular expression found in the name decides, before keep_f32 and the roles."""
    rules = [(r"blk\.[01]\..*ffn_down", "iq5_k"), ("ffn_down", "Q8_0"), ("output_norm", "F16")]
    recipe = Recipe(
        by_name("IQ4_K"), tensor_types=rules, output_type="IQ6_K", embedding_type="q4_0", keep_f32="ffn|attn_k"
    )
    assert chosen(recipe, "blk.1.ffn_down.weight") == "IQ5_K"
    assert chosen(recipe, "blk.11.ffn_down.weight") == "Q8_0"
    assert chosen(recipe, "blk.0.ffn_up.weight") == "F32"
    assert chosen(recipe, "output_norm.weight", 512) == "F16"
    assert chosen(recipe, "output.weight") == "IQ6_K"
    assert chosen(recipe, "token_embd.weight") == "Q4_0"
    assert chosen(Recipe(by_name("IQ4_K"), output_type="IQ6_K"), "token_embd.weight", tied=True) == "IQ6_K"


def test_float_targets_convert_vectors_only_for_f32() -> None:
    """F32 turns the whole model into F32; F16 leaves the norms alone."""
    assert chosen(Recipe(by_name("F32")), "output_norm.weight", 512) == "F32"
    assert chosen(Recipe(by_name("F16")), "output_norm.weight", 512) is None
    assert chosen(Recipe(by_name("F16")), "output.weight") == "F16"


@pytest.mark.parametrize(
    ("wanted", "n_cols", "got"),
    [
        ("IQ3_K", 512, "IQ3_K"),
        ("IQ3_K", 576, "IQ4_NL"),
        ("IQ2_KL", 896, "IQ4_NL"),
        ("IQ4_KS", 896, "IQ4_NL"),
        ("IQ4_K", 896, "Q5_0"),
        ("IQ5_KS", 896, "Q5_0"),
        ("IQ5_K", 896, "Q6_0"),
        ("IQ6_K", 896, "Q8_0"),
        ("Q6_K", 896, "Q8_0"),
        ("IQ4_K", 100, "F16"),
        ("Q8_0", 100, "F16"),
        ("F16", 100, "F16"),
        ("BF16", 7, "BF16"),
    ],
)
def test_fallback_for_odd_rows(wanted: str, n_cols: int, got: str) -> None:
    """Rows that are no multiple of 256 get the field's substitute, those that are none of 32 F16."""
    assert got == fitting(FORMATS[wanted], n_cols).name
    choice = Recipe(FORMATS[wanted], pure=True).choose(tensor("blk.0.attn_q.weight", n_cols, 4), Traits())
    assert (got != wanted) == choice.fallback


def test_mistakes_are_named() -> None:
    """Unknown types, types that cannot be written, and regular expressions that do not parse."""
    main = by_name("IQ3_K")
    with pytest.raises(FormatError, match="'IQ9_K' is not a known type"):
        Recipe(main, output_type="IQ9_K")
    with pytest.raises(QuantizeError, match=r"'ffn\(' is wrong"):
        Recipe(main, tensor_types=[("ffn(", "Q8_0")])
    with pytest.raises(QuantizeError, match=r"'\[' is wrong"):
        Recipe(main, keep_f32="[")
    with pytest.raises(QuantizeError, match="reads Q4_K but does not write it"):
        Recipe(main, tensor_types=[("a", "Q4_K")])
