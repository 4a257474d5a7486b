"""The executor `pool`: children that run many tasks each."""
