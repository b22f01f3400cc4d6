"""Language and speech models written here after their papers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f

from tests.semantics.corpus.registry import blocks, floats, ids, model

WORDS, WIDTH, HEADS = 100, 32, 4


class Causal(nn.Module):
    """Self-attention whose causal mask is a buffer, as in nanoGPT."""

    allowed: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.register_buffer("allowed", torch.tril(torch.ones(32, 32)).view(1, 1, 32, 32))

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (
            part.view(b, n, HEADS, WIDTH // HEADS).transpose(1, 2)
            for part in self.qkv(x).split(WIDTH, 2)
        )
        scores = q @ k.transpose(2, 3) / (WIDTH // HEADS) ** 0.5
        scores = scores.masked_fill(self.allowed[:, :, :n, :n] == 0, float("-inf"))
        return self.out((scores.softmax(3) @ v).transpose(1, 2).reshape(b, n, WIDTH))


def feed(width: int = WIDTH) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


@model(
    "plain",
    "nanogpt",
    "llm",
    "Radford et al. 2019, section 2.3, as written in https://github.com/karpathy/nanoGPT",
    {
        "words": "embedding",
        "places": "embedding",
        **blocks("layers", attention="norm1 attention", mlp="norm2 mlp"),
        "head": "lm_head",
    },
)
def nano_gpt() -> Any:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.attention, self.mlp = Causal(), feed()

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.attention(self.norm1(x))
            return x + self.mlp(self.norm2(x))

    class NanoGPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(32, WIDTH)
            self.layers = nn.ModuleList(Layer() for _ in range(3))
            self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.words(tokens) + self.places(torch.arange(tokens.shape[1]))
            for layer in self.layers:
                x = layer(x)
            return self.head(self.norm(x))

    return NanoGPT(), {"tokens": ids(12)}


@model(
    "plain",
    "original-decoder",
    "llm",
    "Vaswani et al. 2017, figure 1, right half without the encoder (arXiv:1706.03762)",
    {"words": "embedding", "head": "lm_head"},
)
def torch_layers_lm() -> Any:
    class LM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(WORDS, WIDTH)
            layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=True)
            self.stack = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(WIDTH, WORDS)

        def forward(self, tokens: Tensor) -> Tensor:
            n = tokens.shape[1]
            closed = torch.triu(torch.full((n, n), float("-inf")), diagonal=1)
            return self.head(self.stack(self.words(tokens), mask=closed, is_causal=True))

    return LM(), {"tokens": ids(12)}


@model(
    "plain",
    "tied-rotary",
    "llm",
    "Su et al. 2021 (arXiv:2104.09864); tied embeddings: Press and Wolf 2017 (arXiv:1608.05859)",
    {
        "words": "embedding",
        **blocks("layers", attention="norm1 qkv out", mlp="norm2 mlp"),
        "!linear": "lm_head",
    },
)
def tied_rotary_lm() -> Any:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.mlp = feed()

        def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
            b, n, _ = x.shape

            def turn(t: Tensor) -> Tensor:
                a, c = t.chunk(2, 3)
                return t * cos + torch.cat([-c, a], 3) * sin

            q, k, v = (
                part.view(b, n, HEADS, WIDTH // HEADS).transpose(1, 2)
                for part in self.qkv(self.norm1(x)).chunk(3, 2)
            )
            seen = f.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True)
            x = x + self.out(seen.transpose(1, 2).reshape(b, n, WIDTH))
            return x + self.mlp(self.norm2(x))

    class LM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(WORDS, WIDTH)
            self.layers = nn.ModuleList(Layer() for _ in range(2))
            self.norm = nn.RMSNorm(WIDTH)

        def forward(self, tokens: Tensor) -> Tensor:
            angle = torch.arange(tokens.shape[1])[:, None] / 10000 ** (torch.arange(4) / 4)
            angle = torch.cat([angle, angle], 1)
            x = self.words(tokens)
            for layer in self.layers:
                x = layer(x, angle.cos(), angle.sin())
            return f.linear(self.norm(x), self.words.weight)

    return LM(), {"tokens": ids(12)}


class Cached(nn.Module):
    """Self-attention over keys and values kept in buffers: state that each call moves on."""

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        for name in ("keys", "values"):
            self.register_buffer(name, torch.zeros(1, HEADS, 64, WIDTH // HEADS))

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (
            part.view(b, n, HEADS, WIDTH // HEADS).transpose(1, 2)
            for part in self.qkv(x).split(WIDTH, 2)
        )
        self.keys.index_copy_(2, places, k)
        self.values.index_copy_(2, places, v)
        seen = torch.arange(64)[None] <= places[:, None]
        made = f.scaled_dot_product_attention(q, self.keys, self.values, attn_mask=seen)
        return self.out(made.transpose(1, 2).reshape(b, n, WIDTH))


class CachedLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention, self.mlp = Cached(), feed()

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), places)
        return x + self.mlp(self.norm2(x))


class CachedLM(nn.Module):
    """Tokens int64[1, n] at places int64[n] -> float32[1, n, words]; the cache holds the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.table = nn.Embedding(WORDS, WIDTH), nn.Embedding(64, WIDTH)
        self.layers = nn.ModuleList(CachedLayer() for _ in range(2))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, tokens: Tensor, places: Tensor) -> Tensor:
        x = self.words(tokens) + self.table(places)
        for layer in self.layers:
            x = layer(x, places)
        return self.head(self.norm(x))


CACHED = {
    "words": "embedding",
    "table": "embedding",
    **blocks("layers", attention="norm1 attention", mlp="norm2 mlp"),
    "head": "lm_head",
}
SERVING = "Pope et al. 2022, section 2.1: prefill and generation share a cache (arXiv:2211.05102)"


def some(count: int, below: int) -> dict[str, Any]:
    return {"dtype": "int64", "shape": [count], "low": 0, "high": below}


def batch_of_one(count: int) -> dict[str, Any]:
    return {"dtype": "int64", "shape": [1, count], "low": 0, "high": WORDS}


@model("plain", "cached-gpt", "llm", SERVING, CACHED, "prefill")
def cached_prefill() -> Any:
    return CachedLM(), {"tokens": batch_of_one(12), "places": some(12, 12)}


@model("plain", "cached-gpt", "llm", SERVING, CACHED, "decode")
def cached_decode() -> Any:
    return CachedLM(), {"tokens": batch_of_one(1), "places": some(1, 64)}


@model(
    "plain",
    "passed-cache",
    "llm",
    "Pope et al. 2022, section 2.1, the cache handed in and out (arXiv:2211.05102)",
    {
        "words": "embedding",
        **blocks("layers", attention="norm1 qkv out", mlp="norm2 mlp"),
        "head": "lm_head",
    },
    "decode",
)
def cache_handed_over() -> Any:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.mlp = feed()

        def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, ...]:
            b, n, _ = x.shape
            q, k, v = (
                part.view(b, n, HEADS, WIDTH // HEADS).transpose(1, 2)
                for part in self.qkv(self.norm1(x)).split(WIDTH, 2)
            )
            keys, values = torch.cat([keys, k], 2), torch.cat([values, v], 2)
            made = f.scaled_dot_product_attention(q, keys, values)
            x = x + self.out(made.transpose(1, 2).reshape(b, n, WIDTH))
            return x + self.mlp(self.norm2(x)), keys, values

    class LM(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(WORDS, WIDTH)
            self.layers = nn.ModuleList(Layer() for _ in range(2))
            self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)

        def forward(
            self, token: Tensor, keys0: Tensor, values0: Tensor, keys1: Tensor, values1: Tensor
        ) -> tuple[Tensor, ...]:
            x, k0, v0 = self.layers[0](self.words(token), keys0, values0)
            x, k1, v1 = self.layers[1](x, keys1, values1)
            return self.head(self.norm(x)), k0, v0, k1, v1

    cache = {"dtype": "float32", "shape": ["b", HEADS, 16, WIDTH // HEADS]}
    return LM(), {
        "token": ids(1),
        **dict.fromkeys(("keys0", "values0", "keys1", "values1"), cache),
    }


# -- speech --------------------------------------------------------------------------------------


@model(
    "plain",
    "speech-transformer",
    "audio",
    "Dong et al. 2018, figure 2 (doi:10.1109/ICASSP.2018.8462506)",
    {"front": "frontend", "encoder": "encoder", "decoder": "decoder", "head": "head"},
)
def speech_transformer() -> Any:
    class SpeechTransformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.front = nn.Sequential(
                nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()
            )
            self.widen = nn.Linear(80, WIDTH)
            one = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=True)
            two = nn.TransformerDecoderLayer(WIDTH, HEADS, 64, batch_first=True)
            self.encoder = nn.TransformerEncoder(one, 2, enable_nested_tensor=False)
            self.words, self.decoder = nn.Embedding(WORDS, WIDTH), nn.TransformerDecoder(two, 2)
            self.head = nn.Linear(WIDTH, WORDS)

        def forward(self, frames: Tensor, tokens: Tensor) -> Tensor:
            x = self.front(frames.unsqueeze(1)).transpose(1, 2).flatten(2)
            memory = self.encoder(self.widen(x))
            closed = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
            x = self.decoder(self.words(tokens), memory, tgt_mask=closed, tgt_is_causal=True)
            return self.head(x)

    return SpeechTransformer(), {"frames": floats(64, 40), "tokens": ids(8)}


@model(
    "plain",
    "deep-speech",
    "audio",
    "Amodei et al. 2016, figure 1 (arXiv:1512.02595)",
    {"front": "frontend", "recurrent": "encoder", "head": "head"},
)
def deep_speech() -> Any:
    class DeepSpeech(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.front = nn.Sequential(
                nn.Conv2d(1, 8, (11, 11), (2, 2), 5),
                nn.BatchNorm2d(8),
                nn.Hardtanh(0, 20),
                nn.Conv2d(8, 8, (11, 11), (2, 1), 5),
                nn.BatchNorm2d(8),
                nn.Hardtanh(0, 20),
            )
            self.recurrent = nn.GRU(80, 32, 2, batch_first=True, bidirectional=True)
            self.head = nn.Linear(64, 29)

        def forward(self, frames: Tensor) -> Tensor:
            x = self.front(frames.transpose(1, 2).unsqueeze(1)).flatten(1, 2).transpose(1, 2)
            return self.head(self.recurrent(x)[0]).log_softmax(2)

    return DeepSpeech(), {"frames": floats(64, 40)}


@model(
    "plain",
    "wave-encoder-decoder",
    "audio",
    "Baevski et al. 2020, figure 1, with the decoder of Radford et al. 2022, figure 1",
    {
        "front": "frontend",
        "encoder": "encoder",
        "words": "decoder",
        "decoder": "decoder",
        "head": "head",
    },
)
def wave_to_text() -> Any:
    class WaveToText(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.front = nn.Sequential(
                nn.Conv1d(1, 16, 10, 5), nn.GELU(), nn.Conv1d(16, 32, 3, 2), nn.GELU()
            )
            one = nn.TransformerEncoderLayer(WIDTH, HEADS, 64, batch_first=True, norm_first=True)
            two = nn.TransformerDecoderLayer(WIDTH, HEADS, 64, batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(one, 2, enable_nested_tensor=False)
            self.words, self.decoder = nn.Embedding(WORDS, WIDTH), nn.TransformerDecoder(two, 2)
            self.head = nn.Linear(WIDTH, WORDS)

        def forward(self, wave: Tensor, tokens: Tensor) -> Tensor:
            memory = self.encoder(self.front(wave.unsqueeze(1)).transpose(1, 2))
            n = tokens.shape[1]
            closed = torch.ones(n, n).triu(1).bool()
            x = self.decoder(self.words(tokens), memory, tgt_mask=closed, tgt_is_causal=True)
            return self.head(x)

    return WaveToText(), {"wave": floats(800), "tokens": ids(8)}
