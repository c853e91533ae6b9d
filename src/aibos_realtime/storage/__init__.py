"""What must survive: the log of events in two tiers, messages, the queue, and events published in a caller's own transaction."""
