"""Redis and Valkey: queues as streams. The driver is imported when a connection is opened, not before."""
