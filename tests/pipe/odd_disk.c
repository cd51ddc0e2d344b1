/* A disk that lacks things, and that writes down what it is asked. Loaded before the system's library.
   ODD names what fails, with the error's number: "flock=95 link=1 folder=22 file=5".
   DISK_LOG is a file that gets a line for each change: "write PATH" (of logs), "sync PATH", "rename PATH" (the new
   one), "remove PATH". */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails(const char *what) {
    const char *odd = getenv("ODD"), *at = odd ? strstr(odd, what) : 0;
    if (at && at[strlen(what)] == '=') {
        errno = atoi(at + strlen(what) + 1);
        return 1;
    }
    return 0;
}

static void note(const char *what, const char *path) {
    const char *log = getenv("DISK_LOG");
    char line[PATH_MAX + 16];
    int length = snprintf(line, sizeof line, "%s %s\n", what, path);
    if (log && length < (int)sizeof line) {
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        syscall(SYS_write, fd, line, length);
        syscall(SYS_close, fd);
    }
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return length > 0 && path[0] == '/';
}

static void whole(const char *path, char *to) {
    char folder[PATH_MAX];
    int is_whole = path[0] == '/' || !getcwd(folder, sizeof folder);
    snprintf(to, 2 * PATH_MAX, is_whole ? "%s%s" : "%s/%s", is_whole ? "" : folder, path);
}

int fsync(int fd) {
    struct stat found;
    char path[PATH_MAX];
    int is_folder = !fstat(fd, &found) && S_ISDIR(found.st_mode);
    if (fails(is_folder ? "folder" : "file")) return -1;
    /* Another thread may write meanwhile: what it adds is not counted as synced. */
    if (path_of(fd, path)) note("sync", path);
    return syscall(SYS_fsync, fd);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    char path[PATH_MAX];
    ssize_t written = syscall(SYS_write, fd, bytes, count);
    int error = errno;
    if (fd > 2 && path_of(fd, path) && strstr(path, "/logs/")) note("write", path);
    errno = error;
    return written;
}

int rename(const char *from, const char *to) {
    char path[2 * PATH_MAX];
    whole(to, path);
    int done = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    int error = errno;
    if (!done) note("rename", path);
    errno = error;
    return done;
}

int unlinkat(int at, const char *name, int flags) {
    char folder[PATH_MAX], path[2 * PATH_MAX];
    if (at == AT_FDCWD) whole(name, path);
    else if (path_of(at, folder)) snprintf(path, sizeof path, "%s/%s", folder, name);
    note("remove", path);
    return syscall(SYS_unlinkat, at, name, flags);
}

int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    return fails("link") ? -1 : syscall(SYS_linkat, from_at, from, to_at, to, flags);
}

int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int flock(int fd, int how) { return fails("flock") ? -1 : syscall(SYS_flock, fd, how); }
