// The load of `python -m benchmarks`: WebSocket clients on one epoll loop, in C so that it is never what is measured. Not a client for an
// application: it opens sessions, joins rooms, publishes, counts what arrives, and stops at the first thing that is not as it should be.
//
//   load KEY=VALUE...
//     ports=A,B,...       of the nodes on 127.0.0.1; clients are dealt to them in turn
//     pids=A,B,...        of the server's processes: their CPU and memory are the figures
//     beside=PID          a further process (Redis), counted by itself
//     dialect=raw|socketio|aibos
//     tokens=FILE         aibos: a token a line, one for each client
//     clients=N           client i joins `joins` of the `rooms`: those after i * joins
//     rooms=N joins=N room=NAME      rooms are called NAME:0, NAME:1, ...
//     opening=N early=N   so many sessions open at the same time; so many are opened and closed first, uncounted
//     work=fanout|request|idle       request: every client asks and waits for its answer
//     window=N            events on the way at the same time; request: of each client
//     publishers=N        so many members of each room publish, in turn
//     payload=BYTES
//     warm=S seconds=S    how long, not counted and counted; at least three events
//     rate=N              events a second, by the clock and not by the window; 0 = as fast as the window allows
//
// Prints one line of JSON. CPU is what the kernel's clock of each process says. The latency of an event is the time from its sending, or with `rate`
// from the moment at which it was due, until the last member of its room has read it.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "frame.h"
#include "usage.h"

enum { RAW, SOCKETIO, AIBOS };
enum { FANOUT, REQUEST, IDLE };
enum { BUFFER = 4 << 20, RING = 1 << 20, FEW = 3, MOST = 70000, STALLED = 30 };

typedef struct { int fd, is_upgraded, joined; double began; size_t kept; unsigned char *rest; } Client;
typedef struct { double sent; int left, client, counts; } Event;

static Client *clients;
static Event events[RING];
static double *samples;
static long n_samples, room_of_samples, next_event, n_done, deliveries, bytes_in, stride = 7919;
static int n_clients = 1000, n_rooms = 1, n_joins = 1, n_publishers = 1, opening = 64, early = -1, window = 1, payload = 150;
static int ports[16], n_ports, pids[16], n_pids, beside, dialect = RAW, work = FANOUT, poller, timer, is_opening, is_sending, is_counted, n_ready;
static double rate, warm = 0.3, seconds = 1.5;
static char **tokens;
static const char *room = "bench", *tokens_file = "";
static unsigned char buffer[BUFFER];
static char filling[MOST], text[MOST + 200];

static void stop(const char *format, ...) {
  va_list given; va_start(given, format);
  fputs("load: ", stderr); vfprintf(stderr, format, given); fputc('\n', stderr);
  exit(1);
}

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }

static void keep_sample(double value) {
  if (n_samples == room_of_samples) samples = realloc(samples, (room_of_samples = room_of_samples * 2 + 4096) * sizeof *samples);
  samples[n_samples++] = value;
}

static int compare(const void *a, const void *b) { double x = *(const double *)a, y = *(const double *)b; return x < y ? -1 : x > y; }

static double quantile(double part) {  // of sorted samples, in milliseconds
  long at = n_samples * part;
  return n_samples ? samples[at < n_samples ? at : n_samples - 1] * 1e3 : 0;
}

// --- frames ---

static void write_all(Client *c, const unsigned char *data, size_t size) {
  for (size_t at = 0; at < size;) {
    ssize_t n = write(c->fd, data + at, size - at);
    if (n > 0) { at += n; continue; }
    struct pollfd room_for_more = {.fd = c->fd, .events = POLLOUT};
    if (errno != EAGAIN || poll(&room_for_more, 1, STALLED * 1000) != 1) stop("client %ld cannot write: %s", (long)(c - clients), strerror(errno));
  }
}

static void send_frame(Client *c, int opcode, const char *data, size_t size) {
  static unsigned char frame[sizeof text + 16]; static uint32_t seed = 1;
  size_t head = write_head(frame, opcode, size) + 4;
  seed = seed * 1103515245 + 12345;
  unsigned char *mask = memcpy(frame + head - 4, &seed, 4);
  for (size_t i = 0; i < size; i++) frame[head + i] = data[i] ^ mask[i & 3];
  write_all(c, frame, head + size);
}

static void send_text(Client *c, const char *format, ...) {
  va_list given; va_start(given, format);
  int size = vsnprintf(text, sizeof text, format, given);
  if (size < 0 || (size_t)size >= sizeof text) stop("a message is too large");
  send_frame(c, 1, text, size);
}

// --- the works ---

static void send_event(int client, int of_room, double moment) {  // its number stands at the start of its data, so that it is known again
  static const char *publish[] = {
    "%2$s:%3$d #%1$08u%4$s",
    "42[\"publish\",\"%2$s:%3$d\",\"#%1$08u%4$s\"]",
    "{\"event\":\"bench.event\",\"room\":\"%2$s:%3$d\",\"data\":\"#%1$08u%4$s\"}",
  };
  static const char *ask[] = {"echo #%1$08u%2$s", "42%1$u[\"echo\",\"#%1$08u%2$s\"]", "{\"event\":\"echo\",\"data\":\"#%1$08u%2$s\",\"ref\":%1$u}"};
  unsigned number = next_event++ % 100000000;
  if (next_event - n_done >= RING) stop("too many events on the way");
  int left = work == REQUEST ? 1 : n_clients * n_joins / n_rooms;
  events[number % RING] = (Event){.sent = moment, .left = left, .client = client, .counts = is_counted};
  if (work == REQUEST) send_text(&clients[client], ask[dialect], number, filling);
  else send_text(&clients[client], publish[dialect], number, room, of_room, filling);
}

static void publish_next(double moment) {  // room after room, but never into two rooms with the same members one after the other
  long of_room = next_event % n_rooms * stride % n_rooms, turn = next_event / n_rooms % n_publishers;
  send_event((of_room + turn * n_rooms) / n_joins, of_room, moment);
}

static void take_event(const unsigned char *digits) {
  unsigned number = 0;
  for (int i = 0; i < 8; i++) number = number * 10 + digits[i] - '0';
  Event *event = &events[number % RING];
  deliveries++;
  if (event->left <= 0) stop("event %u came more often than its room has members", number);
  if (--event->left) return;
  double moment = now();
  n_done++;
  if (event->counts) keep_sample(moment - event->sent);
  if (work == REQUEST && is_sending) send_event(event->client, 0, moment);
}

// --- sessions ---

static void join_rooms(Client *c) {
  static const char *join[] = {"", "42%1$d[\"join\",\"%2$s:%3$d\"]", "{\"event\":\"join-room\",\"data\":\"%2$s:%3$d\",\"ref\":%1$d}"};
  for (int i = 0; i < n_joins; i++) send_text(c, join[dialect], i + 1, room, (int)(((c - clients) * n_joins + i) % n_rooms));
}

static void note_joined(Client *c) {
  if (++c->joined < n_joins) return;
  n_ready++;
  keep_sample(now() - c->began);
}

static int has(const unsigned char *data, size_t size, const char *what) { return memmem(data, size < 400 ? size : 400, what, strlen(what)) != 0; }

static void complain(const unsigned char *data, size_t size) { stop("the server says %.*s", (int)(size < 300 ? size : 300), data); }

static void take_message(Client *c, const unsigned char *data, size_t size, int opcode) {
  if (opcode == 9) { send_frame(c, 10, (const char *)data, size); return; }
  if (opcode == 8) stop("closed by the server: %u %.*s", size > 1 ? data[0] << 8 | data[1] : 0, size > 2 ? (int)size - 2 : 0, data + 2);
  if (opcode != 1 && opcode != 2) stop("a frame of type %d", opcode);
  const unsigned char *mark = memchr(data, '#', size < 400 ? size : 400);
  if (mark && !is_opening) { take_event(mark + 1); return; }
  if (dialect == SOCKETIO) {
    if (data[0] == '0') send_text(c, "40");
    else if (data[0] == '2') send_text(c, "3");
    else if (data[0] == '4' && data[1] == '0') join_rooms(c);
    else if (data[0] == '4' && data[1] == '3') { if (is_opening) note_joined(c); }
    else complain(data, size);
  } else if (dialect == AIBOS) {
    if (has(data, size, "\"event\":\"error\"") || has(data, size, "\"event\":\"resync\"")) complain(data, size);
    if (has(data, size, "\"event\":\"connected\"")) join_rooms(c);
    else if (is_opening && has(data, size, "\"joined-room\"")) note_joined(c);
  } else complain(data, size);
}

static size_t take_head(Client *c, const unsigned char *data, size_t size) {  // of the answer to the handshake: how long it is, 0 while it is cut
  const unsigned char *end = memmem(data, size, "\r\n\r\n", 4);
  if (!end) return 0;
  if (strncmp((const char *)data, "HTTP/1.1 101", 12)) stop("refused: %.*s", (int)(size < 300 ? size : 300), data);
  c->is_upgraded = 1;
  if (dialect == RAW) { c->joined = n_joins - 1; note_joined(c); }
  return end + 4 - data;
}

static size_t take_frame(Client *c, const unsigned char *data, size_t size) {  // how long it is, 0 while it is cut
  uint64_t length; size_t head = read_head(data, size, &length);
  if (!head) return 0;
  if (!(data[0] & 0x80) || data[1] & 0x80) stop("a fragment, or a masked frame");
  if (head + length >= BUFFER) stop("a frame of %lu bytes", (unsigned long)length);
  if (size < head + length) return 0;
  take_message(c, data + head, length, data[0] & 15);
  return head + length;
}

static void read_client(Client *c) {
  if (c->kept) memcpy(buffer, c->rest, c->kept);
  ssize_t n = read(c->fd, buffer + c->kept, BUFFER - c->kept);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) stop("client %ld: the server closed the connection%s", (long)(c - clients), c->is_upgraded ? "" : " while it opened");
  size_t size = c->kept + n, at = 0, taken;
  bytes_in += n;
  while ((taken = c->is_upgraded ? take_frame(c, buffer + at, size - at) : take_head(c, buffer + at, size - at))) at += taken;
  if (!c->kept && at == size) return;
  free(c->rest); c->rest = 0;
  if ((c->kept = size - at)) { c->rest = malloc(c->kept); memcpy(c->rest, buffer + at, c->kept); }
}

static void pump(int milliseconds) {
  struct epoll_event found[512];
  int n = epoll_wait(poller, found, 512, milliseconds);
  for (int i = 0; i < n; i++) {
    uint64_t expirations;
    if (found[i].data.u32 != UINT32_MAX) read_client(&clients[found[i].data.u32]);
    else if (read(timer, &expirations, 8) < 0) continue;
  }
}

static void open_client(int index) {
  Client *c = &clients[index]; int one = 1, port = ports[index % n_ports], size = 0; char rooms[2000] = "/", more[1500] = "";
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  *c = (Client){.fd = socket(AF_INET, SOCK_STREAM, 0), .began = now()};
  if (c->fd < 0 || connect(c->fd, (void *)&to, sizeof to)) stop("client %d cannot connect: %s", index, strerror(errno));
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  fcntl(c->fd, F_SETFL, O_NONBLOCK);
  if (dialect == SOCKETIO) strcpy(rooms, "/socket.io/?EIO=4&transport=websocket");
  for (int i = 0; dialect == RAW && i < n_joins; i++)
    size += snprintf(rooms + 1 + size, sizeof rooms - 1 - size, "%s%s:%d", i ? "," : "", room, (index * n_joins + i) % n_rooms);
  if (dialect == AIBOS) snprintf(more, sizeof more, "Authorization: Bearer %s\r\n", tokens[index]);
  size = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n", rooms, port, more);
  struct epoll_event wanted = {.events = EPOLLIN, .data.u32 = index};
  epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &wanted);
  write_all(c, (unsigned char *)text, size);
}

static void settle(void) {  // until nobody works any more, three seconds at most
  double until = now() + 3, before = used_by(pids, n_pids).cpu;
  while (now() < until) {
    double next = now() + 0.1, cpu;
    while (now() < next) pump(20);
    if ((cpu = used_by(pids, n_pids).cpu) - before < 0.001) return;
    before = cpu;
  }
}

static double open_all(int number) {  // seconds
  double began = now(), moved = began; int ready = n_ready = 0, started = 0;
  is_opening = 1; n_samples = 0;
  while (n_ready < number) {
    while (started < number && started - n_ready < opening) open_client(started++);
    pump(100);
    if (n_ready > ready) { ready = n_ready; moved = now(); }
    if (now() - moved > STALLED) stop("only %d of %d sessions opened", n_ready, number);
  }
  double taken = now() - began;
  settle();
  is_opening = 0;
  return taken;
}

static void close_all(int number) {
  for (int i = 0; i < number; i++) { close(clients[i].fd); free(clients[i].rest); }
  settle();
}

static void wait_until(double moment) {
  struct itimerspec at = {.it_value = {.tv_sec = (time_t)moment, .tv_nsec = (moment - (time_t)moment) * 1e9}};
  timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, 0);
}

static long run_for(double length, int is_measured) {  // how many events were still on the way when it was given up
  double start = now(), end = start + length, moved = start; long first = next_event, done = n_done, sent = 0;
  is_sending = 1; is_counted = is_measured;
  if (work == REQUEST) for (int i = 0; i < n_clients; i++) for (int k = 0; k < window; k++) send_event(i, 0, now());
  while (is_sending || n_done < next_event) {
    double moment = now();
    if (moment >= end && (work == REQUEST || rate > 0 || next_event - first >= FEW)) is_sending = 0;
    if (is_sending && rate > 0) {
      while (start + sent / rate <= moment) { publish_next(start + sent / rate); sent++; }
      wait_until(start + sent / rate);
    } else if (is_sending && work == FANOUT) while (next_event - n_done < window) publish_next(now());
    pump(100);
    if (n_done > done) { done = n_done; moved = now(); }
    if (rate > 0 && now() > end + 2) break;
    if (now() - moved > STALLED) stop("stalled: %ld events on the way, %ld delivered", next_event - n_done, n_done);
  }
  return next_event - n_done;
}

// --- begin and end ---

static int read_numbers(const char *list, int *numbers) {
  int n = 0;
  for (const char *at = list; at && n < 16; at = strchr(at, ',') ? strchr(at, ',') + 1 : 0) numbers[n++] = atoi(at);
  return n;
}

static int choose(const char *value, const char *a, const char *b, const char *c) {
  const char *names[] = {a, b, c};
  for (int i = 0; i < 3; i++) if (!strcmp(value, names[i])) return i;
  stop("not %s but %s, %s or %s", value, a, b, c);
  return 0;
}

static void read_arguments(int argc, char **argv) {
  struct { const char *name; int *number; double *amount; const char **word; } known[] = {
    {"beside", &beside, 0, 0}, {"clients", &n_clients, 0, 0}, {"rooms", &n_rooms, 0, 0}, {"joins", &n_joins, 0, 0}, {"opening", &opening, 0, 0},
    {"early", &early, 0, 0}, {"window", &window, 0, 0}, {"publishers", &n_publishers, 0, 0}, {"payload", &payload, 0, 0}, {"rate", 0, &rate, 0},
    {"warm", 0, &warm, 0}, {"seconds", 0, &seconds, 0}, {"room", 0, 0, &room}, {"tokens", 0, 0, &tokens_file},
  };
  size_t count = sizeof known / sizeof *known, k;
  for (int i = 1; i < argc; i++) {
    char *name = argv[i], *value = strchr(name, '=');
    if (!value) stop("KEY=VALUE, not %s", name);
    *value++ = 0;
    if (!strcmp(name, "ports")) n_ports = read_numbers(value, ports);
    else if (!strcmp(name, "pids")) n_pids = read_numbers(value, pids);
    else if (!strcmp(name, "dialect")) dialect = choose(value, "raw", "socketio", "aibos");
    else if (!strcmp(name, "work")) work = choose(value, "fanout", "request", "idle");
    else {
      for (k = 0; k < count && strcmp(known[k].name, name);) k++;
      if (k == count) stop("there is no %s", name);
      if (known[k].number) *known[k].number = atoi(value); else if (known[k].amount) *known[k].amount = atof(value); else *known[k].word = value;
    }
  }
  if (!n_ports || !n_pids) stop("needs ports=... and pids=...");
  if (n_clients < 1 || n_rooms < 1 || n_joins < 1) stop("clients, rooms and joins: 1 at least");
  if (n_joins > n_rooms || (long)n_clients * n_joins % n_rooms) stop("every room needs as many members as any other");
  if (n_publishers < 1 || n_publishers > n_clients * n_joins / n_rooms) stop("a room has fewer members than publishers");
  if (payload < 9 || payload >= MOST) stop("payload: 9 to %d bytes", MOST - 1);
  if (n_rooms % stride == 0) stride = 1;
  if (early < 0) early = n_clients / 20 < 100 ? n_clients / 20 : 100;
  if (early > n_clients) early = n_clients;
  memset(filling, 'x', payload - 9);
}

static void read_tokens(void) {
  if (dialect != AIBOS) return;
  FILE *file = fopen(tokens_file, "r"); char *line = 0; size_t size = 0; int n = 0;
  tokens = calloc(n_clients, sizeof *tokens);
  while (file && n < n_clients && getline(&line, &size, file) > 0) { line[strcspn(line, "\n")] = 0; tokens[n++] = strdup(line); }
  if (n < n_clients) stop("%d tokens for %d clients", n, n_clients);
  fclose(file); free(line);
}

static void print(const char *name, double value) { static int n; printf("%s\"%s\": %.6g", n++ ? ", " : "{", name, value); }

static void print_opening(Usage before, Usage after, double redis, double taken) {
  qsort(samples, n_samples, sizeof *samples, compare);
  print("clients", n_clients);
  print("base_mb", before.rss_kb / 1024.0);
  print("kb_per_client", (double)(after.rss_kb - before.rss_kb) / n_clients);
  print("open_cpu_us", (after.cpu - before.cpu) / n_clients * 1e6);
  if (beside) print("open_beside_us", (clock_of(beside) - redis) / n_clients * 1e6);
  print("opened_per_s", n_clients / taken);
  print("open_p50_ms", quantile(0.5)); print("open_p99_ms", quantile(0.99));
}

static void measure_events(void) {
  long behind = warm > 0 ? run_for(warm, 0) : 0, first = next_event, first_delivery = deliveries, first_byte = bytes_in;
  n_samples = 0;
  Usage before = used_by(pids, n_pids);
  double redis = beside ? clock_of(beside) : 0, own = clock_of(getpid()), start = now();
  behind += run_for(seconds, 1);
  Usage after = used_by(pids, n_pids);
  double length = now() - start, n = deliveries - first_delivery, count = next_event - first, cpu = after.cpu - before.cpu;
  if (n < 1) stop("nothing was delivered");
  qsort(samples, n_samples, sizeof *samples, compare);
  print("events", count); print("deliveries", n);
  print("seconds", length); print("per_s", n / length);
  print("cpu_us", cpu / n * 1e6); print("user_us", (after.user - before.user) / n * 1e6);
  print("event_cpu_us", cpu / count * 1e6);
  if (beside) print("beside_us", (clock_of(beside) - redis) / count * 1e6);
  print("bytes", (bytes_in - first_byte) / n);
  print("p50_ms", quantile(0.5)); print("p99_ms", quantile(0.99));
  print("behind", behind);
  print("server_busy", cpu / length);
  print("load_busy", (clock_of(getpid()) - own) / length);
}

int main(int argc, char **argv) {
  read_arguments(argc, argv);
  read_tokens();
  struct rlimit files; getrlimit(RLIMIT_NOFILE, &files); files.rlim_cur = files.rlim_max; setrlimit(RLIMIT_NOFILE, &files);
  clients = calloc(n_clients, sizeof *clients);
  poller = epoll_create1(0); timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  struct epoll_event ticking = {.events = EPOLLIN, .data.u32 = UINT32_MAX}; epoll_ctl(poller, EPOLL_CTL_ADD, timer, &ticking);
  if (early) { open_all(early); close_all(early); }
  Usage before = used_by(pids, n_pids);
  double redis = beside ? clock_of(beside) : 0, taken = open_all(n_clients);
  Usage after = used_by(pids, n_pids);
  print_opening(before, after, redis, taken);
  if (work != IDLE) measure_events();
  print("rss_mb", used_by(pids, n_pids).rss_kb / 1024.0); print("peak_mb", peak_mb(pids, n_pids));
  puts("}");
  return 0;
}
