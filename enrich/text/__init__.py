"""From a message to the text that is embedded, and its fingerprint."""
