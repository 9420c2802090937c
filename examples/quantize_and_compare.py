"""Quantizes a model and tells what it costs: size, perplexity, divergence from the original.

python examples/quantize_and_compare.py models/demo/stories-13m-f16.gguf text.txt IQ3_K IQ4_K
"""

import sys
import tempfile
from pathlib import Path

import iqrun

source, text_file, *types = sys.argv[1:]
text = Path(text_file).read_text(encoding="utf-8")
with tempfile.TemporaryDirectory() as folder, iqrun.load(source, n_ctx=256) as original:
    for name in types:
        target = Path(folder) / f"{name}.gguf"
        iqrun.quantize(source, target, name)
        with iqrun.load(target, n_ctx=256) as model:
            result = iqrun.divergence(model, original, text, n_ctx=256)
        size = target.stat().st_size / 1e6
        print(f"{name:8} {size:7.1f} MB  perplexity {result.model.ppl:.3f}  mean KL divergence {result.mean_kld:.5f}")
