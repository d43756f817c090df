"""Real services from `pip install` alone, shared by the demo, the tests and the benchmarks."""
