"""Child processes on virtual threads: waiting for them, and starting them."""
