"""The wire, sans-I/O: frames, messages, codecs, limits, close codes, and the client's session. No asyncio, no socket, no clock, no random."""
