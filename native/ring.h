/* The least of io_uring that sending needs: a submission queue filled with sends, one system call, the results. See io_uring_setup(2).
 *
 * The kernel's rings are used directly, since liburing is on few machines. Needs Linux 6.1 (IORING_SETUP_SINGLE_ISSUER and DEFER_TASKRUN: one thread
 * submits, and completions are posted within its own system calls). Where it is older, or io_uring is forbidden, `ring_open` says so with errno.
 */
#ifndef RING_H
#define RING_H

#include <errno.h>
#include <stddef.h>

#if defined(__linux__) && defined(__has_include)
#if __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#ifdef IORING_SETUP_DEFER_TASKRUN
#define RING_KNOWN 1
#endif
#endif
#endif

#ifdef RING_KNOWN

#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef struct {
  int fd; /* 0: closed, for a zeroed structure is a closed ring */
  unsigned *tail, *completed_head, *completed_tail;
  unsigned mask, completed_mask, entries;
  struct io_uring_sqe *sends;
  struct io_uring_cqe *completions;
  void *rings;
  size_t rings_size, sends_size;
  pid_t owner;
} Ring;

static int ring_is_open(const Ring *ring) { return ring->fd > 0; }

/* After a fork: the child has the descriptor, but not the memory (MADV_DONTFORK), where it may have other things by now. */
static void ring_leave_to_parent(Ring *ring) {
  if (!ring_is_open(ring) || ring->owner == getpid()) return;
  close(ring->fd);
  memset(ring, 0, sizeof *ring);
}

static void ring_close(Ring *ring) {
  ring_leave_to_parent(ring);
  if (!ring_is_open(ring)) return;
  munmap(ring->rings, ring->rings_size);
  munmap(ring->sends, ring->sends_size);
  close(ring->fd);
  memset(ring, 0, sizeof *ring);
}

/* 0, or -1 with errno. `entries`: a power of two. The thread that opens it is the only one that may use it. */
static int ring_open(Ring *ring, unsigned entries) {
  struct io_uring_params p = {.flags = IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
  int fd = (int)syscall(SYS_io_uring_setup, entries, &p);
  if (fd < 0) return -1;
  size_t submissions = p.sq_off.array + p.sq_entries * sizeof(unsigned), completions = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
  ring->rings_size = submissions > completions ? submissions : completions; /* IORING_FEAT_SINGLE_MMAP, Linux 5.4: both are one area */
  ring->sends_size = p.sq_entries * sizeof(struct io_uring_sqe);
  ring->rings = mmap(NULL, ring->rings_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQ_RING);
  ring->sends = mmap(NULL, ring->sends_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQES);
  if (ring->rings == MAP_FAILED || ring->sends == MAP_FAILED) {
    int why = errno;
    if (ring->rings != MAP_FAILED) munmap(ring->rings, ring->rings_size);
    if (ring->sends != MAP_FAILED) munmap(ring->sends, ring->sends_size);
    close(fd);
    memset(ring, 0, sizeof *ring);
    errno = why;
    return -1;
  }
  madvise(ring->rings, ring->rings_size, MADV_DONTFORK); /* a child would share the queues */
  madvise(ring->sends, ring->sends_size, MADV_DONTFORK);
  char *base = ring->rings;
  ring->fd = fd;
  ring->owner = getpid();
  ring->entries = p.sq_entries;
  ring->tail = (unsigned *)(base + p.sq_off.tail);
  ring->mask = *(unsigned *)(base + p.sq_off.ring_mask);
  ring->completed_head = (unsigned *)(base + p.cq_off.head);
  ring->completed_tail = (unsigned *)(base + p.cq_off.tail);
  ring->completed_mask = *(unsigned *)(base + p.cq_off.ring_mask);
  ring->completions = (struct io_uring_cqe *)(base + p.cq_off.cqes);
  unsigned *order = (unsigned *)(base + p.sq_off.array);
  for (unsigned i = 0; i < p.sq_entries; i++) order[i] = i;
  return 0;
}

/* Puts the send number `index` of a batch, 0 … entries - 1, into the queue. `flags` have MSG_DONTWAIT: nothing is ever left waiting in the kernel. */
static void ring_put_send(Ring *ring, int index, int fd, const void *data, size_t size, int flags) {
  struct io_uring_sqe *send = &ring->sends[(*ring->tail + (unsigned)index) & ring->mask];
  memset(send, 0, sizeof *send);
  send->opcode = IORING_OP_SEND;
  send->fd = fd;
  send->addr = (unsigned long)data;
  send->len = (unsigned)size;
  send->msg_flags = (unsigned)flags;
  send->user_data = (unsigned)index;
}

/* Submits `count` sends and waits for all of them. `results`: bytes taken, or -errno; -EAGAIN for a send that was not submitted (no memory, say). */
static void ring_finish(Ring *ring, int count, int *results) {
  int submitted = 0, done = 0;
  for (int i = 0; i < count; i++) results[i] = -EAGAIN;
  __atomic_store_n(ring->tail, *ring->tail + (unsigned)count, __ATOMIC_RELEASE);
  while (done < count) {
    /* The first call waits for nothing: a send that cannot wait has ended, and is posted, before the call returns. */
    int taken = (int)syscall(SYS_io_uring_enter, ring->fd, count - submitted, submitted - done, IORING_ENTER_GETEVENTS, NULL, 0);
    int refused = taken < 0 && errno != EINTR;
    if (taken > 0) submitted += taken;
    unsigned head = *ring->completed_head, tail = __atomic_load_n(ring->completed_tail, __ATOMIC_ACQUIRE);
    for (; head != tail; head++, done++) {
      struct io_uring_cqe *completion = &ring->completions[head & ring->completed_mask];
      results[completion->user_data] = completion->res;
    }
    __atomic_store_n(ring->completed_head, head, __ATOMIC_RELEASE);
    if (refused && submitted < count) { /* take back what was not submitted */
      __atomic_store_n(ring->tail, *ring->tail - (unsigned)(count - submitted), __ATOMIC_RELEASE);
      count = submitted;
    }
  }
}

#else

typedef struct {
  int fd;
} Ring;

static int ring_is_open(const Ring *ring) { return 0; }
static void ring_leave_to_parent(Ring *ring) {}
static void ring_close(Ring *ring) {}
static int ring_open(Ring *ring, unsigned entries) {
  errno = ENOSYS;
  return -1;
}
static void ring_put_send(Ring *ring, int index, int fd, const void *data, size_t size, int flags) {}
static void ring_finish(Ring *ring, int count, int *results) {}

#endif
#endif
