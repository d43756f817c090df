"""What numbers say, without a server: samples, intervals, comparisons. Pure."""
