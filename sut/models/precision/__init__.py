"""A model in lower precision: converted, calibrated, folded, and compared with its FP32 form."""
