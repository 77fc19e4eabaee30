"""Load clients: how fast a server, an engine or a simulated engine answers."""
