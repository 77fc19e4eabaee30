"""What a server is asked to do, and when: trace readers and seeded synthetic workloads."""
