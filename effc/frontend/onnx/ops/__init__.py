"""Translations of ONNX operators, one file per family; `effc.frontend.onnx.table` joins them."""
