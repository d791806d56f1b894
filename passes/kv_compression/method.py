"""What a method for the cache is: a frozen dataclass that names page formats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar


class StoreMethod(ABC):
    """Base of the methods behind `[[kv]] store = { method = "<name>" }`.

    A method is a frozen dataclass whose fields are its options in the policy. It names the page
    formats (`effc.kernels.paged.formats`) in which a site keeps its keys and values; the operators
    that write and read them take the format as an argument.
    """

    kind: ClassVar[str] = "store"
    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]

    @abstractmethod
    def formats(self) -> tuple[str, str]:
        """The page formats of keys and of values."""
