"""OS threads that the runtime owns: a pool that makes blocking calls, and tickers that observe the carriers."""
