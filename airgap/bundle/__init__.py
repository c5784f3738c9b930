"""What travels: the store, compressed frames, the one file, signatures."""
