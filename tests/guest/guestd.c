/*
 * guestd.c: the only program of the throw-away guest
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Runs as /init from an initramfs, loads the modules listed in /modules, and obeys
 * lines read from the first serial port: "ID COMMAND ARGUMENTS".  Each is answered by
 * one line, "ID ok RESULT" or "ID err TEXT", once its effect has reached the disk's
 * driver.  Numbers are decimal.  Nothing here is kept: what must be known later is
 * on the disk or is told to the host.
 *
 * Two loads run in threads of their own.  A writer writes records number 1, 2, ...
 * one after the other: record N fills one 4 KiB block, chosen by mix(seed + N), with
 * the block's index and N.  So the state of the region at any moment is known from one
 * number, and a copy of it can be judged exactly.  A file load does the same on a
 * mounted file system, for checks by fsck.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PORT "/dev/ttyS0"
#define BLOCK 4096
#define CHUNK (1024 * 1024)
#define MAX_WORDS 10
#define MAX_LOADS 8

typedef struct Load {
    pthread_t thread;
    int running;
    volatile int stop;
    volatile int failed;       /* errno */
    volatile uint64_t done;    /* last record whose write returned */
    volatile uint64_t flushed; /* last record that an fsync covered */
    volatile uint64_t slowest; /* microseconds of the longest write since last asked */
    int isFile;
    char path[256]; /* of the device or the folder */
    uint64_t offset;
    uint64_t blocks;
    uint64_t seed;
    uint64_t first;
    unsigned flushEvery;
    unsigned delayUsec;
} Load;

static FILE *input; /* two streams: one that reads and writes loses bytes on a tty */
static FILE *port;
static Load loads[MAX_LOADS];

static void
answer(const char *id, int ok, const char *format, ...)
{
    va_list args;

    fprintf(port, "%s %s ", id, ok ? "ok" : "err");
    va_start(args, format);
    vfprintf(port, format, args);
    va_end(args);
    fputc('\n', port);
    fflush(port);
}

/* splitmix64's output function: the host computes the same. */
static uint64_t
mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static void
fillRecord(uint64_t *buffer, uint64_t index, uint64_t number)
{
    for (size_t i = 0; i < BLOCK / 8; i += 2) {
        buffer[i] = index;
        buffer[i + 1] = number;
    }
}

static void *
alignedBuffer(size_t size)
{
    void *buffer = NULL;

    if (posix_memalign(&buffer, BLOCK, size) != 0)
        abort();
    return buffer;
}

/* Returns 0 or an errno. */
static int
writeAll(int fd, const void *data, size_t size, uint64_t offset)
{
    const char *p = data;

    while (size > 0) {
        ssize_t n = pwrite(fd, p, size, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : EIO;
        p += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

static int
readAll(int fd, void *data, size_t size, uint64_t offset)
{
    char *p = data;

    while (size > 0) {
        ssize_t n = pread(fd, p, size, (off_t)offset);

        if (n <= 0)
            return n < 0 ? errno : EIO;
        p += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

/* Repeats one byte over a range, written past the page cache. */
static int
writePattern(const char *device, uint64_t offset, uint64_t length, int byte)
{
    int fd = open(device, O_RDWR | O_DIRECT);
    void *buffer = alignedBuffer(CHUNK);
    int err = fd < 0 ? errno : 0;

    memset(buffer, byte, CHUNK);
    while (err == 0 && length > 0) {
        size_t now = length < CHUNK ? (size_t)length : CHUNK;

        err = writeAll(fd, buffer, now, offset);
        offset += now;
        length -= now;
    }
    free(buffer);
    if (fd >= 0)
        close(fd);
    return err;
}

/* Returns 0, an errno, or -1 with @where at the first byte that differs. */
static int
verifyPattern(
    const char *device, uint64_t offset, uint64_t length, int byte, uint64_t *where)
{
    int fd = open(device, O_RDONLY | O_DIRECT);
    unsigned char *buffer = alignedBuffer(CHUNK);
    int err = fd < 0 ? errno : 0;

    while (err == 0 && length > 0) {
        size_t now = length < CHUNK ? (size_t)length : CHUNK;

        err = readAll(fd, buffer, now, offset);
        for (size_t i = 0; err == 0 && i < now; i++) {
            if (buffer[i] != byte) {
                *where = offset + i;
                err = -1;
            }
        }
        offset += now;
        length -= now;
    }
    free(buffer);
    if (fd >= 0)
        close(fd);
    return err;
}

static int
rangeIoctl(const char *device, unsigned long request, uint64_t offset, uint64_t length)
{
    uint64_t range[2] = {offset, length};
    int fd = open(device, O_RDWR);
    int err = 0;

    if (fd < 0)
        return errno;
    if (ioctl(fd, request, range) < 0)
        err = errno;
    close(fd);
    return err;
}

static int
flushDevice(const char *device)
{
    int fd = open(device, O_RDWR);
    int err = 0;

    if (fd < 0)
        return errno;
    if (fsync(fd) < 0)
        err = errno;
    close(fd);
    return err;
}

static uint64_t
nowUsec(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void *
writerThread(void *data)
{
    Load *load = data;
    uint64_t *buffer = alignedBuffer(BLOCK);
    int fd = open(load->path, O_RDWR | O_DIRECT);

    load->failed = fd < 0 ? errno : 0;
    for (uint64_t n = load->first; !load->failed && !load->stop; n++) {
        uint64_t index = mix(load->seed + n) % load->blocks;
        uint64_t began;

        fillRecord(buffer, index, n);
        began = nowUsec();
        load->failed = writeAll(fd, buffer, BLOCK, load->offset + index * BLOCK);
        if (load->failed)
            break;
        if (nowUsec() - began > load->slowest)
            load->slowest = nowUsec() - began;
        load->done = n;
        if (load->flushEvery && n % load->flushEvery == 0) {
            if (fsync(fd) < 0)
                load->failed = errno;
            else
                load->flushed = n;
        }
        if (load->delayUsec)
            usleep(load->delayUsec);
    }
    if (fd >= 0 && !load->failed) {
        uint64_t last = load->done;

        if (fsync(fd) < 0)
            load->failed = errno;
        else
            load->flushed = last;
    }
    if (fd >= 0)
        close(fd);
    free(buffer);
    return NULL;
}

/* One record of a file load: a block of one of a few files, then a line of the log. */
static int
fileRecord(Load *load, int log, uint64_t n)
{
    uint64_t where = mix(load->seed + n);
    uint64_t *buffer = alignedBuffer(BLOCK);
    char name[sizeof(load->path) + 32];
    char line[17];
    int err = 0;
    int fd;

    snprintf(name, sizeof(name), "%s/data.%u", load->path,
             (unsigned)(where >> 32) % 16);
    fd = open(name, O_RDWR | O_CREAT, 0600);
    if (fd < 0)
        err = errno;
    fillRecord(buffer, where % load->blocks, n);
    if (!err)
        err = writeAll(fd, buffer, BLOCK, where % load->blocks * BLOCK);
    if (!err && load->flushEvery && n % load->flushEvery == 0 && fsync(fd) < 0)
        err = errno;
    if (fd >= 0)
        close(fd);
    free(buffer);
    snprintf(line, sizeof(line), "%015llu\n", (unsigned long long)n);
    return err ? err : writeAll(log, line, 16, (n - load->first) * 16);
}

static void *
fileThread(void *data)
{
    Load *load = data;
    char name[sizeof(load->path) + 32];
    int log;

    snprintf(name, sizeof(name), "%s/log", load->path);
    log = open(name, O_RDWR | O_CREAT, 0600);
    load->failed = log < 0 ? errno : 0;
    for (uint64_t n = load->first; !load->failed && !load->stop; n++) {
        load->failed = fileRecord(load, log, n);
        if (load->failed)
            break;
        load->done = n;
        if (load->flushEvery && n % load->flushEvery == 0) {
            if (fsync(log) < 0)
                load->failed = errno;
            else
                load->flushed = n;
        }
        if (load->delayUsec)
            usleep(load->delayUsec);
    }
    if (log >= 0) {
        if (fsync(log) == 0 && !load->failed)
            load->flushed = load->done;
        close(log);
    }
    return NULL;
}

static uint64_t
number(const char *text)
{
    return strtoull(text, NULL, 10);
}

/* load N writer|files PATH OFFSET LENGTH SEED FIRST FLUSHEVERY DELAY */
static void
startLoad(const char *id, int argc, char **argv)
{
    Load *load;

    if (argc != 10 || number(argv[1]) >= MAX_LOADS || loads[number(argv[1])].running ||
        number(argv[5]) < BLOCK) {
        answer(id, 0, "bad or running load");
        return;
    }
    load = &loads[number(argv[1])];
    memset(load, 0, sizeof(*load));
    load->isFile = strcmp(argv[2], "files") == 0;
    snprintf(load->path, sizeof(load->path), "%s", argv[3]);
    load->offset = number(argv[4]);
    load->blocks = number(argv[5]) / BLOCK;
    load->seed = number(argv[6]);
    load->first = number(argv[7]);
    load->flushEvery = (unsigned)number(argv[8]);
    load->delayUsec = (unsigned)number(argv[9]);
    load->running = 1;
    if (pthread_create(&load->thread, NULL, load->isFile ? fileThread : writerThread,
                       load) != 0) {
        load->running = 0;
        answer(id, 0, "no thread");
        return;
    }
    answer(id, 1, "started");
}

static void
reportLoad(const char *id, const char *which, int stop)
{
    Load *load = &loads[number(which) % MAX_LOADS];

    if (!load->running) {
        answer(id, 0, "no such load");
        return;
    }
    if (stop) {
        load->stop = 1;
        pthread_join(load->thread, NULL);
        load->running = 0;
    }
    if (load->failed)
        answer(id, 0, "load: %s", strerror(load->failed));
    else
        answer(id, 1, "%llu %llu", (unsigned long long)load->done,
               (unsigned long long)load->flushed);
}

static void
reportSlowest(const char *id, const char *which)
{
    Load *load = &loads[number(which) % MAX_LOADS];
    uint64_t slowest = load->slowest;

    load->slowest = 0;
    answer(id, 1, "%llu", (unsigned long long)slowest);
}

static int
deviceSize(const char *device, uint64_t *size)
{
    int fd = open(device, O_RDONLY);
    int err = 0;

    if (fd < 0)
        return errno;
    if (ioctl(fd, BLKGETSIZE64, size) < 0)
        err = errno;
    close(fd);
    return err;
}

static int
mountDevice(const char *device, const char *folder)
{
    mkdir(folder, 0755);
    if (mount(device, folder, "ext4", 0, NULL) == 0)
        return 0;
    if (errno != EACCES && errno != EROFS)
        return errno;
    return mount(device, folder, "ext4", MS_RDONLY, NULL) < 0 ? errno : 0;
}

/* Starts a program that is left alone; its pid. */
static int
startProgram(char **argv, uint64_t *value)
{
    pid_t pid = fork();

    if (pid == 0) {
        execv(argv[0], argv);
        _exit(127);
    }
    *value = (uint64_t)pid;
    return pid < 0 ? errno : 0;
}

/* Commands on a range: write, zero, discard, verify. */
static int
runRange(char **argv, uint64_t *where)
{
    uint64_t offset = number(argv[2]);
    uint64_t length = number(argv[3]);
    int byte = argv[4] ? atoi(argv[4]) : 0;

    if (strcmp(argv[0], "write") == 0)
        return writePattern(argv[1], offset, length, byte);
    if (strcmp(argv[0], "zero") == 0)
        return rangeIoctl(argv[1], BLKZEROOUT, offset, length);
    if (strcmp(argv[0], "discard") == 0)
        return rangeIoctl(argv[1], BLKDISCARD, offset, length);
    if (strcmp(argv[0], "verify") == 0)
        return verifyPattern(argv[1], offset, length, byte, where);
    return ENOSYS;
}

static void
runCommand(const char *id, int argc, char **argv)
{
    uint64_t value = 0;
    int err;

    if (strcmp(argv[0], "load") == 0) {
        startLoad(id, argc, argv);
        return;
    }
    if (argc == 2 && strcmp(argv[0], "status") == 0) {
        reportLoad(id, argv[1], 0);
        return;
    }
    if (argc == 2 && strcmp(argv[0], "slowest") == 0) {
        reportSlowest(id, argv[1]);
        return;
    }
    if (argc == 2 && strcmp(argv[0], "stop") == 0) {
        reportLoad(id, argv[1], 1);
        return;
    }
    if (argc == 1 && strcmp(argv[0], "poweroff") == 0) {
        answer(id, 1, "going");
        tcdrain(fileno(port));
        sync();
        reboot(RB_POWER_OFF);
        return;
    }
    if (strcmp(argv[0], "ping") == 0)
        err = 0;
    else if (argc == 2 && strcmp(argv[0], "size") == 0)
        err = deviceSize(argv[1], &value);
    else if (argc == 2 && strcmp(argv[0], "flush") == 0)
        err = flushDevice(argv[1]);
    else if (argc == 3 && strcmp(argv[0], "mount") == 0)
        err = mountDevice(argv[1], argv[2]);
    else if (argc >= 2 && strcmp(argv[0], "run") == 0)
        err = startProgram(argv + 1, &value);
    else if (argc == 3 && strcmp(argv[0], "kill") == 0)
        err = kill(atoi(argv[1]), atoi(argv[2])) < 0 ? errno : 0;
    else if (argc == 2 && strcmp(argv[0], "umount") == 0)
        err = umount(argv[1]) < 0 ? errno : 0;
    else
        err = argc >= 4 ? runRange(argv, &value) : ENOSYS;
    if (err < 0)
        answer(id, 0, "differs at %llu", (unsigned long long)value);
    else if (err > 0)
        answer(id, 0, "%s: %s", argv[0], strerror(err));
    else
        answer(id, 1, "%llu", (unsigned long long)value);
}

static void
serve(void)
{
    char line[512];

    while (fgets(line, sizeof(line), input)) {
        char *argv[MAX_WORDS + 2] = {NULL};
        char *save = NULL;
        int argc = 0;

        for (char *word = strtok_r(line, " \r\n", &save); word && argc < MAX_WORDS + 1;
             word = strtok_r(NULL, " \r\n", &save))
            argv[argc++] = word;
        if (argc >= 2)
            runCommand(argv[0], argc - 1, argv + 1);
    }
}

static void
loadModules(void)
{
    FILE *list = fopen("/modules", "r");
    char name[256];

    while (list && fscanf(list, "%255s", name) == 1) {
        int fd = open(name, O_RDONLY | O_CLOEXEC);

        if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) < 0)
            fprintf(stderr, "guestd: module %s: %s\n", name, strerror(errno));
        if (fd >= 0)
            close(fd);
    }
    if (list)
        fclose(list);
}

static void
openPort(void)
{
    struct termios settings;
    int fd = open(PORT, O_RDWR | O_NOCTTY);

    if (fd < 0) {
        perror("guestd: " PORT);
        reboot(RB_POWER_OFF);
    }
    tcgetattr(fd, &settings);
    cfmakeraw(&settings);
    tcsetattr(fd, TCSANOW, &settings);
    input = fdopen(fd, "r");
    port = fdopen(dup(fd), "w");
}

int
main(void)
{
    mkdir("/dev", 0755);
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    loadModules();
    openPort();
    for (;;) {
        serve();
        clearerr(input);
        usleep(10000);
    }
}
