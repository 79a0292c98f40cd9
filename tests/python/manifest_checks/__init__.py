"""The parts of manifests.py, by subject."""
