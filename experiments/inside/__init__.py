"""What runs inside other programs, in their environments: numpy is all it may take for granted."""
