"""Language models: fine-tuning and pre-training under several schedulers, the published recipes among them."""

from greedylr.extras import missing

try:
    import datasets  # type: ignore[import-untyped]  # noqa: F401
    import peft  # noqa: F401
    import trl  # noqa: F401
    import typer  # noqa: F401
except ModuleNotFoundError as error:
    raise missing(error, "lm") from error
