"""The recipe that made the micro world's weights: ``python -m auditor.microworld.train --out DIR``."""
