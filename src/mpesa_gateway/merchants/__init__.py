"""The merchants of this moment, from the environment and from files."""
