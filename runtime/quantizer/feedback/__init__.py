"""Error feedback: what a code misses is made up for by the codes still to come.

`iqrun.quantize` rounds each weight to what is nearest; here a row of weights w is encoded as the q that changes the
matrix's output least on typical inputs X: it minimizes ``(w - q) H (w - q)^T`` with ``H = X^T X``, all columns
together (the idea of GPTQ, Frantar et al. 2022).

- `factors`: H as the numbers that the search in C wants;
- `rows`: one matrix, encoded under them;
- `gram_encoder`: an encoder for `quantize` with the H of a full importance matrix;
- `walk`: a text's way through a model, operation by operation;
- `inputs`: what both models' inputs of a matrix ask of it;
- `sequential`: an encoder for `quantize` that sees what the matrices encoded already have changed.
"""

from iqrun.quantizer.feedback.gram_encoder import GramEncoder
from iqrun.quantizer.feedback.sequential import SequentialEncoder, bytes_per_token

__all__ = ["GramEncoder", "SequentialEncoder", "bytes_per_token"]
