"""Language models with a cache: found, bounded, checked, and captured as prefill and decode."""

from genie.capture.llm.entries import language_model

__all__ = ["language_model"]
