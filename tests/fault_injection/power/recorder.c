// Runs a program and records every change that it and its children make below a folder, in one order.
//
//     recorder LOG FOLDER PROGRAM ARGUMENT...
//
// It stops every process at each system call that may change the disk (ptrace, with a seccomp filter so that others cost
// nothing), lets one call at a time go on, and looks at what came of it. So it also sees calls that go past the C library,
// programs that are linked statically, and writes through mappings. It ends as the program does.
//
// The log is added to, so that several programs can follow each other in it. An entry is a head and three strings: a
// path below the folder, a second one, and content. Of a file, the entry has the whole content: what was written is the
// difference.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CONTENT = 1, RENAME, EXCHANGE, LINK, SYMLINK, UNLINK, MKDIR, SYNC_FILE, SYNC_FOLDER, SYNC_ALL, PRINT };

// What the kernel says of a stopped call (linux/ptrace.h, which does not go together with sys/ptrace.h).
struct call {
  uint8_t op, unused[3];
  uint32_t architecture;
  uint64_t instruction, stack;
  union {
    struct { uint64_t number, arguments[6]; } enter;
    struct { int64_t result; uint8_t is_error; } exit;
  };
};
enum { AT_EXIT = 2 };
#ifndef PTRACE_GET_SYSCALL_INFO
#define PTRACE_GET_SYSCALL_INFO 0x420e
#endif

struct head {
  uint32_t kind, first, second, content;
  uint64_t inode, modified; // nanoseconds since 1970
};

static const int WATCHED[] = {
    SYS_write, SYS_pwrite64, SYS_writev, SYS_pwritev, SYS_pwritev2, SYS_copy_file_range, SYS_sendfile, SYS_splice,
    SYS_fallocate, SYS_ftruncate, SYS_truncate, SYS_openat, SYS_openat2, SYS_renameat2, SYS_linkat, SYS_symlinkat,
    SYS_unlinkat, SYS_mkdirat, SYS_fsync, SYS_fdatasync, SYS_sync, SYS_syncfs, SYS_mmap, SYS_ioctl,
#ifdef SYS_open
    SYS_open, SYS_creat, SYS_rename, SYS_link, SYS_symlink, SYS_unlink, SYS_rmdir, SYS_mkdir,
#endif
#ifdef SYS_renameat
    SYS_renameat,
#endif
};
enum { COUNT = sizeof WATCHED / sizeof *WATCHED };

static int log_file = -1;
static char root[PATH_MAX];
static size_t root_length;

static void fail(const char *what) {
  fprintf(stderr, "recorder: %s: %s\n", what, strerror(errno));
  exit(125);
}

static void write_all(const void *from, size_t bytes) {
  for (ssize_t n; bytes > 0; from = (const char *)from + n, bytes -= n)
    if ((n = write(log_file, from, bytes)) < 0) fail("the log");
}

static void enter(uint32_t kind, const char *first, const char *second, const struct stat *about, const void *content,
                  size_t bytes) {
  struct head head = {kind, strlen(first), strlen(second), bytes, 0, 0};
  if (about) {
    head.inode = about->st_ino;
    head.modified = about->st_mtim.tv_sec * 1000000000ull + about->st_mtim.tv_nsec;
  }
  write_all(&head, sizeof head);
  write_all(first, head.first);
  write_all(second, head.second);
  write_all(content, bytes);
}

// The part of an absolute path below the folder; NULL if it lies elsewhere.
static const char *below(const char *path) {
  if (strncmp(path, root, root_length) != 0) return NULL;
  if (path[root_length] == 0) return "";
  return path[root_length] == '/' ? path + root_length + 1 : NULL;
}

// The whole content of a file that is open here.
static char *content_of(int file, size_t *bytes) {
  static char *buffer;
  static size_t room;
  for (*bytes = 0;;) {
    if (*bytes == room && !(buffer = realloc(buffer, room = room ? room * 2 : 1 << 16))) fail("memory");
    ssize_t n = pread(file, buffer + *bytes, room - *bytes, *bytes);
    if (n < 0) fail("reading what was written");
    if (n == 0) return buffer;
    *bytes += n;
  }
}

// What an open file of a process is called below the folder; NULL if it is no file or folder there. Another name of a
// removed one is found by its number.
static const char *name_of(pid_t process, int file, struct stat *about) {
  static char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/%d/fd/%d", process, file);
  if (stat(link, about) || !(S_ISREG(about->st_mode) || S_ISDIR(about->st_mode)) || about->st_nlink == 0) return NULL;
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return NULL;
  path[n] = 0;
  return below(path);
}

static void enter_content(const char *name, const char *path) {
  struct stat about;
  size_t bytes;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) fail(path);
  fstat(file, &about);
  const char *content = content_of(file, &bytes);
  enter(CONTENT, name, "", &about, content, bytes);
  close(file);
}

// Files that some process wrote through a mapping of: their content is entered before everything else, if it changed.
static struct mapped {
  int file;
  char *name, *last;
  size_t bytes;
  struct mapped *next;
} *mapped;

static void look_at_mapped(void) {
  for (struct mapped *m = mapped; m; m = m->next) {
    size_t bytes;
    struct stat about;
    const char *content = content_of(m->file, &bytes);
    if (bytes == m->bytes && memcmp(content, m->last, bytes) == 0) continue;
    fstat(m->file, &about);
    if (about.st_nlink) enter(CONTENT, m->name, "", &about, content, bytes);
    m->bytes = bytes;
    if (!(m->last = realloc(m->last, bytes + 1))) fail("memory");
    memcpy(m->last, content, bytes);
  }
}

static void look_at_open(pid_t process, int file) {
  struct stat about;
  char link[64];
  const char *name = name_of(process, file, &about);
  if (!name || !S_ISREG(about.st_mode)) return;
  snprintf(link, sizeof link, "/proc/%d/fd/%d", process, file);
  enter_content(name, link);
}

static void add_mapped(pid_t process, int file) {
  struct stat about;
  char link[64];
  const char *name = name_of(process, file, &about);
  if (!name) return;
  struct mapped *m = calloc(1, sizeof *m);
  snprintf(link, sizeof link, "/proc/%d/fd/%d", process, file);
  if (!m || (m->file = open(link, O_RDONLY | O_CLOEXEC)) < 0 || !(m->name = strdup(name))) fail("a mapped file");
  const char *content = content_of(m->file, &m->bytes);
  m->last = malloc(m->bytes + 1);
  memcpy(m->last, content, m->bytes);
  m->next = mapped;
  mapped = m;
}

static void read_memory(pid_t process, uint64_t at, void *to, size_t bytes) {
  struct iovec here = {to, bytes}, there = {(void *)(uintptr_t)at, bytes};
  if (process_vm_readv(process, &here, 1, &there, 1, 0) != (ssize_t)bytes) memset(to, 0, bytes);
}

// A path that was handed to a call, made absolute, without links in its folders; NULL if it lies elsewhere.
static const char *path_at(pid_t process, int folder, uint64_t at, char *space) {
  char given[PATH_MAX], joined[PATH_MAX + 64], parent[PATH_MAX];
  size_t n = 0;
  do {
    if (n == sizeof given) return NULL;
    read_memory(process, at + n, given + n, 1);
  } while (given[n++]);
  // What is in the way at its end says nothing here: `mkdir a/` makes a.
  for (n--; n > 1 && given[n - 1] == '/';) given[--n] = 0;
  if (given[0] == '/') snprintf(joined, sizeof joined, "%s", given);
  else if (folder == AT_FDCWD) snprintf(joined, sizeof joined, "/proc/%d/cwd/%s", process, given);
  else snprintf(joined, sizeof joined, "/proc/%d/fd/%d/%s", process, folder, given);
  char *last = strrchr(joined, '/');
  *last = 0;
  if (!realpath(*joined ? joined : "/", parent)) return NULL;
  snprintf(space, PATH_MAX, "%s/%s", parent, last + 1);
  return below(space);
}

static void print(pid_t process, uint64_t at, uint64_t bytes) {
  char *text = malloc(bytes + 1);
  if (!text) fail("memory");
  read_memory(process, at, text, bytes);
  enter(PRINT, "", "", NULL, text, bytes);
  free(text);
}

// Whether the call is of interest; what is printed is entered here, before anybody can have read it.
static int wanted(pid_t process, const struct call *call) {
  const uint64_t *a = call->enter.arguments;
  struct stat about;
  switch (call->enter.number) {
  case SYS_write:
    if (name_of(process, a[0], &about)) return 1;
    if (a[0] == STDERR_FILENO) print(process, a[1], a[2]);
    return 0;
  case SYS_writev:
    if (name_of(process, a[0], &about)) return 1;
    if (a[0] == STDERR_FILENO)
      for (uint64_t i = 0; i < a[2]; i++) {
        struct iovec piece;
        read_memory(process, a[1] + i * sizeof piece, &piece, sizeof piece);
        print(process, (uintptr_t)piece.iov_base, piece.iov_len);
      }
    return 0;
  case SYS_openat: return (a[2] & (O_CREAT | O_TRUNC)) != 0;
#ifdef SYS_open
  case SYS_open: return (a[1] & (O_CREAT | O_TRUNC)) != 0;
#endif
  case SYS_mmap: return (a[2] & PROT_WRITE) && (a[3] & MAP_TYPE) != MAP_PRIVATE && !(a[3] & MAP_ANONYMOUS);
  case SYS_ioctl: return a[1] == FICLONE || a[1] == FICLONERANGE;
  default: return 1;
  }
}

static void name_entry(uint32_t kind, pid_t process, int from, uint64_t first, int to, uint64_t second) {
  char space[2][PATH_MAX];
  const char *a = path_at(process, from, first, space[0]), *b = path_at(process, to, second, space[1]);
  if (kind == LINK && b) {
    // The target is entered with its number, so that a file is known that had no name here before.
    struct stat about;
    char path[2 * PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", root, b);
    if (lstat(path, &about)) fail(path);
    enter(LINK, a ? a : "", b, &about, "", 0);
    if (S_ISREG(about.st_mode)) enter_content(b, path);
    return;
  }
  if (!a && !b) return;
  if (!a || !b) {
    fprintf(stderr, "recorder: something was moved into the folder, or out of it\n");
    exit(125);
  }
  enter(kind, a, b, NULL, "", 0);
}

static void one_name(uint32_t kind, pid_t process, int folder, uint64_t path) {
  char space[PATH_MAX];
  const char *name = path_at(process, folder, path, space);
  if (name) enter(kind, name, "", NULL, "", 0);
}

static void symbolic_link(pid_t process, int folder, uint64_t path) {
  char space[PATH_MAX], whole[2 * PATH_MAX], to[PATH_MAX];
  const char *name = path_at(process, folder, path, space);
  if (!name) return;
  snprintf(whole, sizeof whole, "%s/%s", root, name);
  ssize_t n = readlink(whole, to, sizeof to - 1);
  if (n < 0) fail(whole);
  enter(SYMLINK, name, "", NULL, to, n);
}

static void sync_entry(pid_t process, int file, int whole) {
  struct stat about;
  const char *name = name_of(process, file, &about);
  if (!name) return;
  enter(whole ? SYNC_ALL : S_ISDIR(about.st_mode) ? SYNC_FOLDER : SYNC_FILE, name, "", &about, "", 0);
}

// What a call that went well has changed.
static void changed(pid_t process, uint64_t number, const uint64_t *a, int64_t result) {
  char space[PATH_MAX], whole[2 * PATH_MAX];
  const char *name;
  switch (number) {
  case SYS_write: case SYS_pwrite64: case SYS_writev: case SYS_pwritev: case SYS_pwritev2:
  case SYS_fallocate: case SYS_ftruncate: case SYS_ioctl: case SYS_sendfile:
    return look_at_open(process, a[0]);
  case SYS_copy_file_range: case SYS_splice: return look_at_open(process, a[2]);
  case SYS_truncate:
    if (!(name = path_at(process, AT_FDCWD, a[0], space))) return;
    snprintf(whole, sizeof whole, "%s/%s", root, name);
    return enter_content(name, whole);
  case SYS_openat: case SYS_openat2: return look_at_open(process, result);
  case SYS_mmap: return add_mapped(process, a[4]);
  case SYS_renameat2:
    return name_entry(a[4] & RENAME_EXCHANGE ? EXCHANGE : RENAME, process, a[0], a[1], a[2], a[3]);
  case SYS_linkat: return name_entry(LINK, process, a[0], a[1], a[2], a[3]);
  case SYS_symlinkat: return symbolic_link(process, a[1], a[2]);
  case SYS_unlinkat: return one_name(UNLINK, process, a[0], a[1]);
  case SYS_mkdirat: return one_name(MKDIR, process, a[0], a[1]);
  case SYS_fsync: case SYS_fdatasync: return sync_entry(process, a[0], 0);
  case SYS_syncfs: return sync_entry(process, a[0], 1);
  case SYS_sync: return enter(SYNC_ALL, "", "", NULL, "", 0);
#ifdef SYS_open
  case SYS_open: case SYS_creat: return look_at_open(process, result);
  case SYS_rename: return name_entry(RENAME, process, AT_FDCWD, a[0], AT_FDCWD, a[1]);
  case SYS_link: return name_entry(LINK, process, AT_FDCWD, a[0], AT_FDCWD, a[1]);
  case SYS_symlink: return symbolic_link(process, AT_FDCWD, a[1]);
  case SYS_unlink: case SYS_rmdir: return one_name(UNLINK, process, AT_FDCWD, a[0]);
  case SYS_mkdir: return one_name(MKDIR, process, AT_FDCWD, a[0]);
#endif
#ifdef SYS_renameat
  case SYS_renameat: return name_entry(RENAME, process, a[0], a[1], a[2], a[3]);
#endif
  }
}

// Lets a stopped call happen while no other that is watched can. Returns how the process stands then: what `waitpid` said
// if it is gone, and -1 if it goes on.
static int step(pid_t process) {
  struct call call, end;
  int status;
  if (ptrace(PTRACE_GET_SYSCALL_INFO, process, sizeof call, &call) < 0) return -1; // killed in the meantime
  if (wanted(process, &call)) {
    look_at_mapped();
    if (ptrace(PTRACE_SYSCALL, process, 0, 0) < 0) return -1;
    if (waitpid(process, &status, __WALL) < 0) fail("waiting for a call");
    if (WIFEXITED(status) || WIFSIGNALED(status)) return status;
    if (WSTOPSIG(status) == (SIGTRAP | 0x80) && ptrace(PTRACE_GET_SYSCALL_INFO, process, sizeof end, &end) > 0) {
      if (end.op == AT_EXIT && !end.exit.is_error)
        changed(process, call.enter.number, call.enter.arguments, end.exit.result);
    }
  }
  ptrace(PTRACE_CONT, process, 0, 0);
  return -1;
}

static void become(char **program, int go) {
  struct sock_filter filter[COUNT + 3] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
  for (int i = 0; i < COUNT; i++)
    filter[1 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, WATCHED[i], COUNT - i, 0);
  filter[COUNT + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  filter[COUNT + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
  struct sock_fprog all = {COUNT + 3, filter};
  char byte;
  if (read(go, &byte, 1) != 1) _exit(125);
  close(go);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all)) fail("seccomp");
  execvp(program[0], program);
  fail(program[0]);
}

int main(int count, char **arguments) {
  if (count < 4) return 125;
  if (!realpath(arguments[2], root)) fail(arguments[2]);
  root_length = strlen(root);
  log_file = open(arguments[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log_file < 0) fail(arguments[1]);

  int go[2];
  if (pipe2(go, O_CLOEXEC)) fail("a pipe");
  pid_t first = fork();
  if (first == 0) become(arguments + 3, go[0]);
  long options = PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                 PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD;
  if (ptrace(PTRACE_SEIZE, first, 0, options)) fail("ptrace");
  if (write(go[1], "g", 1) != 1) fail("starting");

  int ended = 125 << 8, status;
  for (pid_t process; (process = waitpid(-1, &status, __WALL)) > 0;) {
    if (WIFSTOPPED(status)) {
      int event = status >> 16, signal = WSTOPSIG(status);
      if (event == PTRACE_EVENT_SECCOMP) {
        if ((status = step(process)) == -1) continue;
      } else if (event == PTRACE_EVENT_STOP) {
        // A new process or thread, or one that is stopped as a whole.
        int is_stopped = signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
        ptrace(is_stopped ? PTRACE_LISTEN : PTRACE_CONT, process, 0, 0);
        continue;
      } else {
        ptrace(PTRACE_CONT, process, 0, event || signal == (SIGTRAP | 0x80) ? 0 : signal);
        continue;
      }
    }
    if (process == first) ended = status;
  }
  look_at_mapped();
  if (WIFSIGNALED(ended)) {
    signal(WTERMSIG(ended), SIG_DFL);
    raise(WTERMSIG(ended));
  }
  return WEXITSTATUS(ended);
}
