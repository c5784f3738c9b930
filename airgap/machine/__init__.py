"""The machine under us, on either side: starting programs, speaking to an engine, heeding signals."""
