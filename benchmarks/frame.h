// The head of a WebSocket frame (RFC 6455, section 5.2), for `load.c` and `floor.c`.
#include <stddef.h>
#include <stdint.h>

// Writes the head of a masked frame; how long it is, without the mask that follows it.
static inline size_t write_head(unsigned char *to, int opcode, uint64_t length) {
  int bytes = length < 126 ? 0 : length < 65536 ? 2 : 8;
  to[0] = 0x80 | opcode;
  to[1] = 0x80 | (bytes == 0 ? length : bytes == 2 ? 126 : 127);
  for (int i = 0; i < bytes; i++) to[2 + i] = length >> (8 * (bytes - 1 - i));
  return 2 + bytes;
}

// Where the payload, or the mask before it, begins, and how long the payload is; 0 while the head is cut.
static inline size_t read_head(const unsigned char *data, size_t size, uint64_t *length) {
  if (size < 2) return 0;
  int bytes = (data[1] & 127) == 126 ? 2 : (data[1] & 127) == 127 ? 8 : 0;
  if (size < 2u + bytes) return 0;
  *length = bytes ? 0 : data[1] & 127;
  for (int i = 0; i < bytes; i++) *length = *length << 8 | data[2 + i];
  return 2 + bytes;
}
