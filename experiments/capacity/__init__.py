"""The highest rate of arrivals at which a configuration keeps its promises, and what that costs."""
