"""The contract: plan, spec and message models, versions, digests, the verifier, error codes."""
