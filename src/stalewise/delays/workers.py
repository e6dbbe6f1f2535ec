"""Workers that are alike or not: groups, each with its own law of one gradient's delay."""

import functools
from dataclasses import dataclass

from stalewise.delays.compiled import Encoded, encode_groups
from stalewise.delays.laws import AbstractDelay


@dataclass(frozen=True)
class Workers:
    """Groups of workers, in the order in which workers are numbered.

    Attributes:
        groups: (number of workers, law of one gradient's delay [s]) of each group.
    """

    groups: tuple[tuple[int, AbstractDelay], ...]

    @functools.cached_property
    def count(self) -> int:
        """All workers, N."""
        return sum(count for count, _ in self.groups)

    @functools.cached_property
    def rate(self) -> float:
        """Gradients a second if nobody ever waits: the sum of 1/mean."""
        return sum(count / law.mean for count, law in self.groups)

    @property
    def mean_cycle(self) -> float:
        """Workers over rate [s]: of workers that are alike, their mean delay."""
        return self.count / self.rate

    @property
    def law(self) -> AbstractDelay | None:
        """The law of every worker; None where they are unlike."""
        laws = {law for _, law in self.groups}
        return laws.pop() if len(laws) == 1 else None

    def first(self, count: int) -> "Workers":
        """The first ``count`` of them."""
        taken, groups = 0, []
        for size, law in self.groups:
            if taken < count:
                groups.append((min(size, count - taken), law))
                taken += groups[-1][0]
        return Workers(tuple(groups))

    def encoded(self) -> Encoded:
        """For compiled draws."""
        if self.law is not None:
            return encode_groups([(self.count, self.law.components(), self.law.mean)])
        return encode_groups([(count, law.components(), law.mean) for count, law in self.groups])
