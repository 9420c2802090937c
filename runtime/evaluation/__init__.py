"""How good a model is, measured on a text.

- `evaluate`: `iqrun.perplexity` and `iqrun.divergence`;
- `saved_logits`: the base of a divergence from a file of llama.cpp's;
- `comparison`: `iqrun.compare`, several files beside each other: size, quality, speed; `comparison_report` shows it;
- `measurement`: `iqrun.measure_sensitivity`, what an error in each matrix does to the predictions.
"""
