"""The executor `pool`: a few children that serve many tasks each."""
