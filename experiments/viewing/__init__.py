"""What the live view's page is told of a run that is over: the same ticks that a server tells."""
