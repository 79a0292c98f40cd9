"""The parts of odd_files.py, by subject."""
