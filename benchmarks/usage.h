// What processes have used, for `load.c`: CPU from the kernel's clock of each, in nanoseconds; the user's part from /proc, in ticks of 10 ms.
#include <stdio.h>
#include <time.h>
#include <unistd.h>

typedef struct { double cpu, user; long rss_kb; } Usage;  // seconds, seconds, KB

static void stop(const char *format, ...);

static double clock_of(int pid) {
  clockid_t clock; struct timespec t;
  if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t)) stop("process %d is gone", pid);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static Usage used_by(const int *pids, int count) {
  const char *fields = "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %*u %*d %*d %*d %*d %*d %*d %*u %*u %ld";
  Usage u = {0};
  for (int i = 0; i < count; i++) {
    char name[64]; unsigned long user; long pages;
    snprintf(name, sizeof name, "/proc/%d/stat", pids[i]);
    FILE *file = fopen(name, "r");
    if (!file || fscanf(file, fields, &user, &pages) != 2) stop("process %d is gone", pids[i]);
    fclose(file);
    u.cpu += clock_of(pids[i]);
    u.user += (double)user / sysconf(_SC_CLK_TCK);
    u.rss_kb += pages * (sysconf(_SC_PAGESIZE) / 1024);
  }
  return u;
}

static double peak_mb(const int *pids, int count) {
  long sum = 0, kb;
  for (int i = 0; i < count; i++) {
    char name[64], line[256];
    snprintf(name, sizeof name, "/proc/%d/status", pids[i]);
    FILE *file = fopen(name, "r");
    while (file && fgets(line, sizeof line, file)) if (sscanf(line, "VmHWM: %ld", &kb) == 1) sum += kb;
    if (file) fclose(file);
  }
  return sum / 1024.0;
}
