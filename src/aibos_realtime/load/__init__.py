"""Load: clients by the thousand that publish, receive and judge what they got. What `aibos-realtime bench` runs; no API of its own."""
