"""The other end: a client that stays connected, and hands each event to the application once and in order."""
