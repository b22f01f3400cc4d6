"""Speech models of transformers: a front end of convolutions, an encoder, perhaps a decoder.

The regions are those that every page's overview and its paper's figure 1 show. Labels of the
position convolution of wav2vec 2.0 and its relatives are left out: their papers draw it between
feature encoder and context network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tests.semantics.corpus.language import PAGE, of_config
from tests.semantics.corpus.registry import Inputs, add, floats, ids


def spoken(
    name: str,
    family: str,
    regions: Mapping[str, str],
    inputs: Inputs,
    auto: str = "AutoModelForCTC",
    **given: Any,
) -> None:
    """A speech model."""

    def build() -> tuple[nn.Module, Inputs]:
        return of_config(name, auto, **given), inputs

    entry = name.replace("-", "_")
    add(entry, "transformers", family, "audio", PAGE + name, regions, build)


SPEECH = "AutoModelForSpeechSeq2Seq"
TOKENS = {"decoder_input_ids": ids(4)}


def two_halves(front: str, head: str) -> dict[str, str]:
    """Regions of an encoder-decoder: modules of the front end and of the head, by spaces."""
    return {
        **dict.fromkeys((f"model.model.encoder.{m}" for m in front.split()), "frontend"),
        "model.model.encoder.layers": "encoder",
        "model.model.encoder.layer_norm": "encoder",
        "model.model.decoder": "decoder",
        f"model.{head}": "head",
    }


spoken(
    "whisper",
    "whisper",
    two_halves("conv1 conv2", "proj_out"),
    {"input_features": floats(16, 64)} | TOKENS,
    SPEECH,
)
spoken(
    "moonshine",
    "moonshine",
    two_halves("conv1 conv2 conv3 groupnorm", "proj_out"),
    {"input_values": floats(1600)} | TOKENS,
    SPEECH,
)
spoken(
    "speech_to_text",
    "speech-to-text",
    two_halves("conv", "lm_head"),
    {"input_features": floats(64, 80)} | TOKENS,
    SPEECH,
)


def context(name: str) -> dict[str, str]:
    """Regions of wav2vec 2.0 and its relatives."""
    return {
        f"model.{name}.feature_extractor": "frontend",
        f"model.{name}.feature_projection": "frontend",
        f"model.{name}.encoder.layers": "encoder",
        "model.lm_head": "head",
    }


WAVE = {"input_values": floats(1600)}
for name in ("wav2vec2", "hubert", "wavlm", "unispeech"):
    spoken(name, "wav2vec2", context(name), WAVE)
spoken("sew", "sew", context("sew"), WAVE, squeeze_factor=2)
spoken("data2vec-audio", "data2vec", context("data2vec_audio"), WAVE)
spoken("wav2vec2-conformer", "conformer", context("wav2vec2_conformer"), WAVE, vocab_size=32)
spoken(
    "parakeet_ctc",
    "parakeet",
    {
        "model.encoder.subsampling": "frontend",
        "model.encoder.layers": "encoder",
        "model.ctc_head": "head",
    },
    {"input_features": floats(64, 16)},
)
