"""Learning rates that are good under cosine annealing with warmup, as benchmarks/tune_problems.py finds them.

Those of the pairs in :data:`GUESSED` are usual ones, until they are tuned.
"""

LEARNING_RATES: dict[str, dict[str, float]] = {
    "bert-modules": {"sgd": 0.0003, "adamw": 0.003, "adagrad": 0.01, "adafactor": 0.03},
    "bert-types": {"sgd": 0.01, "adamw": 0.001, "adagrad": 0.01, "adafactor": 0.01},
    "roberta-categories": {"sgd": 0.03, "adamw": 0.003, "adagrad": 0.01, "adafactor": 0.03},
    "roberta-marked": {"sgd": 0.01, "adamw": 0.003, "adagrad": 0.03, "adafactor": 0.03},
    "camembert-subpackages": {"sgd": 0.0003, "adamw": 0.003, "adagrad": 0.01, "adafactor": 0.03},
    "camembert-defaults": {"sgd": 0.01, "adamw": 0.001, "adagrad": 0.01, "adafactor": 0.01},
    "distilbert-modules": {"sgd": 0.001, "adamw": 0.003, "adagrad": 0.01, "adafactor": 0.03},
    "distilbert-marked": {"sgd": 0.3, "adamw": 0.003, "adagrad": 0.03, "adafactor": 0.1},
    "electra-categories": {"sgd": 0.01, "adamw": 0.003, "adagrad": 0.01, "adafactor": 0.03},
    "electra-types": {"sgd": 0.01, "adamw": 0.001, "adagrad": 0.01, "adafactor": 0.01},
    "t5-french": {"sgd": 1, "adamw": 0.01, "adagrad": 0.03, "adafactor": 0.1},
    "t5-german": {"sgd": 1, "adamw": 0.01, "adagrad": 0.03, "adafactor": 0.1},
    "t5-summaries": {"sgd": 1, "adamw": 0.01, "adagrad": 0.03, "adafactor": 0.1},
    "bart-spanish": {"sgd": 0.3, "adamw": 0.003, "adagrad": 0.03, "adafactor": 0.1},
    "bart-french": {"sgd": 0.3, "adamw": 0.01, "adagrad": 0.03, "adafactor": 0.1},
    "bart-names": {"sgd": 0.1, "adamw": 0.003, "adagrad": 0.03, "adafactor": 0.1},
    "pegasus-german": {"sgd": 1, "adamw": 0.03, "adagrad": 0.1, "adafactor": 0.3},
    "pegasus-spanish": {"sgd": 1, "adamw": 0.01, "adagrad": 0.1, "adafactor": 0.1},
    "pegasus-phonemes": {"sgd": 0.3, "adamw": 0.01, "adagrad": 0.03, "adafactor": 0.1},
    "marian-french": {"sgd": 0.3, "adamw": 0.003, "adagrad": 0.01, "adafactor": 0.1},
    "marian-german": {"sgd": 0.3, "adamw": 0.003, "adagrad": 0.03, "adafactor": 0.1},
    "marian-summaries": {"sgd": 0.1, "adamw": 0.01, "adagrad": 0.03, "adafactor": 0.1},
    "gpt2-prose": {"sgd": 0.3, "adamw": 0.01, "adagrad": 0.03, "adafactor": 0.1},
    "llama-code": {"sgd": 1, "adamw": 0.01, "adagrad": 0.03, "adafactor": 0.1},
    "recurrentgemma-prose": {"sgd": 0.1, "adamw": 0.003, "adagrad": 0.03, "adafactor": 0.01},
    "vit-fashion": {"sgd": 0.01, "adamw": 0.003, "adagrad": 0.01, "adafactor": 0.03},
    "vit-tiles": {"sgd": 0.01, "adamw": 0.001, "adagrad": 0.01, "adafactor": 0.03},
    "swin-digits": {"sgd": 0.1, "adamw": 0.003, "adagrad": 0.03, "adafactor": 0.1},
    "swin-fashion": {"sgd": 0.03, "adamw": 0.003, "adagrad": 0.01, "adafactor": 0.03},
    "resnet-tiles": {"sgd": 0.01, "adamw": 0.003, "adagrad": 0.01, "adafactor": 0.03},
    "resnet-digits": {"sgd": 0.01, "adamw": 0.01, "adagrad": 0.1, "adafactor": 0.1},
    "convnext-fashion": {"sgd": 0.03, "adamw": 0.01, "adagrad": 0.1, "adafactor": 1},
    "convnext-tiles": {"sgd": 0.1, "adamw": 0.03, "adagrad": 0.1, "adafactor": 0.01},
}

GUESSED = (
    "recurrentgemma-prose",
    "convnext-tiles",
)
"""Pairs whose learning rates have not been tuned for every optimizer yet."""
