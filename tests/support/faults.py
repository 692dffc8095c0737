"""The table of faults that `make faults` prints."""

from dataclasses import dataclass, field


@dataclass
class FaultTable:
    """What each fault cost, in the order in which the tests ran."""

    rows: list[tuple[str, int, float]] = field(default_factory=list)

    def add(self, fault: str, lost_trainings: int, seconds: float) -> None:
        """Add a row.

        Args:
            fault: what happened.
            lost_trainings: trainings that had to be repeated, or were done twice.
            seconds: from the end of the fault until the next training ended.
        """
        self.rows.append((fault, lost_trainings, seconds))

    def lines(self) -> list[str]:
        """The table in Markdown."""
        head = ["| fault | trainings lost | seconds to recover |", "| --- | ---: | ---: |"]
        return [*head, *(f"| {what} | {lost} | {took:.1f} |" for what, lost, took in self.rows)]
