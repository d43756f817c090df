"""The benchmarks: the product and what its users would otherwise run, measured side by side.

`make bench` takes minutes, `make bench-full` hours. docs/performance.md explains each figure.
"""
