"""A small accounting service with realtime events: see README.md beside this file."""
