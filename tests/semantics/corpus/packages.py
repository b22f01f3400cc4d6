"""Models of packages from PyPI, which `make semantics` installs; see requirements.txt beside this.

A package that is not installed leaves its models out; the evaluation says which.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from tests.semantics.corpus.registry import floats, ids, model

MISSING: list[str] = []
"""Models whose package is not installed."""

IMAGE = {"image": floats(3, 64, 64)}
XT = "https://github.com/lucidrains/x-transformers"


class Image(nn.Module):
    """A model of one image."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Any:
        return self.net(image)


class Tokens(nn.Module):
    """A model of one sequence of tokens."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, tokens: Tensor) -> Any:
        return self.net(tokens)


def of(package: str, *labels: Any) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Register the model if its package is there."""

    def register(build: Callable[[], Any]) -> Callable[[], Any]:
        if importlib.util.find_spec(package) is None:
            MISSING.append(build.__name__)
            return build
        return model("pypi", *labels)(build)

    return register


@of(
    "x_transformers",
    "vit",
    "vision",
    XT,
    {"net.patch_to_embedding": "stem", "net.attn_layers": "stage", "net.mlp_head": "head"},
)
def x_transformers_vit() -> Any:
    from x_transformers import Encoder, ViTransformerWrapper

    net = ViTransformerWrapper(
        image_size=64,
        patch_size=16,
        num_classes=10,
        attn_layers=Encoder(dim=32, depth=2, heads=2),
    )
    return Image(net), IMAGE


def layers_of(at: str) -> dict[str, str]:
    """The layers of x-transformers alternate: attention at even places, feed-forward at odd."""
    return {f"{at}.{i}": "mlp" if i % 2 else "attention" for i in range(4)}


@of(
    "x_transformers",
    "x-transformers",
    "llm",
    XT,
    {
        "net.token_emb": "embedding",
        "net.pos_emb": "embedding",
        **layers_of("net.attn_layers.layers"),
        "net.to_logits": "lm_head",
    },
)
def x_transformers_decoder() -> Any:
    from x_transformers import Decoder, TransformerWrapper

    net = TransformerWrapper(
        num_tokens=100, max_seq_len=32, attn_layers=Decoder(dim=32, depth=2, heads=2)
    )
    return Tokens(net), {"tokens": ids(12)}


@of("x_transformers", "x-transformers", "generic", XT, {})
def x_transformers_encoder() -> Any:
    from x_transformers import Encoder, TransformerWrapper

    net = TransformerWrapper(
        num_tokens=100, max_seq_len=32, attn_layers=Encoder(dim=32, depth=2, heads=2)
    )
    return Tokens(net), {"tokens": ids(12)}


@of(
    "efficientnet_pytorch",
    "efficientnet",
    "vision",
    "Tan and Le 2019, table 1; https://github.com/lukemelas/EfficientNet-PyTorch",
    {
        "net._conv_stem": "stem",
        "net._bn0": "stem",
        **{
            f"net._blocks.{i}": f"stage:{stage}"
            for stage, last in enumerate([(0,), (1, 2), (3, 4), range(5, 11), range(11, 16)])
            for i in last
        },
        "net._fc": "head",
        "net._avg_pooling": "head",
    },
)
def efficientnet_b0() -> Any:
    from efficientnet_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-b0", image_size=64, num_classes=10)
    net.set_swish(memory_efficient=False)
    return Image(net), IMAGE
