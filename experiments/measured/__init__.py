"""Published measurements of real servers, replayed in the simulator."""
