"""The road of a message, in order:

    inbound → throttle → routing → handlers (authorization, broadcaster) → broker → fanout → the members' transports

`inbound` is the road itself; the other modules are its stages, and `recovery` brings a socket's view of a room up to date. A coroutine that
never waits is run on the spot (`eager`), an application's own by the `dispatcher`."""
