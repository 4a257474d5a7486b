"""Finds out why reproq does not work here, or will not for long: one check a function, each finding with its remedy."""
