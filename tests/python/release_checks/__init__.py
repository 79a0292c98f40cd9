"""The parts of release.py, by subject."""
