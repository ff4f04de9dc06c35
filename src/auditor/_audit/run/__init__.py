"""What draws, trains and scores: the only part of an audit that changes models."""
