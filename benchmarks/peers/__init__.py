"""What users would otherwise run. Each is a program of its own that prints one line of JSON."""
