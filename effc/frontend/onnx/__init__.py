"""The `onnx` frontend: ONNX files -> programs.

file --reader--> onnx_ir.Model --interface--> roles of its inputs --translate--> Program
"""
