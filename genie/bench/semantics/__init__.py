"""`genie bench semantics`: what knowing a model saves, beside remoting that knows nothing of it.

Four modes for the same models, inputs, devices and cut: local; naive (every call ships all that it
reads and makes); blind (everything stays remote under handles, the client drives call by call);
and genie. `docs/benchmarks/semantics.md` tells how bytes are counted and delays are made.
"""
