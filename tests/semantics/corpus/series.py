"""Time series, and texts that are classified.

Generic, as the papers cited describe them; no regions, for plans handle them generically.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f

from tests.semantics.corpus.layers import features, mlp
from tests.semantics.corpus.registry import ids, model


@model("plain", "lstm-forecast", "generic", "Salinas et al. 2020, section 3.1 (arXiv:1704.04110)")
def lstm_forecaster() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = nn.LSTM(3, 32, 2, batch_first=True)
            self.mean, self.scale = nn.Linear(32, 1), nn.Linear(32, 1)

        def forward(self, series: Tensor) -> tuple[Tensor, Tensor]:
            x = self.recurrent(series)[0]
            return self.mean(x), f.softplus(self.scale(x))

    return features(Net(), "series", (24, 3))


@model("plain", "tcn", "generic", "Bai et al. 2018, section 3 (arXiv:1803.01271)")
def temporal_convolution() -> Any:
    class Block(nn.Module):
        def __init__(self, a: int, b: int, dilation: int) -> None:
            super().__init__()
            self.pad = 2 * dilation
            self.conv = nn.Conv1d(a, b, 3, dilation=dilation)
            self.short = nn.Conv1d(a, b, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.conv(f.pad(x, (self.pad, 0))) + self.short(x))

    class TCN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(Block(3, 16, 1), Block(16, 16, 2), Block(16, 16, 4))
            self.out = nn.Linear(16, 1)

        def forward(self, series: Tensor) -> Tensor:
            return self.out(self.blocks(series)[:, :, -1])

    return features(TCN(), "series", (3, 32))


@model("plain", "n-beats", "generic", "Oreshkin et al. 2020, figure 1 (arXiv:1905.10437)")
def n_beats() -> Any:
    class NBeats(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(mlp(24, 32, 32 + 4) for _ in range(3))

        def forward(self, series: Tensor) -> Tensor:
            total = torch.zeros_like(series[:, :4])
            for block in self.blocks:
                made = block(series)
                total = total + made[:, 32:]
                series = series - made[:, :24]
            return total

    return features(NBeats(), "series", (24,))


@model("plain", "series-transformer", "generic", "Zerveas et al. 2021, figure 1 (arXiv:2010.02803)")
def series_transformer() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.out = nn.Linear(6, 32), nn.Linear(32, 6)
            layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, series: Tensor) -> Tensor:
            return self.out(self.encoder(self.first(series)))

    return features(Net(), "series", (24, 6))


@model("plain", "text-gru", "generic", "Cho et al. 2014, the encoder alone (arXiv:1406.1078)")
def text_gru_classifier() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.recurrent = nn.Embedding(100, 16), nn.GRU(16, 32, batch_first=True)
            self.out = nn.Linear(32, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.out(self.recurrent(self.words(tokens))[0][:, -1])

    return Net(), {"tokens": ids(12)}


@model("plain", "text-cnn", "generic", "Kim 2014, figure 1 (arXiv:1408.5882)")
def text_cnn_classifier() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(100, 16)
            self.convs = nn.ModuleList(nn.Conv1d(16, 8, size) for size in (3, 4, 5))
            self.out = nn.Linear(24, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.words(tokens).transpose(1, 2)
            return self.out(torch.cat([conv(x).relu().amax(2) for conv in self.convs], 1))

    return Net(), {"tokens": ids(16)}
