"""effc: an efficiency compiler for trained models."""
from pathlib import Path as _Path

if not (_Path(__file__).parent / "passes").is_dir():  # checkout whose links were lost
    __path__.append(str(_Path(__file__).parent.parent))
