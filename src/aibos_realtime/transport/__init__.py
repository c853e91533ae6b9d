"""The seam to clients: frames in, frames out, over the event loop's own transports, ASGI, or memory."""
