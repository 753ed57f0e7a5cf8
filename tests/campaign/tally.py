"""Counting outcomes, and the table of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

FINE = ("equal", "refused in one line")
FAULTS = ("traceback", "dead directory", "another result", "half-written", "no error line")


@dataclass
class Tally:
    """Outcomes by kind of trial and stage; faults are kept with what shows them."""

    counts: dict[tuple[str, str], Counter] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, kind: str, stage: str, outcome: str, detail: str = "") -> None:
        self.counts.setdefault((kind, stage), Counter())[outcome] += 1
        if outcome not in FINE:
            self.faults.append(f"{kind}, {stage}: {outcome}: {detail}")
            print(self.faults[-1], flush=True)

    def update(self, other: Tally) -> None:
        for key, counts in other.counts.items():
            self.counts.setdefault(key, Counter()).update(counts)
        self.faults += other.faults

    def to_json(self) -> dict:
        return {"counts": [[*key, dict(counts)] for key, counts in self.counts.items()], "faults": self.faults}

    @classmethod
    def from_json(cls, content: dict) -> Tally:
        return cls({(kind, stage): Counter(counts) for kind, stage, counts in content["counts"]}, content["faults"])

    def table(self) -> str:
        """Markdown, a line for each kind, stages added up."""
        kinds = list(dict.fromkeys(kind for kind, _ in self.counts))
        header = ["Trials", "Stages", "Number", *FINE, *FAULTS]
        lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 2)]
        for kind in kinds:
            stages = {stage: counts for (of, stage), counts in self.counts.items() if of == kind}
            total = sum(stages.values(), Counter())
            lines.append([kind, str(len(stages)), str(total.total()), *(str(total[name]) for name in (*FINE, *FAULTS))])
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
