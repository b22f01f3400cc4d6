"""Multi-modal models written here after their papers; regions as in `together`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f

from tests.semantics.corpus.registry import floats, ids, model


def vision() -> nn.Sequential:
    parts: list[nn.Module] = []
    for a, b in ((3, 8), (8, 16), (16, 32)):
        parts += [nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def stack(layers: int = 2, width: int = 32) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(width, 4, 64, batch_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


@model(
    "plain",
    "contrastive",
    "multimodal",
    "Radford et al. 2021, figure 3, with a convolutional image encoder (arXiv:2103.00020)",
    {
        "vision": "vision",
        "to_common": "vision",
        "words": "text",
        "text": "text",
        "text_to_common": "text",
        "!matmul": "fusion",
    },
)
def contrastive_pair() -> Any:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vision, self.to_common = vision(), nn.Linear(32, 16)
            self.words, self.text = nn.Embedding(100, 32), stack()
            self.text_to_common = nn.Linear(32, 16)
            self.scale = nn.Parameter(torch.ones([]))

        def forward(self, image: Tensor, tokens: Tensor) -> Tensor:
            a = f.normalize(self.to_common(self.vision(image)), dim=1)
            b = f.normalize(self.text_to_common(self.text(self.words(tokens)).mean(1)), dim=1)
            return self.scale.exp() * a @ b.t()

    return Pair(), {"image": floats(3, 32, 32), "tokens": ids(8)}


@model(
    "plain",
    "question-answering",
    "multimodal",
    "Antol et al. 2015, figure 8: LSTM question encoder, fusion by multiplying (arXiv:1505.00468)",
    {"vision": "vision", "words": "text", "question": "text", "answer": "fusion"},
)
def visual_question_answering() -> Any:
    class VQA(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vision, self.words = vision(), nn.Embedding(100, 16)
            self.question = nn.LSTM(16, 32, batch_first=True)
            self.answer = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 20))

        def forward(self, image: Tensor, question: Tensor) -> Tensor:
            said = self.question(self.words(question))[0][:, -1]
            return self.answer(self.vision(image) * said)

    return VQA(), {"image": floats(3, 32, 32), "question": ids(8)}


@model(
    "plain",
    "captioning",
    "multimodal",
    "Liu et al. 2023, figure 1: image features before the words (arXiv:2304.08485)",
    {
        "vision": "vision",
        "projector": "vision",
        "words": "text",
        "decoder": "fusion",
        "head": "fusion",
    },
)
def image_prefix_lm() -> Any:
    class Prefix(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vision = nn.Conv2d(3, 32, 8, 8)
            self.tower = stack()
            self.projector = nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 32))
            self.words, self.decoder = nn.Embedding(100, 32), stack()
            self.head = nn.Linear(32, 100)

        def forward(self, image: Tensor, tokens: Tensor) -> Tensor:
            seen = self.tower(self.vision(image).flatten(2).transpose(1, 2))
            x = torch.cat([self.projector(seen), self.words(tokens)], 1)
            n = x.shape[1]
            closed = torch.full((n, n), float("-inf")).triu(1)
            return self.head(self.decoder(x, mask=closed, is_causal=True)[:, 16:])

    return Prefix(), {"image": floats(3, 32, 32), "tokens": ids(8)}


@model(
    "plain",
    "cross-attention-fusion",
    "multimodal",
    "Li et al. 2021, figure 1: a multi-modal encoder that attends to the image (arXiv:2107.07651)",
    {"patches": "vision", "vision": "vision", "words": "text", "text": "text", "both": "fusion"},
)
def fused_by_cross_attention() -> Any:
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.vision = nn.Conv2d(3, 32, 8, 8), stack()
            self.words, self.text = nn.Embedding(100, 32), stack()
            layer = nn.TransformerDecoderLayer(32, 4, 64, batch_first=True)
            self.both = nn.TransformerDecoder(layer, 2)
            self.head = nn.Linear(32, 2)

        def forward(self, image: Tensor, tokens: Tensor) -> Tensor:
            seen = self.vision(self.patches(image).flatten(2).transpose(1, 2))
            return self.head(self.both(self.text(self.words(tokens)), seen)[:, 0])

    return Fused(), {"image": floats(3, 32, 32), "tokens": ids(8)}


@model(
    "plain",
    "audio-visual",
    "multimodal",
    "Owens and Efros 2018, figure 2: early fusion of sound and images (arXiv:1804.03641)",
    {"vision": "vision", "sound": "audio", "joint": "fusion"},
)
def audio_visual() -> Any:
    class AudioVisual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vision = vision()
            self.sound = nn.Sequential(
                nn.Conv1d(1, 16, 65, 4),
                nn.ReLU(),
                nn.Conv1d(16, 32, 15, 4),
                nn.ReLU(),
                nn.AdaptiveAvgPool1d(1),
                nn.Flatten(),
            )
            self.joint = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))

        def forward(self, image: Tensor, wave: Tensor) -> Tensor:
            return self.joint(torch.cat([self.vision(image), self.sound(wave.unsqueeze(1))], 1))

    return AudioVisual(), {"image": floats(3, 32, 32), "wave": floats(1600)}


@model(
    "plain",
    "sound-and-text",
    "multimodal",
    "Elizalde et al. 2023, figure 1: contrastive language-audio pretraining (arXiv:2206.04769)",
    {"sound": "audio", "words": "text", "text": "text"},
)
def sound_and_text() -> Any:
    class SoundText(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sound = nn.Sequential(
                nn.Conv1d(1, 16, 65, 8), nn.ReLU(), nn.Conv1d(16, 32, 15, 4), nn.ReLU()
            )
            self.context = stack()
            self.words, self.text = nn.Embedding(100, 32), stack()

        def forward(self, wave: Tensor, tokens: Tensor) -> Tensor:
            heard = self.context(self.sound(wave.unsqueeze(1)).transpose(1, 2)).mean(1)
            read = self.text(self.words(tokens)).mean(1)
            return f.normalize(heard, dim=1) @ f.normalize(read, dim=1).t()

    return SoundText(), {"wave": floats(1600), "tokens": ids(8)}
