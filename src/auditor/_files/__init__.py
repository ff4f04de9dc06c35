"""Files: written whole, digests, strict YAML and JSON, images, and where bundled data lies."""
