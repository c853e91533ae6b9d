"""The names of keys and channels of the nodes in Redis. Nothing else makes up a name; the queue has its own.

Rooms are spread over a fixed number of shards; all keys and channels of a shard share one hash tag, so that a script may touch them together on a
Redis Cluster. What belongs to no room is in the shard of the nodes.
"""

from __future__ import annotations

from binascii import crc32
from hashlib import blake2b

CLUSTER_SHARDS = 64
"""Of a Redis Cluster; any other Redis has one. Changing it moves every room: all servers of one prefix have to agree."""


class Layout:
    """`prefix`: how every name begins, keys and channels alike (of an ACL: `~prefix:*` and `&prefix:*`)."""

    def __init__(self, prefix: str, shards: int) -> None:
        self.prefix = prefix
        self.shards = shards
        self._tags = [f"{prefix}:{{{shard}}}" for shard in range(shards)]

    def shard(self, room: str) -> int:
        """The shard of a room: the same in every process and every version."""
        return crc32(room.encode()) % self.shards

    def of_shard(self, shard: int, name: str) -> str:
        """A key or channel that a shard has once."""
        return f"{self._tags[shard]}:{name}"

    def of_room(self, room: str, name: str) -> str:
        """A key or channel that a room has once."""
        return f"{self._tags[self.shard(room)]}:{name}:{room}"

    def room_of(self, channel: str) -> str:
        """The room in a name made by `of_room`."""
        return channel.split(":", 3)[3]

    def of_id(self, room: str, user_id: str, id: str) -> str:
        """The key that remembers one id of one publisher in one room."""
        digest = blake2b(f"{room}\0{user_id}\0{id}".encode(), digest_size=15).hexdigest()
        return f"{self._tags[self.shard(room)]}:id:{digest}"

    def of_nodes(self, name: str) -> str:
        """A key or channel of all nodes together."""
        return f"{self.prefix}:{{nodes}}:{name}"
