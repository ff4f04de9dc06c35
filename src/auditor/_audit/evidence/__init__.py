"""What the journal holds, counted, and what the counts show: pure, from the journal alone."""
