"""The two-stage head on GPUs: Triton kernels, the same functions in torch, and their compilation ahead of time.

Importing this package imports neither torch nor Triton.
"""
