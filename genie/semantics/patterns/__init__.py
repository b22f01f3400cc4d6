"""The patterns that come with Genie; they have no more rights than a plugin's."""

from genie.semantics.patterns.audio import Audio
from genie.semantics.patterns.llm import LanguageModel
from genie.semantics.patterns.multimodal import MultiModal
from genie.semantics.patterns.recsys import Recommendation
from genie.semantics.patterns.vision import Vision

__all__ = ["BUILT_IN"]

BUILT_IN = (MultiModal(), Audio(), LanguageModel(), Recommendation(), Vision())
"""In the order of precedence between equally confident matches: of more parts first."""
