"""Faults planted in stories, and whether ``check`` finds them without crying wolf."""
