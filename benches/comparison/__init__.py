"""The parts of benches/compare: servers, cells, measuring, and what is written from the results."""

from pathlib import Path

BENCHES = Path(__file__).resolve().parent.parent
ROOT = BENCHES.parent
TOOLS = BENCHES / ".tools"
