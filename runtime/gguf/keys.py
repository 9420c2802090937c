"""Names and numbers of the GGUF container: value types, metadata keys, limits.

The keys of an architecture's hyper-parameters stand in `iqrun.hparams` and `iqrun.models`, where they are read.
"""

from __future__ import annotations

from enum import IntEnum

MAGIC = b"GGUF"
VERSIONS = (2, 3)
WRITE_VERSION = 3
DEFAULT_ALIGNMENT = 32


class ValueType(IntEnum):
    """Type codes of metadata values."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


# numpy's name of each fixed-size value type, little endian as in the file
DTYPES: dict[ValueType, str] = {
    ValueType.UINT8: "<u1",
    ValueType.INT8: "<i1",
    ValueType.UINT16: "<u2",
    ValueType.INT16: "<i2",
    ValueType.UINT32: "<u4",
    ValueType.INT32: "<i4",
    ValueType.FLOAT32: "<f4",
    ValueType.BOOL: "<u1",
    ValueType.UINT64: "<u8",
    ValueType.INT64: "<i8",
    ValueType.FLOAT64: "<f8",
}

UNSIGNED = frozenset({ValueType.UINT8, ValueType.UINT16, ValueType.UINT32, ValueType.UINT64})
INTEGERS = UNSIGNED | {ValueType.INT8, ValueType.INT16, ValueType.INT32, ValueType.INT64}
FLOATS = frozenset({ValueType.FLOAT32, ValueType.FLOAT64})

# Far above every real file; they keep the time and memory spent on a hostile one small.
MAX_KEYS = 1 << 14
MAX_TENSORS = 1 << 18
MAX_KEY_BYTES = 65535
MAX_STRINGS = 1 << 24
MAX_TENSOR_NAME_BYTES = 63
MAX_DIMS = 4
MAX_ELEMENTS = (1 << 63) - 1
MIN_ALIGNMENT = 8
MAX_ALIGNMENT = 65536

ARCHITECTURE = "general.architecture"
TYPE = "general.type"
ALIGNMENT = "general.alignment"
FILE_TYPE = "general.file_type"
QUANTIZATION_VERSION = "general.quantization_version"

SPLIT_NO = "split.no"
SPLIT_COUNT = "split.count"
SPLIT_TENSORS_COUNT = "split.tensors.count"

QUANTIZE_IMATRIX_FILE = "quantize.imatrix.file"
QUANTIZE_IMATRIX_DATASET = "quantize.imatrix.dataset"
QUANTIZE_IMATRIX_N_ENTRIES = "quantize.imatrix.entries_count"
QUANTIZE_IMATRIX_N_CHUNKS = "quantize.imatrix.chunks_count"

IMATRIX_CHUNK_COUNT = "imatrix.chunk_count"
IMATRIX_CHUNK_SIZE = "imatrix.chunk_size"
IMATRIX_DATASETS = "imatrix.datasets"

# iqrun's own: second-moment matrices in an importance matrix (quantizer/grams.py), unfinished calibration, provenance
GRAM_TENSORS = "iqrun.imatrix.gram.tensors"
GRAM_SOURCES = "iqrun.imatrix.gram.sources"
PART_FINGERPRINT = "iqrun.calibration.fingerprint"
PART_CHUNKS = "iqrun.calibration.chunks"
IQRUN_VERSION = "iqrun.version"
IQRUN_RECIPE = "iqrun.recipe"
IQRUN_SCALING = "iqrun.quantize.scaling"
HASH_NAMES = "iqrun.hash.names"
HASH_SHA256 = "iqrun.hash.sha256"

TOKENIZER_MODEL = "tokenizer.ggml.model"
TOKENIZER_PRE = "tokenizer.ggml.pre"
TOKENS = "tokenizer.ggml.tokens"
TOKEN_TYPES = "tokenizer.ggml.token_type"
SCORES = "tokenizer.ggml.scores"
MERGES = "tokenizer.ggml.merges"
BOS_TOKEN_ID = "tokenizer.ggml.bos_token_id"
EOS_TOKEN_ID = "tokenizer.ggml.eos_token_id"
UNKNOWN_TOKEN_ID = "tokenizer.ggml.unknown_token_id"
EOT_TOKEN_ID = "tokenizer.ggml.eot_token_id"
EOM_TOKEN_ID = "tokenizer.ggml.eom_token_id"
ADD_BOS_TOKEN = "tokenizer.ggml.add_bos_token"
ADD_EOS_TOKEN = "tokenizer.ggml.add_eos_token"
ADD_SPACE_PREFIX = "tokenizer.ggml.add_space_prefix"
CHAT_TEMPLATE = "tokenizer.chat_template"
