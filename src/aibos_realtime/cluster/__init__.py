"""Many nodes: which instances there are and which one is next (`balancing`, over `instances`, `choice` and `probe`)."""
