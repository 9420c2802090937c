"""Storage types by their ggml id: those that iqrun computes with, and the sizes of the others in the field.

A file with foreign types can be listed, checked and copied; only its weights cannot be decoded.
"""

from __future__ import annotations

from dataclasses import dataclass

from iqrun import formats
from iqrun.formats import Format


@dataclass(frozen=True, slots=True)
class TensorType:
    """How rows of a tensor are stored: ``row_meta_bytes``, then blocks of ``block_weights`` in ``block_bytes``."""

    id: int
    name: str
    block_weights: int
    block_bytes: int
    row_meta_bytes: int
    format: Format | None

    def row_bytes(self, n_cols: int) -> int:
        """Bytes of a row; `n_cols` must be a multiple of `block_weights`."""
        return self.row_meta_bytes + n_cols // self.block_weights * self.block_bytes


# weights per block, bytes per block, row_meta bytes; names: formats.known_names(). Interleaved types (_R4) hold the
# same bytes per row as their plain ones.
_FOREIGN_SIZES: dict[int, tuple[int, int, int]] = {
    16: (256, 66, 0),  # IQ2_XXS
    17: (256, 74, 0),  # IQ2_XS
    18: (256, 98, 0),  # IQ3_XXS
    19: (256, 50, 0),  # IQ1_S
    21: (256, 110, 0),  # IQ3_S
    22: (256, 82, 0),  # IQ2_S
    24: (1, 1, 0),  # I8
    25: (1, 2, 0),  # I16
    26: (1, 4, 0),  # I32
    27: (1, 8, 0),  # I64
    28: (1, 8, 0),  # F64
    29: (256, 56, 0),  # IQ1_M
    34: (256, 54, 0),  # TQ1_0
    35: (256, 66, 0),  # TQ2_0
    39: (32, 17, 0),  # MXFP4
    40: (64, 36, 0),  # NVFP4
    153: (256, 68, 4),  # IQ2_KT
    154: (256, 100, 4),  # IQ3_KT
    155: (256, 128, 4),  # IQ4_KT
    158: (256, 56, 4),  # IQ1_KT
    337: (256, 76, 0),  # IQ2_K_R4
    338: (256, 110, 0),  # IQ3_K_R4
    339: (256, 144, 0),  # IQ4_K_R4
    340: (256, 176, 0),  # IQ5_K_R4
    344: (256, 136, 4),  # IQ4_KS_R4
    352: (256, 168, 4),  # IQ5_KS_R4
}


def find(type_id: int) -> TensorType:
    """The type of an id.

    Raises:
        FormatError: nobody knows the type, or its size.
    """
    sizes = _FOREIGN_SIZES.get(type_id)
    if sizes is not None:
        return TensorType(type_id, formats.known_names()[type_id], *sizes, None)
    known = formats.by_id(type_id)
    return TensorType(type_id, known.name, known.block_weights, known.block_bytes, known.row_meta_bytes, known)
