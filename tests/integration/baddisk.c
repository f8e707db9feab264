/*
 * baddisk.c: a disk with errors, for one process (LD_PRELOAD)
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * While the file that BAD_DISK names is there, with "ERRNO CALLS PART" in it, calls on
 * paths that contain PART fail with that errno: r, opening to read; w, whatever
 * changes something; s, syncing alone.  Looking at names and sizes works, as it does
 * for what a kernel has in its cache.
 */

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* What the file says now; by system calls, which nobody stands before.  0: nothing. */
static int
badDiskRead(char *calls, char *part)
{
    const char *path = getenv("BAD_DISK");
    char text[PATH_MAX + 64] = "";
    int number = 0;
    long fd = path ? syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;

    if (fd < 0)
        return 0;
    if (syscall(SYS_read, fd, text, sizeof(text) - 1) <= 0 ||
        sscanf(text, "%d %7s %4095s", &number, calls, part) != 3)
        number = 0;
    syscall(SYS_close, fd);
    return number;
}

/* 1, with errno: @path is on the bad disk, and one of @kinds is refused. */
static int
badDiskRefuses(const char *path, const char *kinds)
{
    const int before = errno;
    char calls[8] = "";
    char part[PATH_MAX] = "";
    const int number = badDiskRead(calls, part);

    errno = before;
    if (number == 0 || !strpbrk(calls, kinds) || !strstr(path, part))
        return 0;
    errno = number;
    return 1;
}

static int
badDiskRefusesFd(int fd, const char *kinds)
{
    char link[64];
    char path[PATH_MAX] = "";

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    return readlink(link, path, sizeof(path) - 1) > 0 && badDiskRefuses(path, kinds);
}

static const char *
badDiskKind(int flags)
{
    return (flags & O_ACCMODE) == O_RDONLY ? "r" : "w";
}

/* The calls of files of any size: their names in C are those of the other ones. */
int
badDiskOpen(const char *path, int flags, ...) __asm__("open64") EXPORT;
int
badDiskOpenSmall(const char *path, int flags, ...) __asm__("open") EXPORT;

#define OPEN(function, name)                                                           \
    int function(const char *path, int flags, ...)                                     \
    {                                                                                  \
        int (*real)(const char *, int, ...) =                                          \
            (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, name);                   \
        unsigned mode = 0;                                                             \
        va_list args;                                                                  \
                                                                                       \
        va_start(args, flags);                                                         \
        if (flags & O_CREAT)                                                           \
            mode = va_arg(args, unsigned);                                             \
        va_end(args);                                                                  \
        return badDiskRefuses(path, badDiskKind(flags)) ? -1                           \
                                                        : real(path, flags, mode);     \
    }

OPEN(badDiskOpen, "open64")
OPEN(badDiskOpenSmall, "open")

EXPORT ssize_t
write(int fd, const void *data, size_t bytes)
{
    return badDiskRefusesFd(fd, "w") ? -1 : REAL(write)(fd, data, bytes);
}

EXPORT int
fsync(int fd)
{
    return badDiskRefusesFd(fd, "ws") ? -1 : REAL(fsync)(fd);
}

EXPORT int
fdatasync(int fd)
{
    return badDiskRefusesFd(fd, "ws") ? -1 : REAL(fdatasync)(fd);
}

EXPORT int
rename(const char *from, const char *to)
{
    return badDiskRefuses(to, "w") ? -1 : REAL(rename)(from, to);
}

EXPORT int
unlink(const char *path)
{
    return badDiskRefuses(path, "w") ? -1 : REAL(unlink)(path);
}

EXPORT int
mkdir(const char *path, mode_t mode)
{
    return badDiskRefuses(path, "w") ? -1 : REAL(mkdir)(path, mode);
}
