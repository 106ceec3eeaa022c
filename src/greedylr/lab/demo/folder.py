"""Results on disk: one file a run, so that nothing finished is trained twice or lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from greedylr.lab.content import settings
from greedylr.lab.runs import Result, Run
from greedylr.pages import write_whole


class Folder:
    """Results in a folder, each in a file named after all settings that it depends on.

    A result is found again only under the settings that it was made with; files of other settings
    are left alone. Nothing is ever deleted.

    Args:
        path: The folder; made when the first result is saved.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, runs: Iterable[Run]) -> list[Result]:
        """The results of those of ``runs`` that are finished, in their order."""
        return [result for run in runs if (result := self._load(run)) is not None]

    def save(self, result: Result) -> None:
        """Write a result, whole or not at all.

        Raises:
            OSError: If it cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        record = {"settings": settings(result.run), "result": result.to_dict()}
        write_whole(self._file(result.run), json.dumps(record))

    def others(self, runs: Iterable[Run]) -> int:
        """The number of results in the folder that belong to none of ``runs``."""
        wanted = {self._file(run).name for run in runs}
        return sum(file.name not in wanted for file in self.path.glob("*.json"))

    def _load(self, run: Run) -> Result | None:
        try:
            return Result.from_dict(json.loads(self._file(run).read_bytes())["result"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return None  # Damaged; trained and written anew.

    def _file(self, run: Run) -> Path:
        key = hashlib.sha256(json.dumps(settings(run), sort_keys=True).encode()).hexdigest()[:16]
        return self.path / f"{run.problem}-{run.multiplier:g}x-{run.scheduler}-seed{run.seed}-{key}.json"
