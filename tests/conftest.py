"""What every test may take for granted of the process it runs in."""

from __future__ import annotations

import signal

# A runner started in the background passes SIGINT or SIGHUP on as ignored, and a shell cannot trap what it was born ignoring
# (POSIX, trap): the tests of interruption would then show the runner and not the product.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
