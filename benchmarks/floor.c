// The floor under `python -m benchmarks`: what the kernel alone costs. A WebSocket server that knows one room, reads each message and sends it to
// everybody with one send() each; a message that begins with "echo" goes back to its sender. No HTTP, no rooms, no limits, no outbox: a server that
// does more can be cheaper per delivery only by handing the kernel several messages at once.
//
//   floor PORT
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "frame.h"

enum { BUFFER = 4 << 20, MOST = 1 << 20 };

typedef struct { int is_upgraded, place; size_t kept; unsigned char *rest; } Member;

static Member members[MOST];  // by file descriptor
static int open_ones[MOST], n_open;
static unsigned char in[BUFFER], out[BUFFER];

static void send_all(int fd, const void *data, size_t size) {
  for (size_t at = 0; at < size;) {
    ssize_t n = send(fd, (const char *)data + at, size - at, MSG_NOSIGNAL);
    if (n > 0) { at += n; continue; }
    struct pollfd room_for_more = {.fd = fd, .events = POLLOUT};
    if (errno != EAGAIN || poll(&room_for_more, 1, 5000) != 1) return;
  }
}

static void leave(int fd) {
  Member *m = &members[fd];
  if (m->is_upgraded) { open_ones[m->place] = open_ones[--n_open]; members[open_ones[m->place]].place = m->place; }
  free(m->rest);
  *m = (Member){0};
  close(fd);
}

static void upgrade(int fd) {
  static const char yes[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
  members[fd].is_upgraded = 1;
  members[fd].place = n_open;
  open_ones[n_open++] = fd;
  send_all(fd, yes, sizeof yes - 1);
}

// Unmasks one frame to the end of `out`; returns its length as it came, 0 while it is cut.
static size_t take_frame(const unsigned char *data, size_t size, size_t *filled) {
  uint64_t length; size_t head = read_head(data, size, &length);
  if (!head || size < head + 4 + length || *filled + head + length > BUFFER) return 0;
  unsigned char *to = out + *filled, mask[4];
  memcpy(to, data, head); memcpy(mask, data + head, 4);
  to[1] &= 127;
  for (uint64_t i = 0; i < length; i++) to[head + i] = data[head + 4 + i] ^ mask[i & 3];
  *filled += head + length;
  return head + 4 + length;
}

static void serve(int fd) {
  Member *m = &members[fd];
  if (m->kept) memcpy(in, m->rest, m->kept);
  ssize_t n = read(fd, in + m->kept, BUFFER - m->kept);
  if (n <= 0) { if (n == 0 || errno != EAGAIN) leave(fd); return; }
  if (!m->is_upgraded) { upgrade(fd); return; }
  size_t size = m->kept + n, at = 0, filled = 0, taken;
  while ((taken = take_frame(in + at, size - at, &filled))) at += taken;
  free(m->rest); m->rest = 0;
  if ((m->kept = size - at)) { m->rest = malloc(m->kept); memcpy(m->rest, in + at, m->kept); }
  if (!filled) return;
  uint64_t length; size_t head = read_head(out, filled, &length);
  if (!memcmp(out + head, "echo", 4)) send_all(fd, out, filled);
  else for (int i = 0; i < n_open; i++) send_all(open_ones[i], out, filled);
}

int main(int argc, char **argv) {
  if (argc != 2) { fputs("floor PORT\n", stderr); return 2; }
  struct rlimit files; getrlimit(RLIMIT_NOFILE, &files); files.rlim_cur = files.rlim_max; setrlimit(RLIMIT_NOFILE, &files);
  int one = 1, server = socket(AF_INET, SOCK_STREAM, 0), poller = epoll_create1(0);
  setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(server, (void *)&at, sizeof at) || listen(server, 4096)) { perror("floor"); return 1; }
  struct epoll_event wanted = {.events = EPOLLIN, .data.fd = server}, found[256];
  epoll_ctl(poller, EPOLL_CTL_ADD, server, &wanted);
  for (;;) {
    int n = epoll_wait(poller, found, 256, -1);
    for (int i = 0; i < n; i++) {
      if (found[i].data.fd != server) { serve(found[i].data.fd); continue; }
      int client = accept4(server, 0, 0, SOCK_NONBLOCK);
      if (client < 0) continue;
      if (client >= MOST) { close(client); continue; }
      setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      wanted.data.fd = client;
      epoll_ctl(poller, EPOLL_CTL_ADD, client, &wanted);
    }
  }
}
