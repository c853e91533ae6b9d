"""Who is here: the sockets, rooms and figures of this node, as plain objects without a network."""
