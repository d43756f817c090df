"""What operators are told of the system as a whole."""
