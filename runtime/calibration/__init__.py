"""What a model's matrices meet on a text, for the quantizer.

- `calibrate`: `iqrun.calibrate`, importance matrices;
- `collector`: counts what each matrix is given, and keeps what it did;
- `calibrated`: `iqrun.calibrated_encoder`, which quantizes along a text.
"""
