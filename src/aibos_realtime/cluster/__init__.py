"""Many nodes: which instances there are (`scaling`, over `reports`), and which one is next (`balancing`, over `instances`, `choice` and `probe`)."""
