"""Classifiers of images: of attention and of convolutions, with batch norm where the architecture has it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from greedylr.lab.catalogue.problems.transformers.architectures.architecture import (
    DEVIATION,
    HEADS,
    SIZES,
    WIDTH,
    Architecture,
    library,
)
from greedylr.lab.catalogue.problems.transformers.sets.corpus import Corpus


def _vit(side: int) -> dict[str, Any]:
    return {**SIZES, "image_size": side, "patch_size": side // 4, "initializer_range": DEVIATION}


def _swin(side: int) -> dict[str, Any]:
    return {
        "embed_dim": WIDTH // 2,
        "depths": [1, 1],
        "num_heads": [HEADS // 2, HEADS],
        "window_size": side // 4,
        "image_size": side,
        "patch_size": 2,
        "initializer_range": DEVIATION,
    }


def _resnet(side: int) -> dict[str, Any]:
    return {
        "embedding_size": WIDTH // 4,
        "hidden_sizes": [WIDTH // 4, WIDTH // 2, WIDTH],
        "depths": [1, 1, 1],
        "layer_type": "basic",
    }


def _convnext(side: int) -> dict[str, Any]:
    return {"patch_size": 2, "num_stages": 2, "hidden_sizes": [WIDTH // 2, WIDTH], "depths": [1, 1]}


def _built(name: str, sizes: Callable[[int], dict[str, Any]], corpus: Corpus) -> nn.Module:
    channels, side = corpus.shape
    config = getattr(library(), f"{name}Config")(num_channels=channels, num_labels=corpus.classes, **sizes(side))
    model: nn.Module = getattr(library(), f"{name}ForImageClassification")(config)
    return model


ENTRIES = (
    Architecture("vit", "ViT", partial(_built, "ViT", _vit)),
    Architecture("swin", "Swin", partial(_built, "Swin", _swin)),
    Architecture("resnet", "ResNet", partial(_built, "ResNet", _resnet)),
    Architecture("convnext", "ConvNeXt", partial(_built, "ConvNext", _convnext)),
)
