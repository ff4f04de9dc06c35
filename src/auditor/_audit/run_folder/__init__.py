"""What an audit keeps on disk beside its journal: the manifest and the weights of its arms."""
