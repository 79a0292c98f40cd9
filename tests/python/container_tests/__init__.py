"""The parts of containers.py, by subject."""
