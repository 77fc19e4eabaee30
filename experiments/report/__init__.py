"""Self-contained HTML pages: of a run, a sweep, or whatever else ends in tables and charts."""
